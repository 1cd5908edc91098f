"""`trust`: who speaks for the auditor, from when to when, and how that changes."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.table import Table

from auditkit.cli.auditor import (
    DEFAULT_FIRST_TOKENS_DAYS,
    DEFAULT_HOME,
    DatabaseOption,
    HomeOption,
    TokenDaysOption,
    database_secret,
    report_home,
    write_tokens,
)
from auditkit.cli.errors import UsageError
from auditkit.cli.output import console, print_json, quoted
from auditkit.cli.passphrases import ModuleOption, PassphraseFileOption, key_ring
from auditkit.cli.root_keys import KeyRing, is_public_key
from auditkit.evidence import trust as trust_roots
from auditkit.evidence.dsse import Envelope
from auditkit.evidence.keys import PublicKey, Signer, SigningKey
from auditkit.evidence.trust_history import TrustVersion
from schemas import RoleName, TrustRoot

if TYPE_CHECKING:
    from auditor_server.home import Home

DEFAULT_DAYS = 5 * 365
SOON_DAYS = 60  # an expiry that is nearer is shown in yellow: time to rotate
DRAFT_NOTICE = timedelta(days=1)  # for other holders to sign, before the version takes over
MOST_NEW_VERSIONS = 1000  # fetched in one update; more would be an attempt to keep us busy
KEYID_DIGITS_SHOWN = 16
LEAST_KEYID_DIGITS = 8
ROLES: tuple[RoleName, ...] = tuple(role for role in get_args(RoleName) if role != "root")

trust_app = typer.Typer(
    no_args_is_help=True,
    help="The trust root: whose signatures speak for the auditor, and since when.",
)

KeyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        help="Root key that signs: a file or a pkcs11: URI; may be given several times. Without "
        "it, root keys in the home sign.",
    ),
]
DraftOption = Annotated[
    Path,
    typer.Option("--draft", help="Where to write the new version while signatures are missing."),
]
DaysOption = Annotated[
    float, typer.Option("--days", min=0.01, help="Days until the new version expires.")
]
StartsOption = Annotated[
    str | None,
    typer.Option(
        "--starts",
        help="When the new version takes over (ISO 8601, UTC unless it says otherwise); give a "
        "time by which all signatures will be there. Without it, at once, or a day later if "
        "signatures are missing.",
    ),
]


@trust_app.command()
def init(
    root_keys: Annotated[
        list[str],
        typer.Option(
            "--root-key",
            help="Root key: a file or a pkcs11: URI, made if it is not there, or a public key in "
            "hexadecimal form; may be given several times.",
        ),
    ],
    threshold: Annotated[
        int, typer.Option("--threshold", min=1, help="How many root keys must sign every version.")
    ] = 1,
    home: HomeOption = DEFAULT_HOME,
    auditor: Annotated[str, typer.Option("--auditor", help="Name of the authority.")] = "Auditor",
    origin: Annotated[str, typer.Option("--origin", help="Name of the server.")] = "localhost",
    days: DaysOption = DEFAULT_DAYS,
    passphrase_file: PassphraseFileOption = None,
    module: ModuleOption = None,
    token_days: TokenDaysOption = DEFAULT_FIRST_TOKENS_DAYS,
    database_url: DatabaseOption = None,
) -> None:
    """Set up an auditor whose root keys are kept offline; the server's keys are delegated.

    auditkit trust init --root-key a.pem --root-key b.pem --root-key c.pem --threshold 2
    """
    from auditor_server.home import RootKeys, create_home

    ring = key_ring(passphrase_file, module)
    public, signers = _enrolled(ring, root_keys)
    now, tokens_lifetime = datetime.now(UTC), timedelta(days=token_days)
    created = create_home(
        home,
        auditor,
        origin,
        now,
        root_keys=RootKeys(signers, public, threshold),
        lifetime=timedelta(days=days),
        tokens_lifetime=tokens_lifetime,
        database_url=database_secret(database_url),
    )
    write_tokens(created)
    report_home(created, now + tokens_lifetime)
    _print_version(created.history().versions[-1], datetime.now(UTC))


@trust_app.command()
def show(
    trust_root: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="A trust root; without it, the home's own."),
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show versions, keys by role, expiry, and the fingerprint to compare by telephone.

    auditkit trust show trust-root.json
    """
    from auditor_server.trust_files import TrustFile

    now = datetime.now(UTC)
    file = _home(home).trust_file if trust_root is None else TrustFile(trust_root)
    history = file.read()
    if as_json:
        print_json([_as_json(version, now) for version in history.versions])
        return
    newest = history.versions[-1]
    console.print(
        f"Trust root of [bold]{quoted(history.auditor)}[/bold], server {quoted(history.origin)}"
    )
    for version in history.versions[:-1]:
        console.print(
            f"  version {version.root.version}, from {version.root.issued_at:%Y-%m-%d %H:%M:%S} "
            f"UTC, fingerprint {version.digest[:KEYID_DIGITS_SHOWN]}…"
        )
    _print_version(newest, now)


@trust_app.command()
def key(
    reference: Annotated[
        str, typer.Argument(metavar="KEY", help="A file or a pkcs11: URI; made if not there yet.")
    ],
    passphrase_file: PassphraseFileOption = None,
    module: ModuleOption = None,
) -> None:
    """Make a root key, or open it, and print its public half, which others may have.

    auditkit trust key root-2.pem
    """
    console.print(key_ring(passphrase_file, module).open_or_make(reference).public.hex)


@trust_app.command()
def rotate(
    home: HomeOption = DEFAULT_HOME,
    roles: Annotated[
        list[str] | None,
        typer.Option(
            "--role",
            help=f"Role that gets a new key ({', '.join(ROLES)}); may be given several times. "
            "Without it, and without changes of root keys, all of these.",
        ),
    ] = None,
    add_root_keys: Annotated[
        list[str] | None,
        typer.Option(
            "--add-root-key",
            help="Further root key: a file or a pkcs11: URI, made if it is not there, or a public "
            "key in hexadecimal form.",
        ),
    ] = None,
    remove_root_keys: Annotated[
        list[str] | None,
        typer.Option("--remove-root-key", help="Root key that leaves, by its identifier."),
    ] = None,
    threshold: Annotated[
        int | None,
        typer.Option("--threshold", min=1, help="How many root keys must sign from now on."),
    ] = None,
    keys: KeyOption = None,
    starts: StartsOption = None,
    days: DaysOption = DEFAULT_DAYS,
    draft: DraftOption = Path("trust-root.next.json"),
    passphrase_file: PassphraseFileOption = None,
    module: ModuleOption = None,
) -> None:
    """Make the next version: new keys, other root keys, another threshold, a later expiry.

    The root keys of the old and of the new version sign. If some are elsewhere, the version is
    written to a file that their holders sign with `auditkit trust sign`.

        auditkit trust rotate --role cosigner --key root-1.pem --key root-2.pem
    """
    from auditor_server.rotation import Changes

    unknown = set(roles or ()) - set(ROLES)
    if unknown:
        raise UsageError(f"no role is called {min(unknown)!r}; there are {', '.join(ROLES)}")
    opened = _home(home)
    history = opened.history()
    ring = key_ring(passphrase_file, module)
    signers = _signers(ring, keys, opened, history.current)
    public, new_signers = _enrolled(ring, add_root_keys or ())
    chosen = roles or ([] if add_root_keys or remove_root_keys or threshold else ROLES)
    fresh: dict[RoleName, SigningKey] = {
        role: SigningKey.generate() for role in ROLES if role in chosen
    }
    changes = Changes(
        new_keys={role: made.public for role, made in fresh.items()},
        add_root=public,
        remove_root=[_keyid(text, history.current) for text in remove_root_keys or ()],
        root_threshold=threshold,
    )
    for role, made in fresh.items():
        opened.add_key(role, made)
    _issue(opened, changes, [*signers, *new_signers], starts, days, draft)


@trust_app.command()
def revoke(
    home: HomeOption = DEFAULT_HOME,
    session_keys: Annotated[
        list[str] | None,
        typer.Option("--session-key", help="Public key of a session; all that it signed is void."),
    ] = None,
    role_keys: Annotated[
        list[str] | None,
        typer.Option(
            "--role-key",
            help="Identifier of a key of a role, as `trust show` has it; the role gets a new key.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            help="From when on the key of a role is compromised (ISO 8601); without it, now.",
        ),
    ] = None,
    keys: KeyOption = None,
    starts: StartsOption = None,
    days: DaysOption = DEFAULT_DAYS,
    draft: DraftOption = Path("trust-root.next.json"),
    passphrase_file: PassphraseFileOption = None,
    module: ModuleOption = None,
) -> None:
    """Revoke keys, in a next version of the trust root.

    What a role's key signed counts on if it is dated before the time given, and the registry or a
    cosignature shows that it existed then.

        auditkit trust revoke --role-key 3f2a91cc --since 2026-05-01T12:00:00Z --key root.pem
    """
    from auditor_server.rotation import Changes

    if not session_keys and not role_keys:
        raise UsageError("nothing to revoke: give --session-key or --role-key")
    opened = _home(home)
    history = opened.history()
    current = history.current
    signers = _signers(key_ring(passphrase_file, module), keys, opened, current)
    compromised_at = _time(since) or datetime.now(UTC).replace(microsecond=0)
    revoked = [_keyid(text, current) for text in role_keys or ()]
    held = {
        role: [keyid for keyid in revoked if keyid in found.keyids]
        for role, found in current.roles.items()
    }
    root = current.roles["root"]
    if len(root.keyids) - len(held.pop("root")) < root.threshold:
        raise UsageError(
            f"without this key, fewer root keys than the {root.threshold} needed are left; add "
            "another one first, with `auditkit trust rotate --add-root-key`"
        )
    fresh = {role: SigningKey.generate() for role, found in held.items() if found}
    for role, made in fresh.items():
        opened.add_key(role, made)
    changes = Changes(
        new_keys={role: made.public for role, made in fresh.items()},
        revoked_session_keys=[PublicKey.from_hex(text).hex for text in session_keys or ()],
        revoked_keys=dict.fromkeys(revoked, compromised_at),
    )
    _issue(opened, changes, signers, starts, days, draft)


@trust_app.command()
def sign(
    draft: Annotated[
        Path, typer.Argument(metavar="DRAFT", help="A version that lacks signatures.")
    ],
    keys: Annotated[
        list[str],
        typer.Option("--key", help="Root key that signs; may be given several times."),
    ],
    trust_root: Annotated[
        Path | None,
        typer.Option("--trust-root", help="The version before, to say which signatures are left."),
    ] = None,
    passphrase_file: PassphraseFileOption = None,
    module: ModuleOption = None,
) -> None:
    """Sign the next version of a trust root with further root keys, on any machine.

    Compare the fingerprint with the other holders before: your signature is what makes it hold.

        auditkit trust sign trust-root.next.json --key root-2.pem
    """
    from auditor_server.trust_files import TrustFile, write_durably

    envelope, root = trust_roots.read_draft(_read(draft))
    ring = key_ring(passphrase_file, module)
    envelope = trust_roots.add_signatures(envelope, [ring.open(text) for text in keys])
    write_durably(draft, envelope.to_bytes())
    _print_version(TrustVersion(root, envelope), datetime.now(UTC))
    before = () if trust_root is None else (TrustFile(trust_root).read().current,)
    _print_missing(envelope, (*before, root))


@trust_app.command()
def update(
    trust_root: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The trust root that you hold.")
    ] = None,
    server: Annotated[
        str | None,
        typer.Option("--server", envvar="AUDITKIT_SERVER", help="Where to ask for newer versions."),
    ] = None,
    sources: Annotated[
        list[Path] | None,
        typer.Option("--from", help="File with a newer version; may be given several times."),
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option("--home", help="Put the version in force in this auditor's home instead."),
    ] = None,
) -> None:
    """Move the trust root that you hold forward, after every signature has been checked.

    It never moves back, and it stays where it is when anything is wrong.

        auditkit trust update trust-root.json --server https://audit.example.org
    """
    from auditor_server.trust_files import TrustFile, newer_versions

    if (trust_root is None) == (home is None):
        raise UsageError("give the FILE that you hold, or --home, not both")
    opened = None if home is None else _home(home)
    file = (
        TrustFile(trust_root) if opened is None and trust_root else _home(home or Path()).trust_file
    )
    known = file.read()
    if sources:
        found = newer_versions([_read(path) for path in sources])
    elif server is not None:
        found = _fetch(server, known.current.version)
    else:
        raise UsageError("nowhere to look for newer versions: give --server or --from")
    now = datetime.now(UTC)
    updated = file.update(found, now) if opened is None else opened.install(found, now)
    old, new = known.current.version, updated.current.version
    console.print(
        f"version {new} is the newest, nothing to change"
        if new == old
        else f"moved from version {old} to version {new}, each signed by the one before"
    )
    _print_version(updated.versions[-1], now)


def _issue(
    home: "Home",
    changes: Any,  # noqa: ANN401 - Changes; imported where it is used, for a quick start
    signers: Sequence[Signer],
    starts: str | None,
    days: float,
    draft: Path,
) -> None:
    """Make the next version, sign it, and put it in force if the signatures suffice."""
    from auditor_server.rotation import earliest_start, next_version
    from auditor_server.trust_files import write_durably

    now = datetime.now(UTC)
    history = home.history()
    lifetime = timedelta(days=days)
    root = next_version(
        history, changes, starts=_time(starts) or earliest_start(now), lifetime=lifetime
    )
    here = {signer.public.keyid for signer in signers}
    if starts is None and not (_suffice(here, history.current) and _suffice(here, root)):
        later = earliest_start(now + DRAFT_NOTICE)
        root = next_version(history, changes, starts=later, lifetime=lifetime)
    payload = trust_roots.trust_root_payload(root)
    envelope, _ = trust_roots.read_draft(payload)
    if signers:
        envelope = trust_roots.add_signatures(envelope, signers)
    versions = (history.current, root)
    if any(_missing(envelope, version) for version in versions):
        write_durably(draft, envelope.to_bytes() if signers else payload)
        _print_version(TrustVersion(root, envelope), now)
        _print_missing(envelope, versions)
        console.print(f"\nwrote {quoted(draft)}; its holders sign it with", markup=True)
        console.print(f"  auditkit trust sign {draft} --key KEY", markup=False)
        console.print("and then it is put in force with", markup=False)
        console.print(f"  auditkit trust update --home {home.path} --from {draft}", markup=False)
        return
    updated = home.install([envelope.to_bytes()], now)
    console.print(
        f"version {root.version} takes over at {root.issued_at:%Y-%m-%d %H:%M:%S} UTC; who holds "
        "an older version updates with `auditkit trust update`"
    )
    _print_version(updated.versions[-1], now)


def _enrolled(ring: KeyRing, references: Iterable[str]) -> tuple[list[PublicKey], list[Signer]]:
    """Return the public keys behind references, and those that can sign here."""
    public: list[PublicKey] = []
    signers: list[Signer] = []
    for reference in references:
        if is_public_key(reference):
            public.append(PublicKey.from_hex(reference))
        else:
            signers.append(ring.open_or_make(reference))
            public.append(signers[-1].public)
    return public, signers


def _signers(
    ring: KeyRing, references: list[str] | None, home: "Home", root: TrustRoot
) -> list[Signer]:
    """Return the root keys that were named; without any, those that lie in the home."""
    if references:
        return [ring.open(reference) for reference in references]
    own = sorted(home.keys_folder.glob("root*.pem"))
    signers = [ring.open(str(path)) for path in own]
    return [signer for signer in signers if signer.public.keyid in root.roles["root"].keyids]


def _fetch(server: str, known: int) -> list[bytes]:
    from auditkit.client import AuditorClient

    with AuditorClient(server) as client:
        newest = client.trust_root().to_bytes()
        number = trust_roots.read_trust_root(newest)[1].version
        if number - known > MOST_NEW_VERSIONS:
            raise UsageError(
                f"the server's trust root has version {number}, yours {known}; more than "
                f"{MOST_NEW_VERSIONS} at once are not fetched, ask the auditor for a newer one"
            )
        between = [client.trust_root(version).to_bytes() for version in range(known + 1, number)]
    return [*between, newest]


def _keyid(text: str, root: TrustRoot) -> str:
    """Return the identifier of a key of this version that begins with the given digits."""
    found = [keyid for keyid in root.keys if keyid.startswith(text)]
    if len(text) < LEAST_KEYID_DIGITS or len(found) != 1:
        raise UsageError(
            f"no single key of the trust root is {text!r}; give at least {LEAST_KEYID_DIGITS} "
            "digits of an identifier that `auditkit trust show` prints"
        )
    return found[0]


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no time; expected one like 2026-05-01T12:00:00Z") from error
    return time.replace(microsecond=0, tzinfo=time.tzinfo or UTC)


def _suffice(keyids: set[str], root: TrustRoot) -> bool:
    return len(keyids & set(root.roles["root"].keyids)) >= root.roles["root"].threshold


def _missing(envelope: Envelope, root: TrustRoot) -> int:
    return max(0, root.roles["root"].threshold - len(trust_roots.root_signers(envelope, root)))


def _print_missing(envelope: Envelope, versions: Iterable[TrustRoot]) -> None:
    for root in versions:
        missing = _missing(envelope, root)
        signed, threshold = (
            len(trust_roots.root_signers(envelope, root)),
            root.roles["root"].threshold,
        )
        console.print(
            f"root keys of version {root.version}: {signed} of {threshold} have signed"
            + (f", {missing} missing" if missing else "")
        )


def _print_version(version: TrustVersion, now: datetime) -> None:
    root = version.root
    days = (root.expires_at - now).days
    style = "yellow" if days < SOON_DAYS else "none"
    console.print(
        f"\nVersion [bold]{root.version}[/bold], from {root.issued_at:%Y-%m-%d %H:%M:%S} UTC to "
        f"{root.expires_at:%Y-%m-%d}: [{style}]{days} days left[/{style}]"
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("role", "keys needed", "identifier", "public key"):
        table.add_column(heading, no_wrap=True)
    for role, found in sorted(root.roles.items()):
        for position, keyid in enumerate(found.keyids):
            table.add_row(
                role if position == 0 else "",
                f"{found.threshold} of {len(found.keyids)}" if position == 0 else "",
                keyid[:KEYID_DIGITS_SHOWN],
                root.keys[keyid],
            )
    console.print(table)
    for revoked in root.revoked_keys:
        console.print(
            f"revoked: key {revoked.keyid[:KEYID_DIGITS_SHOWN]}, compromised from "
            f"{revoked.compromised_at:%Y-%m-%d %H:%M:%S} UTC"
        )
    for session_key in root.revoked_session_keys:
        console.print(f"revoked: session key {session_key}")
    console.print(f"fingerprint: {_grouped(version.digest)}")


def _as_json(version: TrustVersion, now: datetime) -> dict[str, Any]:
    return {
        "fingerprint": version.digest,
        "days_left": (version.root.expires_at - now).days,
        "trust_root": version.root.as_json(),
    }


def _grouped(digest: str) -> str:
    return " ".join(digest[start : start + 8] for start in range(0, len(digest), 8))


def _home(path: Path) -> "Home":
    from auditor_server.home import open_home

    return open_home(path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
