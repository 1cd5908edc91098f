"""Attacks on the auditor's keys: stolen, rotated out, revoked; and on who they are said to be.

The auditor here has rotated all keys of its server while the developer's session was running, and
the attacker has the old ones, which the auditor's old trust root still names.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from forge import (
    GRANTED_AT,
    ROLE_KEYS,
    STRANGER_KEY,
    Evidence,
    Plot,
    VerdictPlot,
    fixed_key,
    rebuilt_weights,
    stage,
    trust_root_of,
)
from typer.testing import CliRunner

from auditkit.cli.application import app
from auditkit.evidence import notes
from auditkit.evidence.canonical import sha256_hex, to_bytes
from auditkit.evidence.dsse import Envelope
from auditkit.evidence.errors import (
    TrustRootError,
    TrustRootExpiredError,
    TrustRootForkError,
    TrustRootGapError,
    TrustRootOrderError,
    TrustRootRollbackError,
    TrustRootSignatureError,
    TrustRootVersionError,
)
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.trust import sign_trust_root
from auditkit.evidence.trust_history import TrustHistory
from auditkit.evidence.verify import verify_bundle
from schemas import RevokedKey, Role, RoleName, TrustRoot, VerificationReport
from schemas.registry import RegisteredEntry, RegistryEntry, RegistryExcerpt

FIRST = trust_root_of(Plot())
SIGNED_FIRST = sign_trust_root(FIRST, [ROLE_KEYS["root"]]).to_bytes()
NEW_KEYS = {role: fixed_key(f"new {role}") for role in ROLE_KEYS}
NEWER_KEYS = {role: fixed_key(f"newer {role}") for role in ROLE_KEYS}
NOW = GRANTED_AT + timedelta(days=30)
LATER = GRANTED_AT + timedelta(days=1)
MID_SESSION = GRANTED_AT + timedelta(seconds=13)
SERVER_ROLES: tuple[RoleName, ...] = ("order", "session", "cosigner", "verdict")


def digest(signed: bytes) -> str:
    return sha256_hex(Envelope.from_bytes(signed).payload)


def following(
    before: bytes,
    holders: dict[RoleName, SigningKey],
    *,
    issued_at: datetime,
    signers: Sequence[SigningKey],
    version: int = 2,
    **changes: object,
) -> bytes:
    """The next version, with these keys in every role."""
    fields = {
        "version": version,
        "previous": digest(before),
        "issued_at": issued_at,
        "expires_at": issued_at + timedelta(days=1000),
        "keys": {key.public.keyid: key.public.hex for key in holders.values()},
        "roles": {role: Role(keyids=(key.public.keyid,)) for role, key in holders.items()},
        **changes,
    }
    root = TrustRoot.model_validate(FIRST.model_dump() | fields)
    return sign_trust_root(root, signers).to_bytes()


def rotated(issued_at: datetime, **changes: object) -> bytes:
    """The honest second version: other keys in all roles."""
    signers = [ROLE_KEYS["root"], NEW_KEYS["root"]]
    return following(SIGNED_FIRST, NEW_KEYS, issued_at=issued_at, signers=signers, **changes)


def revoking(role: RoleName, since: datetime) -> bytes:
    revoked = RevokedKey(keyid=ROLE_KEYS[role].public.keyid, compromised_at=since)
    return rotated(LATER, revoked_keys=(revoked,))


def report(evidence: Evidence, pinned: bytes, *others: bytes) -> VerificationReport:
    """What a third party finds that pinned one version and got the others in the bundle."""
    bundle = replace(evidence.bundle, trust_roots=others)
    return verify_bundle(
        bundle, TrustHistory.open(pinned), now=NOW, initial_weights=rebuilt_weights
    )


def failures(found: VerificationReport) -> dict[str, str | None]:
    return {f.check: f.error for f in found.findings if f.outcome == "failed"}


HONEST_ROTATIONS = {
    "after the session": (LATER, Plot()),
    "between the grant and the first record": (
        GRANTED_AT + timedelta(seconds=1),
        Plot(
            cosigner=NEW_KEYS["cosigner"],
            verdicts=(VerdictPlot(2.0, key=NEW_KEYS["verdict"]),),
        ),
    ),
}


@pytest.mark.parametrize(
    ("issued_at", "plot"), HONEST_ROTATIONS.values(), ids=HONEST_ROTATIONS.keys()
)
def test_a_session_keeps_verifying_after_a_rotation(issued_at: datetime, plot: Plot) -> None:
    evidence, second = stage(plot), rotated(issued_at)
    for pinned in (SIGNED_FIRST, second):
        found = report(evidence, pinned, SIGNED_FIRST, second)
        assert failures(found) == {}
        details = {f.check: f.detail for f in found.findings}
        assert "versions 1 to 2 of The Auditor" in details["trust-root"]


def test_a_rotation_in_the_middle_of_a_log_changes_the_cosigner_there() -> None:
    plot = Plot()
    first_new = int(MID_SESSION.timestamp())
    stamped: list[int] = []

    def cosigned_at(_number: int, seconds: int) -> int:
        stamped.append(seconds)
        return seconds

    evidence = stage(replace(plot, cosigned_at=cosigned_at, verdicts=()))
    assert min(stamped) < first_new <= max(stamped)
    checkpoints = tuple(
        recosigned(note) if time >= first_new else note
        for note, time in zip(evidence.bundle.checkpoints, stamped, strict=True)
    )
    moved = replace(evidence, bundle=replace(evidence.bundle, checkpoints=checkpoints))
    found = report(moved, SIGNED_FIRST, SIGNED_FIRST, rotated(MID_SESSION))
    assert "checkpoints-cosigned" not in failures(found)
    # The log's receipts name the notes as they were, so only the last ones may change here.
    unmoved = report(evidence, SIGNED_FIRST, SIGNED_FIRST, rotated(MID_SESSION))
    assert failures(unmoved)["checkpoints-cosigned"] == "CosignatureThresholdError"


def recosigned(note: bytes) -> bytes:
    """The same checkpoint, cosigned at the same time by the cosigner that was rotated in."""
    parsed = notes.parse(note)
    name = FIRST.origin + "/cosigner"
    key = notes.VerifierKey.cosignature(name, ROLE_KEYS["cosigner"].public)
    found = notes.verify(note, [key]).signed_by(key)
    assert found is not None
    assert found.timestamp is not None
    kept = tuple(s for s in parsed.signatures if s.name != name)
    bare = notes.Note(parsed.text, kept)
    return notes.cosign(bare, name, NEW_KEYS["cosigner"], found.timestamp).to_bytes()


ROTATED_OUT = {
    "order": ("order-signed", "ThresholdError"),
    "session": ("grant-signed", "ThresholdError"),
    "cosigner": ("checkpoints-cosigned", "CosignatureThresholdError"),
    "verdict": ("verdicts", "ThresholdError"),
}


@pytest.mark.parametrize("role", ROTATED_OUT)
def test_a_key_that_was_rotated_out_signs_nothing_later(role: RoleName) -> None:
    keys = NEW_KEYS | {role: ROLE_KEYS[role]}
    plot = Plot(
        order_key=keys["order"],
        grant_key=keys["session"],
        cosigner=keys["cosigner"],
        verdicts=(VerdictPlot(2.0, key=keys["verdict"]),),
    )
    second = rotated(GRANTED_AT - timedelta(days=2))  # before the order
    check, error = ROTATED_OUT[role]
    assert failures(report(stage(plot), SIGNED_FIRST, SIGNED_FIRST, second)) == {check: error}
    # Who does not learn of the rotation is not protected by it.
    honest = stage(replace(plot, order_key=ROLE_KEYS["order"]))
    assert "order-signed" not in failures(report(honest, SIGNED_FIRST))


@pytest.mark.parametrize("role", ROTATED_OUT)
def test_a_key_signs_nothing_before_it_was_rotated_in(role: RoleName) -> None:
    keys = ROLE_KEYS | {role: NEW_KEYS[role]}
    plot = Plot(
        order_key=keys["order"],
        grant_key=keys["session"],
        cosigner=keys["cosigner"],
        verdicts=(VerdictPlot(2.0, key=keys["verdict"]),),
    )
    check, error = ROTATED_OUT[role]
    found = failures(report(stage(plot), SIGNED_FIRST, SIGNED_FIRST, rotated(LATER)))
    assert found == {check: error}


REVOKED = {
    "order": ("order-signed", "RevokedKeyError"),
    "session": ("grant-signed", "RevokedKeyError"),
    "cosigner": ("checkpoints-cosigned", "CosignatureThresholdError"),
    "verdict": ("verdicts", "RevokedKeyError"),
}


@pytest.mark.parametrize("role", REVOKED)
def test_what_a_revoked_key_signed_once_it_was_compromised_is_void(role: RoleName) -> None:
    second = revoking(role, since=GRANTED_AT - timedelta(days=2))
    check, error = REVOKED[role]
    found = failures(report(stage(Plot()), SIGNED_FIRST, SIGNED_FIRST, second))
    assert found == {check: error}


@pytest.mark.parametrize("role", ["order", "session", "cosigner"])
def test_what_was_cosigned_before_a_key_was_compromised_keeps(role: RoleName) -> None:
    second = revoking(role, since=LATER)
    assert failures(report(stage(Plot()), SIGNED_FIRST, SIGNED_FIRST, second)) == {}


@pytest.mark.parametrize(
    ("role", "check"), [("order", "order-signed"), ("session", "grant-signed")]
)
def test_a_stolen_key_cannot_date_documents_back(role: RoleName, check: str) -> None:
    # Order and grant are dated before the theft; the log that names them was cosigned after it.
    second = revoking(role, since=GRANTED_AT + timedelta(seconds=5))
    found = failures(report(stage(Plot()), SIGNED_FIRST, SIGNED_FIRST, second))
    assert found == {check: "RevokedKeyError"}


def registered(evidence: Evidence, time: datetime) -> Evidence:
    """The evidence with an excerpt of the registry that has its verdicts since this time."""
    entries = tuple(
        RegisteredEntry(
            index=index,
            entry=RegistryEntry(
                kind="verdict",
                session_id="20260301-abcdef",
                digest=digest(verdict),
                time_ms=int(time.timestamp() * 1000),
            ),
            proof=(),
        )
        for index, verdict in enumerate(evidence.bundle.verdicts)
    )
    excerpt = to_bytes(RegistryExcerpt(entries=entries))
    return replace(evidence, bundle=replace(evidence.bundle, registry=excerpt))


def test_a_verdict_by_a_stolen_key_needs_the_registry() -> None:
    evidence, theft = stage(Plot()), GRANTED_AT + timedelta(hours=3)
    second = revoking("verdict", since=theft)
    void = {"verdicts": "RevokedKeyError"}
    assert failures(report(evidence, SIGNED_FIRST, SIGNED_FIRST, second)) == void
    for time, expected in ((theft, void), (theft - timedelta(hours=1), {})):
        found = failures(report(registered(evidence, time), SIGNED_FIRST, SIGNED_FIRST, second))
        found.pop("registered", None)  # the excerpt stands alone here, without its proofs
        assert found == expected


def test_a_revoked_session_key_stays_revoked_in_later_versions() -> None:
    evidence = stage(Plot())
    revoked = (fixed_key("developer").public.hex,)
    second = rotated(LATER, revoked_session_keys=revoked)
    third = following(
        second,
        NEW_KEYS,
        issued_at=LATER + timedelta(days=1),
        signers=[NEW_KEYS["root"]],
        version=3,
    )
    found = report(evidence, SIGNED_FIRST, SIGNED_FIRST, second, third)
    assert failures(found) == {"session-key": "SessionKeyError"}


SECOND = rotated(LATER)
THIRD = following(
    SECOND,
    NEWER_KEYS,
    issued_at=LATER + timedelta(days=1),
    signers=[NEW_KEYS["root"], NEWER_KEYS["root"]],
    version=3,
)
OTHER_SECOND = rotated(LATER + timedelta(hours=1))


def fourth(signers: Sequence[SigningKey]) -> bytes:
    return following(
        THIRD, ROLE_KEYS, issued_at=LATER + timedelta(days=2), signers=signers, version=4
    )


def with_two_root_keys(signers: Sequence[SigningKey]) -> bytes:
    keys = (NEW_KEYS["root"], NEWER_KEYS["root"])
    roles = {role: Role(keyids=(key.public.keyid,)) for role, key in NEW_KEYS.items()}
    roles["root"] = Role(keyids=tuple(key.public.keyid for key in keys), threshold=2)
    listed = {key.public.keyid: key.public.hex for key in (*NEW_KEYS.values(), *keys)}
    return following(
        SIGNED_FIRST, NEW_KEYS, issued_at=LATER, signers=signers, roles=roles, keys=listed
    )


MISLED = {
    "an old root after a newer one": (THIRD, [SIGNED_FIRST, SECOND], TrustRootRollbackError),
    "nothing but the old root": (THIRD, [SIGNED_FIRST], TrustRootRollbackError),
    "another version 2 beside the known one": (SECOND, [OTHER_SECOND], TrustRootForkError),
    "another version 2 under the known version 3": (
        THIRD,
        [OTHER_SECOND, THIRD],
        TrustRootForkError,
    ),
    "two versions 2 at once": (SIGNED_FIRST, [SECOND, OTHER_SECOND], TrustRootForkError),
    "a next version signed only by the new root key": (
        SIGNED_FIRST,
        [following(SIGNED_FIRST, NEW_KEYS, issued_at=LATER, signers=[NEW_KEYS["root"]])],
        TrustRootSignatureError,
    ),
    "a next version signed only by the old root key": (
        SIGNED_FIRST,
        [following(SIGNED_FIRST, NEW_KEYS, issued_at=LATER, signers=[ROLE_KEYS["root"]])],
        TrustRootSignatureError,
    ),
    "a next version signed by keys of other roles": (
        SIGNED_FIRST,
        [
            following(
                SIGNED_FIRST,
                NEW_KEYS,
                issued_at=LATER,
                signers=[NEW_KEYS["root"], *(ROLE_KEYS[role] for role in SERVER_ROLES)],
            )
        ],
        TrustRootSignatureError,
    ),
    "one of two root keys has signed twice": (
        SIGNED_FIRST,
        [with_two_root_keys([ROLE_KEYS["root"], NEW_KEYS["root"], NEW_KEYS["root"]])],
        TrustRootSignatureError,
    ),
    "an expired next version": (
        SIGNED_FIRST,
        [rotated(LATER, expires_at=NOW - timedelta(days=1))],
        TrustRootExpiredError,
    ),
    "the first root keys sign again after two rotations": (
        THIRD,
        [fourth([ROLE_KEYS["root"]])],
        TrustRootSignatureError,
    ),
    "the second root keys sign again after one rotation": (
        THIRD,
        [fourth([ROLE_KEYS["root"], NEW_KEYS["root"]])],
        TrustRootSignatureError,
    ),
    "a version is kept back": (SIGNED_FIRST, [THIRD], TrustRootGapError),
    "versions in the wrong order": (SIGNED_FIRST, [THIRD, SECOND], TrustRootOrderError),
    "a version dated before the one that it follows": (
        SIGNED_FIRST,
        [rotated(FIRST.issued_at - timedelta(days=1))],
        TrustRootOrderError,
    ),
    "another auditor's next version": (
        SIGNED_FIRST,
        [rotated(LATER, origin="elsewhere.example.org")],
        TrustRootVersionError,
    ),
    "a next version that names another predecessor": (
        SIGNED_FIRST,
        [rotated(LATER, previous="ab" * 32)],
        TrustRootForkError,
    ),
    "a next version that names no predecessor": (
        SIGNED_FIRST,
        [rotated(LATER, previous=None)],
        TrustRootForkError,
    ),
    "a next version of a stranger": (
        SIGNED_FIRST,
        [
            following(
                SIGNED_FIRST,
                dict.fromkeys(ROLE_KEYS, STRANGER_KEY),
                issued_at=LATER,
                signers=[STRANGER_KEY],
            )
        ],
        TrustRootSignatureError,
    ),
}


@pytest.mark.parametrize(("pinned", "offered", "error"), MISLED.values(), ids=MISLED.keys())
def test_a_client_is_not_led_astray(
    pinned: bytes, offered: list[bytes], error: type[TrustRootError]
) -> None:
    with pytest.raises(error):
        TrustHistory.open(pinned).updated(offered, NOW)


def test_a_client_follows_the_honest_versions() -> None:
    for pinned in (SIGNED_FIRST, SECOND, THIRD):
        history = TrustHistory.open(pinned).updated([SIGNED_FIRST, SECOND, THIRD], NOW)
        assert [version.root.version for version in history.versions] == [1, 2, 3]


@pytest.mark.parametrize(
    "name", [name for name, (_, _, error) in MISLED.items() if error is not TrustRootExpiredError]
)
def test_a_bundle_that_misleads_about_the_trust_root_fails(name: str) -> None:
    pinned, offered, error = MISLED[name]
    if error is TrustRootRollbackError:
        return  # a bundle may well be older than what its reader has pinned
    found = report(stage(Plot()), pinned, *offered)
    assert failures(found)["trust-root"] == error.__name__
    assert found.level == 0


@pytest.mark.parametrize(("days", "code"), [(1, 1), (10_000, 0)], ids=["expired", "in force"])
def test_a_verdict_is_not_believed_on_a_trust_root_that_has_expired(
    tmp_path: Path, days: int, code: int
) -> None:
    """Whoever has stolen a key that was rotated out may date a verdict back to its time."""
    evidence = stage(Plot(trust_root={"expires_at": GRANTED_AT + timedelta(days=days)}))
    (tmp_path / "verdict.json").write_bytes(evidence.bundle.verdicts[0])
    root = sign_trust_root(evidence.trust_root, [ROLE_KEYS["root"]])
    (tmp_path / "root.json").write_bytes(root.to_bytes())
    command = ["verify-verdict", str(tmp_path / "verdict.json")]
    done = CliRunner().invoke(app, [*command, "--trust-root", str(tmp_path / "root.json")])
    assert done.exit_code == code, done.output
    assert isinstance(done.exception, TrustRootExpiredError) == (code == 1)
