"""The auditor's home folder: keys, trust root, database and blobs.

    keys/{root,order,session,cosigner,verdict}.pem    0600
    trust-root.json                                   DSSE, signed by the root key
    auditor.sqlite3                                   0600, unless another database is set
    blobs/                                            submitted models, by SHA-256

The server needs the session, cosigner and verdict keys. The root and the order key are used by the
command line only and may be kept elsewhere.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from auditkit.evidence import trust
from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.keys import SigningKey
from auditor_server import tokens
from auditor_server.errors import HomeError, HomeExistsError, HomeNotFoundError
from auditor_server.store.blobs import BlobStore
from auditor_server.store.store import Store, make_engine
from auditor_server.tokens import TokenRole
from schemas import Role, RoleName, TrustRoot

KEY_ROLES: tuple[RoleName, ...] = ("root", "order", "session", "cosigner", "verdict")
# Long enough for the archive of a finished audit; the auditor publishes a successor before.
TRUST_ROOT_LIFETIME = timedelta(days=5 * 365)
TRUST_ROOT_FILE = "trust-root.json"
DATABASE_FILE = "auditor.sqlite3"
KEYS_FOLDER = "keys"
BLOBS_FOLDER = "blobs"
PRIVATE_FOLDER_MODE = 0o700
PRIVATE_FILE_MODE = 0o600


@dataclass(frozen=True)
class Home:
    """An auditor's home. `tokens` holds tokens in clear right after creation, and only then."""

    path: Path
    tokens: Mapping[TokenRole, str] = field(default_factory=dict, repr=False)

    @property
    def database_url(self) -> str:
        """The SQLite database inside the home."""
        return f"sqlite:///{self.path / DATABASE_FILE}"

    @property
    def blobs(self) -> BlobStore:
        """The folder of submitted files."""
        return BlobStore(self.path / BLOBS_FOLDER)

    @property
    def trust_root_bytes(self) -> bytes:
        """The signed trust root, as it is handed to third parties."""
        return (self.path / TRUST_ROOT_FILE).read_bytes()

    def trust_root(self, now: datetime) -> TrustRoot:
        """Read and verify the trust root, afresh, so that a revocation holds at once.

        Raises:
            TrustRootError: it is damaged, not signed by its root role, or expired at `now`.

        """
        return trust.open_trust_root(self.trust_root_bytes, now)

    def signing_key(self, role: RoleName) -> SigningKey:
        """Read the private key of a role.

        Raises:
            HomeError: the key is not kept here, or its file is damaged.

        """
        path = self.path / KEYS_FOLDER / f"{role}.pem"
        try:
            return SigningKey.from_pem(path.read_bytes())
        except FileNotFoundError as error:
            raise HomeError(f"the {role} key is not at {path}; put it there to sign") from error
        except EvidenceError as error:
            raise HomeError(f"the {role} key at {path} can't be read: {error}") from error

    def open_store(self, database_url: str | None = None) -> Store:
        """Open the database; None means the one inside the home."""
        return Store(make_engine(database_url or self.database_url))


def create_home(path: Path, auditor: str, origin: str, now: datetime) -> Home:
    """Make a new home: five keys, the trust root, an empty database, and one token per role.

    Args:
        path: folder to make; it may exist if it is empty.
        auditor: name of the authority, as it appears in reports.
        origin: name of the server, the first part of every log's origin.
        now: time of issue.

    Returns:
        The home, with its tokens in clear. They are stored hashed and can't be shown again.

    Raises:
        HomeExistsError: something lies at `path` already.
        pydantic.ValidationError: `auditor` or `origin` break the schema of the trust root.

    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise HomeExistsError(
            f"{path} is not empty; choose another folder, the keys in a home are never overwritten"
        )
    keys = {role: SigningKey.generate() for role in KEY_ROLES}
    root = TrustRoot(
        auditor=auditor,
        origin=origin,
        version=1,
        issued_at=now,
        expires_at=now + TRUST_ROOT_LIFETIME,
        keys={key.public.keyid: key.public.hex for key in keys.values()},
        roles={role: Role(keyids=(key.public.keyid,)) for role, key in keys.items()},
    )
    envelope = trust.sign_trust_root(root, [keys["root"]])
    for folder in (path, path / KEYS_FOLDER, path / BLOBS_FOLDER):
        folder.mkdir(mode=PRIVATE_FOLDER_MODE, parents=True, exist_ok=True)
    for role, key in keys.items():
        write_private(path / KEYS_FOLDER / f"{role}.pem", key.to_pem())
    (path / TRUST_ROOT_FILE).write_bytes(envelope.to_bytes())
    home = Home(path)
    # SQLite gives its side files the mode of the database, which holds the secrets of codes.
    write_private(path / DATABASE_FILE, b"")
    store = home.open_store()
    store.create_tables()
    issued = {role: tokens.issue(store, role, now) for role in tokens.ROLES}
    store.close()
    return Home(path, issued)


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
    return Home(path)


def write_private(path: Path, data: bytes) -> None:
    """Write a new file that only its owner can read, from its first byte on.

    Raises:
        FileExistsError: the file is there already.

    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
