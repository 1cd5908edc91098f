"""A whole small session, told by the agent's own parts to the server's own operations.

Everything is real but the network between the two, and the network that is trained: its records,
states and model files are made by hand, and fit the nonce that the server grants.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import numpy as np
from safetensors.numpy import save

from auditkit.evidence import canonical, dsse
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.trust import open_trust_root
from auditor_server import records, registry, sessions, submissions, verification
from auditor_server.context import Auditor
from auditor_server.errors import ServerError as ServerSideError
from auditor_server.home import FIRST_DEVELOPER, Home, create_home
from auditor_server.inference.service import Inference
from auditor_server.orders import add_order
from auditor_server.settings import ServerSettings
from auditor_server.store import SessionRow
from auditor_server.tokens import Principal
from developer_agent.client import ServerClient
from developer_agent.committer import Committer
from developer_agent.errors import (
    DiskWriteError,
    ServerError,
    ServerRefusedError,
    ServerUnreachableError,
)
from developer_agent.recorder import Clock, Recorder, unix_milliseconds
from developer_agent.run_folder import RunFolder
from developer_agent.session import read_grant
from developer_agent.spool import Spool
from developer_agent.state import state_name
from schemas import (
    AppendReceipt,
    AppendRequest,
    AssuranceLevel,
    CohortMetrics,
    ModelDescription,
    Normalisation,
    OptimiserConfig,
    Record,
    SealRecord,
    SessionGrant,
    SessionRequest,
    SplitFractions,
    SplitSizes,
    StateRecord,
    TrainingConfig,
    TrustRoot,
    VerificationReport,
)
from schemas.wire import SessionOpening
from tests.adversary.forge import Plot, honest_scores, honest_story, measured, rebuilt_weights
from tests.faults.injection import PowerCut
from tests.server.hand_built import (
    CONFIG,
    POOL_SIZE,
    TEST_SIZE,
    make_leaves,
    make_order,
    make_request,
    opening,
    sign_order,
)

ORDER = "faults-2026"
ORIGIN = "audit.example.org"
SMALL = TrainingConfig(
    name="digits",
    model=CONFIG.model,
    optimiser=OptimiserConfig(learning_rate=0.1),
    epochs=2,
    batch_size=8,
    external_batch_size=4,
    state_interval_steps=3,
)
RECORDS_PER_FLUSH = 6
WEIGHTS = save({"weight": np.arange(4, dtype=np.float32)})
T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """An auditor's home with one order."""

    home: Home
    order_digest: str

    def copied(self, folder: Path) -> "World":
        """The same world once more, in another folder."""
        shutil.copytree(self.home.path, folder)
        return replace(self, home=replace(self.home, path=folder))

    @property
    def developer(self) -> Principal:
        """Who the developer is to the server."""
        return Principal(
            self.home.tokens["developer"].partition(".")[0], "developer", FIRST_DEVELOPER
        )


def new_world(folder: Path) -> World:
    """Make an auditor's home and issue an order there, an hour ago."""
    now = datetime.now(UTC) - timedelta(hours=1)
    home = create_home(folder, "The Auditor", ORIGIN, now)
    order = make_order(
        ORDER,
        now,
        split=SplitFractions(external=0.25, calibration=0.25, silent=0.125, told_only=0.0625),
        least_calibration_samples=8,
        false_positive_rate=0.2,
        most_sessions=10_000,
    )
    envelope = sign_order(home, order)
    with serving(home) as auditor:
        add_order(auditor, envelope.to_bytes())
    return World(home, canonical.sha256_hex(envelope.payload))


@contextmanager
def serving(
    home: Home, now: Callable[[], datetime] = lambda: datetime.now(UTC), **settings: Any
) -> Iterator[Auditor]:
    """The server of a home as it is after a start; checks its registry, as every start does."""
    auditor = replace(Auditor.open(ServerSettings(home=home.path, **settings)), now=now)
    try:
        registry.recover(auditor)
        yield auditor
    finally:
        auditor.store.close()


@dataclass
class Answered:
    """What the agent was told: every receipt is a promise of the auditor's."""

    receipts: list[tuple[AppendRequest, str]] = field(default_factory=list)
    reports: list[VerificationReport] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    """What the server ran into; its agents are told that it did, and no more."""


class Client(ServerClient):
    """The agent's client, in one process with the server: its answers and refusals, no sockets."""

    def __init__(
        self,
        world: World,
        auditor: Callable[[], Auditor],
        answered: Answered,
        restart: Callable[[], None] | None = None,
    ) -> None:
        super().__init__("http://server.test")
        self._auditor = auditor
        self._answered = answered
        self._restart = restart
        self._principal = world.developer

    def open_session(
        self, order_id: str, request: bytes, pool_leaves: bytes, test_leaves: bytes
    ) -> bytes:
        document = opening(order_id, SessionRequest.from_bytes(request))
        return self.ask(
            lambda auditor: sessions.open_session(
                auditor, self._principal, SessionOpening.from_bytes(canonical.to_bytes(document))
            )
        )

    def append(self, session_id: str, request: AppendRequest) -> AppendReceipt:
        receipt = self.ask(
            lambda auditor: records.append(
                auditor, auditor.session(session_id, self._principal), request
            )
        )
        self._answered.receipts.append((request, receipt.checkpoint))
        return receipt

    def submit(
        self, session_id: str, weights: Path, description: Path, scores: Path
    ) -> VerificationReport:
        files = {
            "weights": BytesIO(weights.read_bytes()),
            "description": BytesIO(description.read_bytes()),
            "scores": BytesIO(scores.read_bytes()),
        }

        def submitted(auditor: Auditor) -> VerificationReport:
            session = auditor.session(session_id, self._principal)
            submissions.submit(auditor, session, **files)
            # The network is not built: its initial weights are told by the story.
            with patch.object(Inference, "initial_weights_digest", staticmethod(rebuilt_weights)):
                return verification.verify_submission(auditor, session)

        report = self.ask(submitted)
        self._answered.reports.append(report)
        return report

    def ask(self, operation: Callable[[Auditor], T]) -> T:
        """Have the server do something, and learn of its faults what an agent would."""
        try:
            return operation(self._auditor())
        except PowerCut:
            if self._restart is None:
                raise
            self._restart()
            raise ServerUnreachableError("the server is down") from None
        except ServerSideError as error:
            raise ServerRefusedError(int(error.status), type(error).__name__, str(error)) from error
        except Exception as error:
            self._answered.failures.append(error)
            raise ServerRefusedError(500, "", "the server failed to answer") from error


@dataclass
class Agent:
    """The developer's side; everything that it knows lies in its folder."""

    folder: RunFolder
    world: "World"
    client: ServerClient
    clock: Clock = unix_milliseconds
    records_per_flush: int = RECORDS_PER_FLUSH
    attempts: int = 1
    """How often a write is tried before the run ends with the disk's error."""

    def run(self) -> None:
        """Do all that is left up to the seal, from wherever an earlier process has come."""
        RunFolder.create(self.folder.path)
        with self.folder.lock():
            if not self.folder.grant.exists():
                self._open()
            self._tell(read_grant(self.folder))

    def open(self) -> SessionGrant:
        """Open the session and do no more."""
        RunFolder.create(self.folder.path)
        with self.folder.lock():
            self._open()
        return read_grant(self.folder)

    def trust_root(self) -> TrustRoot:
        """Return the trust root as pinned in the folder."""
        return open_trust_root(self.folder.trust_root.read(), datetime.now(UTC))

    def story(self, grant: SessionGrant) -> list[Record]:
        """Return all records of the session."""
        return story(self.folder, grant)[0]

    @staticmethod
    def fields(record: Record) -> dict[str, Any]:
        """Return what a training hands to the recorder."""
        return record.model_dump(exclude={"kind", "sequence", "time_ms"})

    def submit(self) -> VerificationReport:
        """Hand over the model; asks again once when the server failed."""
        return asking(
            lambda: self.client.submit(
                read_grant(self.folder).session_id,
                self.folder.weights.path,
                self.folder.description.path,
                self.folder.scores.path,
            )
        )

    def _open(self) -> None:
        self._trying(lambda: self.folder.trust_root.write(self.world.home.trust_root_bytes))
        if not self.folder.session_key.exists():
            pem = SigningKey.generate().to_pem()
            self._trying(lambda: self.folder.session_key.write(pem))
        if not self.folder.request.exists():
            key = SigningKey.from_pem(self.folder.session_key.read())
            request = make_request(self.world.order_digest, key, config=SMALL)
            self._trying(lambda: self.folder.request.write(canonical.to_bytes(request)))
        leaves = (make_leaves(POOL_SIZE, b"pool"), make_leaves(TEST_SIZE, b"test"))
        grant = asking(
            lambda: self.client.open_session(
                ORDER, self.folder.request.read(), *map(b"".join, leaves)
            )
        )
        self._trying(lambda: self.folder.grant.write(grant))

    def _tell(self, grant: SessionGrant) -> None:
        told, files = story(self.folder, grant)
        with (
            Spool.open(self.folder.spool_path) as spool,
            Committer.open(self.folder, spool, self.client, self.trust_root()) as committer,
        ):
            recorder = Recorder(spool, self.clock)
            for index in range(len(spool), len(told)):
                record = told[index]
                if isinstance(record, StateRecord):
                    state = self.folder.state(state_name(record.step))
                    self._trying(lambda: state.write(b"state"))  # noqa: B023 - called at once
                if isinstance(record, SealRecord):
                    for name, data in files.items():
                        file = getattr(self.folder, name)
                        self._trying(lambda: file.write(data))  # noqa: B023
                self._trying(lambda: recorder.record(type(record), **self.fields(record)))  # noqa: B023
                if (index + 1) % self.records_per_flush == 0:
                    self._commit(committer)
            self._commit(committer)

    def _commit(self, committer: Committer) -> None:
        while committer.remaining:
            asking(lambda: self._trying(committer.commit_next))

    def _trying(self, write: Callable[[], T]) -> T:
        for attempt in range(self.attempts):
            try:
                return write()
            except DiskWriteError:
                if attempt + 1 == self.attempts:
                    raise
        raise AssertionError("unreachable")


def asking(call: Callable[[], T]) -> T:
    """Ask again once, at once, when the server failed; its faults come one at a time."""
    try:
        return call()
    except ServerError as error:
        if not error.temporary:
            raise
        return call()


def story(folder: RunFolder, grant: SessionGrant) -> tuple[list[Record], dict[str, bytes]]:
    """All records of the session but for their times, and the files that it ends with."""
    request = SessionRequest.from_bytes(folder.request.read())
    payload = dsse.Envelope.from_bytes(folder.grant.read()).payload
    tensors, final = _evaluation(grant.split)
    description = ModelDescription(
        session_id=grant.session_id,
        model=request.config.model,
        taps=request.config.taps,
        mint=request.config.mint,
        normalisation=Normalisation(mean=(0.5,), std=(0.25,)),
        class_names=tuple("0123456789"),
        weights_digest=canonical.sha256_hex(WEIGHTS),
        parameters=4,
    )
    files = {
        "weights": WEIGHTS,
        "description": canonical.to_bytes(description),
        "scores": save(tensors),
    }
    seal = SealRecord(
        sequence=0,
        time_ms=0,
        step=0,
        **{f"{name}_digest": canonical.sha256_hex(data) for name, data in files.items()},
    )
    told = honest_story(
        request,
        grant,
        canonical.sha256_hex(payload),
        b"".join(make_leaves(POOL_SIZE, b"pool")),
        seal,
        Plot(),
        final,
    )
    return told, files


@cache
def _evaluation(split: SplitSizes) -> tuple[dict[str, Any], tuple[CohortMetrics, ...]]:
    tensors = honest_scores(split)
    return tensors, measured(tensors)


def session_of(auditor: Auditor, folder: RunFolder) -> SessionRow:
    """The session of a run, as the server has it."""
    session = auditor.store.session(read_grant(folder).session_id)
    assert session is not None
    return session


Shape = tuple[tuple[str, ...], tuple[int, ...]]
"""What tells one honest log from another: the kinds of its records, and where it was flushed."""


def check_log(auditor: Auditor, folder: RunFolder, answered: Answered) -> Shape:
    """Nothing that was acknowledged is lost, and both sides hold the same sealed log."""
    session = session_of(auditor, folder)
    segments = auditor.store.segments(session.id)
    lines = records.split_lines(segments)
    receipts = [segment.cosigned for segment in segments]
    for request, receipt in answered.receipts:
        kept = lines[request.first : request.first + len(request.records)]
        assert [line.encode() for line in request.records] == kept, "an acknowledged record is lost"
        assert receipt in receipts, "a receipt is lost"
    with Spool.open(folder.records_path) as log, Spool.open(folder.spool_path) as spool:
        assert list(log.lines()) == lines
        recorded = [_without_place(line) for line in spool.lines()]
    told = [_without_place(line) for line in lines]
    assert [document for document in told if document["kind"] != "receipt"] == recorded
    assert not folder.pending.exists()
    assert (session.state, session.size) == ("sealed", len(lines))
    assert len(list(folder.checkpoints_path.read_bytes().splitlines())) == len(segments)
    return (
        tuple(document["kind"] for document in told),
        tuple(segment.end for segment in segments),
    )


def check_report(report: VerificationReport) -> None:
    """The whole session verifies, registry included."""
    failed = [finding for finding in report.findings if finding.outcome == "failed"]
    assert not failed, failed
    held = {finding.check for finding in report.findings if finding.outcome != "skipped"}
    assert "registered" in held
    assert report.level == AssuranceLevel.L1


def _without_place(line: bytes) -> dict[str, Any]:
    document = json.loads(line)
    del document["sequence"]
    return document
