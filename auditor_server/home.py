"""The auditor's home folder: keys, trust root, database and blobs.

    keys/<role>.pem                     0600; a root key may have a passphrase, or lie elsewhere
    keys/<role>.<keyid>.pem             0600, keys that came with a later version
    trust-root.json                     DSSE, the newest version, signed by the root keys
    trust-root.versions/                the versions before it
    auditor.sqlite3                     0600, unless another database is set
    trail.key                           0600, secret of the audit trail, made when it is needed
    blobs/                              submitted models, by SHA-256, unless they lie elsewhere
    blob-copies/                        of those that do, the ones that were needed last

The server needs the keys of session, cosigner, verdict, registry and replay. The root keys and the
order key are used by the command line only and may be kept elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import get_args

from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError

from auditkit.evidence import trust
from auditkit.evidence.errors import TrustRoleMissingError
from auditkit.evidence.keys import PublicKey, Signer, SigningKey
from auditkit.evidence.trust_history import TrustHistory
from auditor_server import tokens
from auditor_server.access.principals import AUTHORITY
from auditor_server.errors import (
    BlobStoreUrlError,
    DatabaseInUseError,
    DatabaseNotFoundError,
    HomeError,
    HomeExistsError,
    HomeNotFoundError,
    LateVersionError,
    TrustRootNotFoundError,
)
from auditor_server.keys import open_key_file, shared_secret, write_private
from auditor_server.settings import DATABASE_URL_VARIABLE
from auditor_server.store.blobs import BlobFolder, BlobStore
from auditor_server.store.engine import make_engine
from auditor_server.store.models import OrganisationRow
from auditor_server.store.store import Store
from auditor_server.tokens import TokenRole
from auditor_server.trust_files import TrustFile
from schemas import Role, RoleName, TrustRoot

__all__ = ["PRIVATE_FOLDER_MODE", "Home", "create_home", "open_home", "write_private"]

KEY_ROLES: tuple[RoleName, ...] = get_args(RoleName)
# Roles whose keys the command line uses, and that sign nothing while the server runs.
OFFLINE_ROLES: frozenset[RoleName] = frozenset({"root", "order"})
# Long enough for the archive of a finished audit; the auditor publishes a successor before.
TRUST_ROOT_LIFETIME = timedelta(days=5 * 365)
# A set-up is used for years, but no token that nobody remembers may be good for ever.
FIRST_TOKENS_LIFETIME = TRUST_ROOT_LIFETIME
TRUST_ROOT_FILE = "trust-root.json"
DATABASE_FILE = "auditor.sqlite3"
TRAIL_KEY_FILE = "trail.key"
TRAIL_KEY_BYTES = 32
KEYS_FOLDER = "keys"
BLOBS_FOLDER = "blobs"
COPIES_FOLDER = "blob-copies"
PRIVATE_FOLDER_MODE = 0o700
KEYID_DIGITS_IN_NAME = 16
FIRST_DEVELOPER = "developer"
"""Organisation of a new home's developer; it has the name of no order, and sees those of all."""


@dataclass(frozen=True)
class RootKeys:
    """The keys that sign the trust root, wherever they are kept.

    Attributes:
        signers: those that sign the first version.
        public: all of them, also those whose private half somebody else holds.
        threshold: how many different ones must sign each version.
    """

    signers: Sequence[Signer]
    public: Sequence[PublicKey]
    threshold: int = 1


@dataclass(frozen=True)
class Home:
    """An auditor's home. `tokens` holds tokens in clear right after creation, and only then."""

    path: Path
    tokens: Mapping[TokenRole, str] = field(default_factory=dict, repr=False)

    @property
    def database_url(self) -> str:
        """The SQLite database inside the home."""
        return f"sqlite:///{self.path / DATABASE_FILE}"

    def open_blobs(self, url: str | None = None) -> BlobStore:
        """Open the place of submitted files; None means the folder inside the home.

        Raises:
            BlobStoreUrlError: the URL names nothing that can be used, or what it needs is not
                installed.

        """
        if url is None:
            return BlobFolder(self.path / BLOBS_FOLDER)
        if not url.startswith("s3://"):
            raise BlobStoreUrlError(f"expected s3://BUCKET/PREFIX, found {url!r}")
        try:
            from auditor_server.store.buckets import BlobBucket
        except ImportError as error:
            raise BlobStoreUrlError(
                "blobs in a bucket need one more package: pip install 'auditkit[s3]'"
            ) from error
        return BlobBucket(url, self.path / COPIES_FOLDER)

    @property
    def trust_file(self) -> TrustFile:
        """The trust root and its earlier versions, as files."""
        return TrustFile(self.path / TRUST_ROOT_FILE)

    @property
    def trust_root_bytes(self) -> bytes:
        """The newest version of the trust root, signed, as it is handed to third parties."""
        return self.trust_file.path.read_bytes()

    def history(self) -> TrustHistory:
        """Read and verify all versions of the trust root, so that a change holds at once.

        Raises:
            TrustRootError: one of them is damaged, not signed by its root role or the one before,
                or does not follow.

        """
        return self.trust_file.read()

    def trust_root(self, now: datetime) -> TrustRoot:
        """Return the version of the trust root that is in force.

        Raises:
            TrustRootError: as `history`; also if no version is in force at `now`.

        """
        return self.history().at(now)

    def trail_key(self) -> bytes:
        """Return the secret under which the audit trail keeps digests of pictures."""
        return shared_secret(self.path / TRAIL_KEY_FILE, TRAIL_KEY_BYTES)

    def trust_root_version(self, version: int) -> bytes:
        """Return one version of the trust root as it was signed.

        Raises:
            TrustRootNotFoundError: there is none of this number.
            TrustRootError: as `history`.

        """
        for found in self.history().versions:
            if found.root.version == version and found.envelope is not None:
                return found.envelope.to_bytes()
        raise TrustRootNotFoundError(
            f"the trust root has no version {version}; `GET /v1/trust-root` gives the newest"
        )

    def trust_roots(self) -> tuple[bytes, ...]:
        """Return all versions of the trust root as they were signed, oldest first."""
        return tuple(
            version.envelope.to_bytes()
            for version in self.history().versions
            if version.envelope is not None
        )

    def install(self, documents: Sequence[bytes], now: datetime) -> TrustHistory:
        """Put newer versions of the trust root in force.

        Raises:
            LateVersionError: a version takes keys from the server as of a time that has passed:
                what the server signed with them since would be void.
            TrustRootError: as `TrustFile.update`.

        """
        known = self.history()
        before, updated = known.current, known.updated(documents, now)
        for role in set(KEY_ROLES) - OFFLINE_ROLES:
            if role not in before.roles:
                continue
            kept = updated.current.roles[role].keyids if role in updated.current.roles else ()
            if updated.at(now) != before and set(before.roles[role].keyids) - set(kept):
                raise LateVersionError(
                    f"version {updated.current.version} of the trust root takes a {role} key away "
                    f"as of {updated.current.issued_at.isoformat()}, which has passed; what the "
                    "server signed since would be void. Make the version again, with a later "
                    "--starts"
                )
        return self.trust_file.update(documents, now)

    def signing_key(
        self, role: RoleName, time: datetime | None = None, passphrase: bytes | None = None
    ) -> SigningKey:
        """Read the private key of a role that the trust root names.

        Args:
            role: in which the key acts.
            time: at which it must be in force; None: the newest version counts.
            passphrase: of the key's file, if it has one.

        Raises:
            HomeError: the trust root names no key for the role, the key is not kept here, or its
                file is damaged.
            TrustRootError: as `trust_root`.

        """
        history = self.history()
        root = history.current if time is None else history.at(time)
        try:
            named = trust.role_keys(root, role)
        except TrustRoleMissingError as error:
            raise HomeError(str(error)) from error
        first = self.path / KEYS_FOLDER / f"{role}.pem"
        for path in (first, *sorted(first.parent.glob(f"{role}.*.pem"))):
            if path.exists():
                key = self._read_key(role, path, passphrase)
                if key.public.keyid in named:
                    return key
        raise HomeError(
            f"the {role} key that version {root.version} of the trust root names is not in "
            f"{first.parent}; put it there to sign"
        )

    def _read_key(self, role: RoleName, path: Path, passphrase: bytes | None) -> SigningKey:
        def given(_: str) -> bytes:
            if passphrase is None:
                raise HomeError(f"the {role} key at {path} has a passphrase; give it to sign")
            return passphrase

        return open_key_file(path, given)

    def add_key(self, role: RoleName, key: SigningKey) -> Path:
        """Keep a further key of a role, and return where; nothing is overwritten."""
        name = f"{role}.{key.public.keyid[:KEYID_DIGITS_IN_NAME]}.pem"
        path = self.path / KEYS_FOLDER / name
        write_private(path, key.to_pem())
        return path

    @property
    def keys_folder(self) -> Path:
        """The folder of private keys."""
        return self.path / KEYS_FOLDER

    def open_store(self, database_url: SecretStr | None = None) -> Store:
        """Open the database; None means the one inside the home.

        Raises:
            DatabaseUrlError: the URL names no database that the server can use.
            DatabaseNotFoundError: there is none inside the home.

        """
        if database_url is not None:
            return Store(make_engine(database_url.get_secret_value()))
        if not (self.path / DATABASE_FILE).exists():
            raise DatabaseNotFoundError(
                f"{self.path} has no {DATABASE_FILE}; if its database is elsewhere, name it in "
                f"{DATABASE_URL_VARIABLE}, or restore the file from a backup"
            )
        return Store(make_engine(self.database_url))

    def prepare_store(self, database_url: SecretStr | None = None) -> Store:
        """Open the database, and bring its tables to those of this version.

        Raises:
            HomeError: see `open_store` and `Store.prepare`, or the database can't be used.

        """
        store = self.open_store(database_url)
        try:
            store.prepare()
        except DBAPIError as error:
            store.close()
            raise HomeError(
                f"the database of {self.path} can't be used: {str(error.orig).strip()}; start it, "
                "or restore it from a backup"
            ) from error
        return store


def create_home(
    path: Path,
    auditor: str,
    origin: str,
    now: datetime,
    *,
    root_keys: RootKeys | None = None,
    root_passphrase: bytes | None = None,
    lifetime: timedelta = TRUST_ROOT_LIFETIME,
    tokens_lifetime: timedelta = FIRST_TOKENS_LIFETIME,
    database_url: SecretStr | None = None,
) -> Home:
    """Make a new home: keys for all roles, the trust root, an empty database, tokens.

    Args:
        path: folder to make; it may exist if it is empty.
        auditor: name of the authority, as it appears in reports.
        origin: name of the server, the first part of every log's origin.
        now: time of issue; the trust root holds from the beginning of this second.
        root_keys: keys that sign the trust root and are kept elsewhere; None: one is made and kept
            in the home.
        root_passphrase: protects the root key that is made here; None: it lies open.
        lifetime: until the trust root expires.
        tokens_lifetime: until the first tokens end.
        database_url: of an empty database; None: SQLite in the home.

    Returns:
        The home, with its tokens in clear. They are stored hashed and can't be shown again.

    Raises:
        HomeExistsError: something lies at `path` already.
        DatabaseInUseError: another auditor's documents are in the database.
        HomeError: the database can't be used, see `Home.prepare_store`.
        ThresholdError: `root_keys` has nobody who signs.
        pydantic.ValidationError: `auditor` or `origin` break the schema of the trust root, or the
            threshold can't be met.

    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise HomeExistsError(
            f"{path} is not empty; choose another folder, the keys in a home are never overwritten"
        )
    store = None if database_url is None else _empty_store(path, database_url)
    keys = {role: SigningKey.generate() for role in KEY_ROLES if role != "root" or not root_keys}
    if root_keys is None:
        root_keys = RootKeys([keys["root"]], [keys["root"].public])
    public = [*root_keys.public, *(key.public for role, key in keys.items() if role != "root")]
    root = TrustRoot(
        auditor=auditor,
        origin=origin,
        version=1,
        issued_at=now.replace(microsecond=0),
        expires_at=now + lifetime,
        keys={key.keyid: key.hex for key in public},
        roles={role: Role(keyids=(key.public.keyid,)) for role, key in keys.items()}
        | {
            "root": Role(
                keyids=tuple(key.keyid for key in root_keys.public), threshold=root_keys.threshold
            )
        },
    )
    signed = trust.sign_trust_root(root, root_keys.signers).to_bytes()
    trust.open_trust_root(signed, now)
    for folder in (path, path / KEYS_FOLDER, path / BLOBS_FOLDER):
        folder.mkdir(mode=PRIVATE_FOLDER_MODE, parents=True, exist_ok=True)
    for role, key in keys.items():
        pem = key.to_pem(root_passphrase if role == "root" else None)
        write_private(path / KEYS_FOLDER / f"{role}.pem", pem)
    (path / TRUST_ROOT_FILE).write_bytes(signed)
    home = Home(path)
    if store is None:
        # SQLite gives its side files the mode of the database, which holds the secrets of codes.
        write_private(path / DATABASE_FILE, b"")
        store = home.prepare_store()
    store.access.add_organisation(
        OrganisationRow(id=FIRST_DEVELOPER, name=FIRST_DEVELOPER, created_at=now)
    )
    issued = {
        role: tokens.issue(
            store,
            role,
            FIRST_DEVELOPER if role == "developer" else AUTHORITY,
            now,
            lifetime=tokens_lifetime,
        )
        for role in tokens.ROLES
    }
    store.close()
    return Home(path, issued)


def _empty_store(path: Path, database_url: SecretStr) -> Store:
    store = Home(path).prepare_store(database_url)
    if store.registry.size():
        store.close()
        raise DatabaseInUseError(
            "another auditor's documents are in this database; every auditor needs one of their own"
        )
    return store


def open_home(path: Path) -> Home:
    """Return the home at `path`.

    Raises:
        HomeNotFoundError: no complete home lies there.

    """
    missing = [
        name for name in (TRUST_ROOT_FILE, KEYS_FOLDER, BLOBS_FOLDER) if not (path / name).exists()
    ]
    if missing:
        raise HomeNotFoundError(
            f"{path} is no auditor's home ({', '.join(missing)} not found); make one with "
            "`auditkit init`"
        )
    # Processes that run models have a working folder of their own.
    return Home(path.resolve())
