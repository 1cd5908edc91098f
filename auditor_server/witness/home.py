"""A witness's folder: its key, the logs that it follows, and what it has cosigned of them.

key.pem         0600
witness.json    name and followed logs
state.sqlite3   the latest checkpoint of every log; never restore it from a backup
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from auditkit.evidence import notes, trust
from auditkit.evidence.document_checks import COSIGNER_SUFFIX
from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.keys import SigningKey
from auditor_server.documents import explain
from auditor_server.errors import ServerError
from auditor_server.home import PRIVATE_FOLDER_MODE, write_private
from auditor_server.witness.state import WitnessState
from schemas import TrustRoot

KEY_FILE = "key.pem"
CONFIG_FILE = "witness.json"
STATE_FILE = "state.sqlite3"


class WitnessHomeError(ServerError):
    """The witness's folder can't be made or used."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR


class FollowedLog(BaseModel):
    """A log, or all logs below a name, and the keys that speak for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    origin: str = Field(min_length=1, max_length=1000)
    below: bool = Field(
        default=False, description="every log whose origin begins with `<origin>/`, not this one"
    )
    keys: tuple[str, ...] = Field(min_length=1, description="C2SP verifier keys")

    def has(self, origin: str) -> bool:
        """Return whether a log is followed under this entry."""
        return origin.startswith(f"{self.origin}/") if self.below else origin == self.origin

    @classmethod
    def of_auditor(cls, root: TrustRoot) -> "FollowedLog":
        """Return all logs of an auditor: those of the sessions, and the registry.

        The auditor's cosignature speaks for them. It is on every checkpoint, whoever trains.
        """
        name = f"{root.origin}{COSIGNER_SUFFIX}"
        keys = trust.role_keys(root, "cosigner").values()
        encoded = tuple(notes.VerifierKey.cosignature(name, key).encode() for key in keys)
        return cls(origin=root.origin, below=True, keys=encoded)


class WitnessConfig(BaseModel):
    """Who the witness is, and which logs it follows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="key name: a URL without its scheme, as witness.example/w1")
    logs: tuple[FollowedLog, ...] = ()


@dataclass(frozen=True)
class WitnessHome:
    """An opened folder: everything that a witness needs."""

    path: Path
    config: WitnessConfig
    key: SigningKey
    state: WitnessState

    @property
    def verifier_key(self) -> notes.VerifierKey:
        """What this witness's cosignatures are verified with."""
        return notes.VerifierKey.cosignature(self.config.name, self.key.public)

    def trusted_keys(self, origin: str) -> tuple[notes.VerifierKey, ...]:
        """Return the keys that speak for a log; none when it is not followed."""
        return tuple(
            notes.VerifierKey.parse(key)
            for log in self.config.logs
            if log.has(origin)
            for key in log.keys
        )

    def follow(self, log: FollowedLog) -> "WitnessHome":
        """Follow a log from now on; an entry for the same one is replaced.

        Raises:
            VerifierKeyError, KeyFormatError, WeakKeyError: a key that must not be trusted.
            WitnessHomeError: one of the keys is the witness's own.

        """
        for text in log.keys:
            if notes.VerifierKey.parse(text).public_key == self.key.public:
                raise WitnessHomeError(
                    f"the key {text} of the log is this witness's own; nobody is a witness of what "
                    "they say themselves"
                )
        others = [
            known
            for known in self.config.logs
            if (known.origin, known.below) != (log.origin, log.below)
        ]
        config = WitnessConfig(name=self.config.name, logs=(*others, log))
        _replace(self.path / CONFIG_FILE, _to_bytes(config))
        return WitnessHome(self.path, config, self.key, self.state)


def create_home(path: Path, name: str, logs: Sequence[FollowedLog] = ()) -> WitnessHome:
    """Make a witness's folder with a new key.

    Raises:
        WitnessHomeError: something lies at `path` already.
        VerifierKeyError: a key can't have this name.

    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise WitnessHomeError(f"{path} is not empty; a witness's key is never overwritten")
    key = SigningKey.generate()
    notes.VerifierKey.cosignature(name, key.public)
    path.mkdir(mode=PRIVATE_FOLDER_MODE, parents=True, exist_ok=True)
    write_private(path / KEY_FILE, key.to_pem())
    _replace(path / CONFIG_FILE, _to_bytes(WitnessConfig(name=name)))
    WitnessState.create(path / STATE_FILE)
    home = open_home(path)
    for log in logs:
        home = home.follow(log)
    return home


def open_home(path: Path) -> WitnessHome:
    """Open a witness's folder.

    Raises:
        WitnessHomeError: it is no such folder, or a file in it is damaged or gone.

    """
    try:
        config = WitnessConfig.model_validate_json((path / CONFIG_FILE).read_bytes())
        key = SigningKey.from_pem((path / KEY_FILE).read_bytes())
    except FileNotFoundError as error:
        raise WitnessHomeError(
            f"{path} is no witness's folder ({error.filename} not found); make one with "
            "`auditkit witness init`"
        ) from error
    except ValidationError as error:
        raise WitnessHomeError(f"{path / CONFIG_FILE}: {explain(error)}") from error
    except EvidenceError as error:
        raise WitnessHomeError(f"the key in {path} can't be read: {error}") from error
    return WitnessHome(path, config, key, WitnessState.open(path / STATE_FILE))


def _to_bytes(config: WitnessConfig) -> bytes:
    return json.dumps(config.model_dump(mode="json"), indent=2).encode() + b"\n"


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that it is there in its old or its new form, whatever happens."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
