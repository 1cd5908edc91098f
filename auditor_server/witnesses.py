"""Getting every log witnessed, in the background: no agent ever waits for a witness.

One thread per witness. It is told which logs have grown, and asks for a cosignature of the newest
checkpoint only. Nothing is lost with the list of what is due: what a witness lacks is found again
in the database. Cosignatures lie in a table of their own and are added when a bundle is made.
"""

import logging
import random
import threading
import time
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from auditkit.evidence import dsse, notes, statements, witnessing
from auditkit.evidence.bundle import Bundle, Streamed
from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.witnessing import AddCheckpoint, Cosignature, StaleOldSizeError
from auditor_server.context import Auditor
from auditor_server.documents import explain
from auditor_server.errors import HomeError, WitnessNotConfiguredError
from auditor_server.process_locks import alone
from auditor_server.store import SessionRow, WitnessingRow
from auditor_server.store.witnessings import SESSION_PREFIX
from auditor_server.witness_client import (
    WitnessClient,
    WitnessRefusedError,
    WitnessUnavailableError,
)
from auditor_server.witnessed_logs import REGISTRY_LOG, find_log, name_of
from schemas import AuditOrder, WitnessPolicy
from schemas.order import MOST_WITNESSES

WITNESSES_FILE = "witnesses.toml"
# Logs that one witness may have waiting; what does not fit is found again by the next sweep.
MOST_PENDING = 10_000
# How often the database is asked what a witness lacks, so that a forgotten log is never lost.
SWEEP_SECONDS = 10.0
FIRST_RETRY_SECONDS = 1.0
LAST_RETRY_SECONDS = 60.0
MOST_DOUBLINGS = 10  # far beyond the last retry's time
# A witness that refuses a log will refuse it in a second, too.
REFUSED_SECONDS = 600.0
# How long a submission or an export waits for the cosignatures that its order demands.
GATHER_SECONDS = 5.0
GATHER_STEP_SECONDS = 0.05
# How long a stopping server waits for requests under way; they change nothing afterwards.
STOP_SECONDS = 1.0
# Cosignatures from further ahead are refused, as a verifier would.
MOST_CLOCK_SKEW_SECONDS = 120.0

_LOG = logging.getLogger(__name__)


class WitnessesFileError(HomeError):
    """The list of witnesses in the auditor's home can't be used."""


class WitnessEndpoint(BaseModel):
    """A witness that this server asks: its submission prefix and its verifier key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(pattern=r"^https?://", max_length=2000)
    key: str = Field(max_length=2000, description="C2SP verifier key of type 0x04")


class _Endpoints(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    witness: tuple[WitnessEndpoint, ...] = Field(default=(), max_length=MOST_WITNESSES)


def read_endpoints(home: Path) -> tuple[WitnessEndpoint, ...]:
    """Return the witnesses listed in a home's `witnesses.toml`; none without that file.

    Raises:
        WitnessesFileError: it is no TOML, or breaks the schema, or a key can't be trusted.

    """
    path = home / WITNESSES_FILE
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        endpoints = _Endpoints.model_validate(document).witness
        for endpoint in endpoints:
            notes.VerifierKey.parse(endpoint.key)
    except FileNotFoundError:
        return ()
    except ValidationError as error:
        raise WitnessesFileError(f"{path}: {explain(error)}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, EvidenceError) as error:
        raise WitnessesFileError(f"{path}: {error}") from error
    return endpoints


def check_policy(auditor: Auditor, policy: WitnessPolicy) -> None:
    """Check that an order's witnesses are sound, and that this server asks enough of them.

    Raises:
        WitnessPolicyError, VerifierKeyError, KeyFormatError, WeakKeyError: an unsound policy.
        WitnessNotConfiguredError: too few of them are in `witnesses.toml`.

    """
    witnessing.open_policy(policy, set(auditor.trust_root().keys.values()))
    asked = {endpoint.key for endpoint in read_endpoints(auditor.home.path)}
    count = len(asked & set(policy.keys))
    if count < policy.threshold:
        raise WitnessNotConfiguredError(
            f"the order demands {policy.threshold} witnesses, this server asks {count} of those "
            f"that it names; list them in {WITNESSES_FILE} in the auditor's home"
        )


def with_cosignatures(auditor: Auditor, bundle: Bundle, session_id: str, size: int) -> Bundle:
    """Return a bundle whose last checkpoint and registry checkpoint carry what witnesses signed.

    Args:
        auditor: the server.
        bundle: of the session, without any of it.
        session_id: the session.
        size: number of records in the bundle.
    """
    stored = auditor.store.witnessings.checkpoint(session_id, 1, size) if size else None
    checkpoints, head = bundle.checkpoints, bundle.registry_checkpoint
    if stored is not None:
        last = stored.encode()
        witnessed = with_lines(auditor, last)
        checkpoints = Streamed(
            lambda: (witnessed if note == last else note for note in bundle.checkpoints)
        )
    return replace(
        bundle,
        checkpoints=checkpoints,
        registry_checkpoint=None if head is None else with_lines(auditor, head),
    )


def with_lines(auditor: Auditor, note: bytes) -> bytes:
    """Return a cosigned checkpoint with what witnesses signed for its tree, if any did."""
    checkpoint = notes.parse_checkpoint(notes.parse(note).text)
    log = name_of(checkpoint, auditor.trust_root().origin)
    rows = auditor.store.witnessings.of_tree(log, checkpoint.size, checkpoint.root)
    return witnessing.with_lines(note, [row.line for row in rows])


class Witnesses:
    """All witnesses of one server."""

    def __init__(self, auditor: Auditor, clients: Sequence[WitnessClient]) -> None:
        self._auditor = auditor
        self._couriers = [_Courier(auditor, client) for client in clients]

    @classmethod
    def of(cls, auditor: Auditor) -> "Witnesses":
        """Return the witnesses that the auditor's home lists.

        Raises:
            WitnessesFileError: the list can't be used.

        """
        return cls(
            auditor,
            [
                WitnessClient(endpoint.url, notes.VerifierKey.parse(endpoint.key))
                for endpoint in read_endpoints(auditor.home.path)
            ],
        )

    def start(self) -> None:
        """Begin to ask."""
        for courier in self._couriers:
            courier.start()

    def stop(self) -> None:
        """Ask no more. What is under way ends within a request's time limit, unheeded."""
        for courier in self._couriers:
            courier.stop()
        for courier in self._couriers:
            courier.join(STOP_SECONDS)

    def notify(self, session_id: str) -> None:
        """Say that a session's log has grown. Returns at once."""
        for courier in self._couriers:
            courier.notify([SESSION_PREFIX + session_id, REGISTRY_LOG])

    def gather(self, session: SessionRow, seconds: float = GATHER_SECONDS) -> None:
        """Wait until the witnesses that a session's order names have cosigned its log's end.

        Returns early when all of them have, or do not answer. Verification says what is missing.
        """
        row = self._auditor.store.order(session.order_id)
        if row is None:
            return
        payload = dsse.Envelope.from_bytes(row.envelope).payload
        policy = statements.parse(payload, statements.ORDER_PREDICATE, AuditOrder).witnesses
        if policy is None:
            return
        named = [c for c in self._couriers if c.client.key.encode() in policy.keys]
        log, deadline = SESSION_PREFIX + session.id, time.monotonic() + seconds
        for courier in named:
            courier.notify([log, REGISTRY_LOG])
        while time.monotonic() < deadline:
            if not any(courier.may_still_cosign(log) for courier in named):
                return
            time.sleep(GATHER_STEP_SECONDS)


class _Courier:
    """Brings checkpoints to one witness, in a thread of its own."""

    def __init__(self, auditor: Auditor, client: WitnessClient) -> None:
        self.client = client
        self._auditor = auditor
        self._witness = sha256(client.key.encode().encode()).hexdigest()
        self._due: dict[str, None] = {}
        self._refused_until: dict[str, float] = {}
        self._sweep_at = 0.0
        self._failures = 0  # since the witness has last answered
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(
            target=self._run, name=f"witness {client.key.name}", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def join(self, seconds: float) -> None:
        if self._thread.is_alive():
            self._thread.join(seconds)

    def notify(self, logs: Iterable[str]) -> None:
        with self._changed:
            for log in logs:
                if len(self._due) < MOST_PENDING:
                    self._due.setdefault(log)
            self._changed.notify_all()

    def may_still_cosign(self, log: str) -> bool:
        """Return whether it is worth waiting: the witness answers, and has not cosigned the end."""
        if self._failures or self._is_refused(log):
            return False
        row = self._auditor.store.witnessings.get(log, self._witness)
        return row is None or row.size < find_log(self._auditor, log).size()

    def _run(self) -> None:
        while not self._stopping:
            log = self._next()
            try:
                if log is None:
                    self._sweep()
                else:
                    self._bring(log)
            except Exception as error:  # noqa: BLE001 - a thread that ends would end the witnessing
                self._note_failure(log, error)
        self.client.close()

    def _sweep(self) -> None:
        """Put on the list whatever the witness lacks, also what it was not told of."""
        self.notify(self._auditor.store.witnessings.behind(self._witness))
        self.notify([REGISTRY_LOG])

    def _note_failure(self, log: str | None, error: Exception) -> None:
        """Ask a witness that refuses a log much later, and one that does not answer a bit later."""
        who = self.client.key.name
        if log is not None and isinstance(error, WitnessRefusedError | EvidenceError):
            self._refused_until[log] = time.monotonic() + REFUSED_SECONDS
            _LOG.error("witness %s, log %s: %s", who, log, error)
            return
        self._failures += 1
        unexpected = None if isinstance(error, WitnessUnavailableError) else error
        _LOG.warning("witness %s, log %s: %s", who, log, error, exc_info=unexpected)
        if log is not None:
            self.notify([log])
        self._pause()

    def _next(self) -> str | None:
        """Return a log that is due; None when it is time to look for what was forgotten."""
        with self._changed:
            while not self._stopping and time.monotonic() < self._sweep_at:
                for log in self._due:
                    if not self._is_refused(log):
                        del self._due[log]
                        return log
                self._changed.wait(max(0.0, self._sweep_at - time.monotonic()))
            self._sweep_at = time.monotonic() + SWEEP_SECONDS
            return None

    def _is_refused(self, log: str) -> bool:
        return time.monotonic() < self._refused_until.get(log, 0.0)

    def _pause(self) -> None:
        """Wait longer after each failure, and never as long as others do."""
        doubled = FIRST_RETRY_SECONDS * 2 ** min(self._failures - 1, MOST_DOUBLINGS)
        longest = min(doubled, LAST_RETRY_SECONDS)
        deadline = time.monotonic() + longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        with self._changed:
            while not self._stopping and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)

    def _bring(self, log: str) -> None:
        """Bring a witness up to the end of a log, step by step, where no other worker has."""
        while not self._stopping:
            with alone(self._auditor.home.path, f"witness-{self._witness}"):
                row = self._auditor.store.witnessings.get(log, self._witness)
                step = self._step(log, row)
                if step is None:
                    return
                self._failures = 0
                self._auditor.store.witnessings.put(step)

    def _step(self, log: str, row: WitnessingRow | None) -> WitnessingRow | None:
        """Get one cosignature; None: there is nothing that the witness has not cosigned."""
        size = 0 if row is None else row.size
        least = 0 if row is None else size + 1
        try:
            return self._ask(log, size, None if row is None else row.frontier, least)
        except StaleOldSizeError as error:
            stands_at = error.size
        stored = find_log(self._auditor, log).size()
        if stands_at < size:
            raise WitnessRefusedError(
                f"it has cosigned this log at size {size} and says that it stands at {stands_at}: "
                "its state was set back, and it must not be trusted any more"
            )
        if stands_at > stored:
            raise WitnessRefusedError(
                f"it has cosigned this log at size {stands_at}, and {stored} records are stored: "
                "the database was set back, or another server uses this origin"
            )
        try:
            # Where it stands without our having its cosignature, it cosigns again.
            return self._ask(log, stands_at, None, max(stands_at, least))
        except StaleOldSizeError as error:
            raise WitnessUnavailableError(f"{error}; somebody else asks it as well") from error

    def _ask(
        self, log: str, old_size: int, frontier: bytes | None, least: int
    ) -> WitnessingRow | None:
        witnessed = find_log(self._auditor, log)
        note = witnessed.checkpoint(least)
        if note is None:
            return None
        checkpoint = notes.parse_checkpoint(note.text)
        extension = witnessed.extend(old_size, frontier, checkpoint.size)
        request = AddCheckpoint.of(old_size, extension.proof, note)
        cosignature = self._checked(self.client.add_checkpoint(request))
        return WitnessingRow(
            log=log,
            witness=self._witness,
            size=checkpoint.size,
            root=checkpoint.root,
            time=cosignature.time,
            line=cosignature.line,
            frontier=extension.frontier,
        )

    def _checked(self, cosignature: Cosignature) -> Cosignature:
        now = self._auditor.now().timestamp()
        if cosignature.time > now + MOST_CLOCK_SKEW_SECONDS:
            raise WitnessUnavailableError(
                f"its cosignature is from {cosignature.time - now:.0f} s ahead; one of the clocks "
                "is wrong"
            )
        return cosignature
