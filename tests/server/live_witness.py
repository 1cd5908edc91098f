"""A witness in a process of its own, and a log that asks it by hand."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import requests

from auditkit.evidence import merkle, notes
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.witnessing import AddCheckpoint
from auditor_server.witness.home import FollowedLog, WitnessHome, create_home, open_home

BELOW = "log.example.org"


@dataclass
class LiveWitness:
    """`python -m auditor_server.witness` in a process of its own."""

    path: Path
    module: tuple[str, ...] = ("-m", "auditor_server.witness")
    port: int = 0
    process: subprocess.Popen[str] = field(init=False)

    @property
    def home(self) -> WitnessHome:
        return open_home(self.path)

    @property
    def key(self) -> notes.VerifierKey:
        return self.home.verifier_key

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *self.module, "--home", str(self.path), "--port", str(self.port)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = json.loads(self.process.stdout.readline())["port"]

    def stop(self) -> None:
        if hasattr(self, "process") and self.process.poll() is None:
            self.process.terminate()
            self._wait()

    def kill(self) -> None:
        """Stop it as a power cut would: SIGKILL, nothing is tidied up."""
        self.process.kill()
        self._wait()

    def _wait(self) -> None:
        self.process.wait(timeout=30)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def post(self, body: bytes) -> requests.Response:
        return requests.post(f"{self.url}/add-checkpoint", data=body, timeout=60)

    def latest(self, origin: str) -> requests.Response:
        digest = sha256(origin.encode()).hexdigest()
        return requests.get(f"{self.url}/{digest}/checkpoint", timeout=60)

    def latest_size(self, origin: str) -> int:
        answer = self.latest(origin)
        if answer.status_code == requests.codes.not_found:
            return 0
        return notes.parse_checkpoint(notes.parse(answer.content).text).size


@dataclass
class HandBuiltLog:
    """A log of a few leaves, which can have another history as well."""

    origin: str = f"{BELOW}/one"
    key: SigningKey = field(default_factory=SigningKey.generate)
    leaves: tuple[bytes, ...] = tuple(f"leaf {index}".encode() for index in range(64))

    @property
    def verifier(self) -> notes.VerifierKey:
        return notes.VerifierKey.ed25519(BELOW, self.key.public)

    def followed(self) -> FollowedLog:
        return FollowedLog(origin=self.origin, keys=(self.verifier.encode(),))

    def forked(self, at: int, name: str = "forged") -> "HandBuiltLog":
        """The same log with other leaves from `at` on."""
        other = tuple(f"{name} {index}".encode() for index in range(at, len(self.leaves)))
        return replace(self, leaves=(*self.leaves[:at], *other))

    def root(self, size: int) -> bytes:
        return merkle.root(self.leaves[:size])

    def note(self, size: int) -> notes.Note:
        head = notes.Checkpoint(self.origin, size, self.root(size))
        return notes.sign(head.to_text(), BELOW, self.key)

    def request(self, old: int, new: int) -> AddCheckpoint:
        proof = merkle.consistency_proof(self.leaves, min(old, new), new)
        return AddCheckpoint.of(old, proof, self.note(new))


def make_witness(path: Path, name: str, logs: Sequence[FollowedLog]) -> LiveWitness:
    create_home(path, name, logs)
    return LiveWitness(path)
