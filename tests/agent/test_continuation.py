"""A run in containers: each has its own session key, and the next goes on where the auditor is."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from own_auditor import OwnAuditor, own_auditor, small

from auditkit.evidence import dsse, statements, trust
from developer_agent import patience
from developer_agent.client import ServerClient
from developer_agent.committer import Committer
from developer_agent.continuation import continue_session
from developer_agent.errors import (
    ContinuationRefusedError,
    CosignatureError,
    LogDamagedError,
    ServerRefusedError,
    ServerUnreachableError,
    SessionKeyGoneError,
)
from developer_agent.run_folder import RunFolder
from developer_agent.session import RunMismatchError, Session, load_session
from developer_agent.spool import Spool
from developer_agent.supervised_run import Run, RunOutcome, RunResult, SupervisedRun, supervised
from developer_agent.supervision import StateMissingError
from developer_agent.uplink import sync
from schemas import (
    AppendReceipt,
    AppendRequest,
    ContainerRun,
    SessionRequest,
    VerificationReport,
    parse_record,
)
from tests.evidence.contained import contained_run, identity

WAIT_SECONDS = 60.0


class Killed(BaseException):
    """The container is killed here."""


@dataclass
class Faults:
    """What goes wrong, call by call; each callable may raise."""

    before: dict[str, Callable[[], None]] = field(default_factory=dict)
    after: dict[str, Callable[[], None]] = field(default_factory=dict)
    clients: Callable[[], None] = lambda: None

    def at(self, when: str, call: str) -> None:
        getattr(self, when).get(call, lambda: None)()


class FaultyClient(ServerClient):
    """The real client, over a real network, with faults in front of and behind a call."""

    def __init__(self, faults: Faults, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._faults = faults

    def open_session(
        self, order_id: str, request: bytes, pool_leaves: bytes, test_leaves: bytes
    ) -> bytes:
        answer = super().open_session(order_id, request, pool_leaves, test_leaves)
        self._faults.at("after", "open_session")
        return answer

    def append(self, session_id: str, request: AppendRequest) -> AppendReceipt:
        sealing = '"kind":"seal"' in request.records[-1]
        call = "append the seal" if sealing else "append"
        self._faults.at("before", call)
        answer = super().append(session_id, request)
        self._faults.at("after", call)
        return answer

    def continue_session(self, session_id: str, request: bytes) -> bytes:
        self._faults.at("before", "continue_session")
        answer = super().continue_session(session_id, request)
        self._faults.at("after", "continue_session")
        return answer

    def submit(
        self, session_id: str, weights: Path, description: Path, scores: Path
    ) -> VerificationReport:
        self._faults.at("before", "submit")
        return super().submit(session_id, weights, description, scores)


@dataclass(frozen=True)
class ContainedRun(Run):
    """A run in its n-th container, with a network that can be broken."""

    faults: Faults = field(default_factory=Faults)

    def client(self) -> ServerClient:
        self.faults.clients()
        return FaultyClient(self.faults, self.config.server.url, self.token)

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.folder_path)


@pytest.fixture(scope="module")
def auditor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnAuditor]:
    folder = tmp_path_factory.mktemp("auditor")
    with own_auditor(
        folder,
        images=[identity().config_digest],
        allow_without_container=True,
        most_sessions=1000,
    ) as auditor:
        yield auditor


@pytest.fixture
def run(auditor: OwnAuditor, tmp_path: Path) -> ContainedRun:
    """A run in its first container."""
    plain = Run.from_file(auditor.config(tmp_path), auditor.token)
    return ContainedRun(
        config=plain.config,
        base=plain.base,
        token=plain.token,
        container=contained_run(1),
        trust_root=auditor.trust_root.read_bytes(),
    )


def in_container(run: ContainedRun, number: int, faults: Faults | None = None) -> ContainedRun:
    return replace(run, container=contained_run(number), faults=faults or Faults())


def unreachable() -> None:
    raise ServerUnreachableError("the network is gone")


def killed() -> None:
    raise Killed


def train(
    run: ContainedRun,
    *,
    resume: bool = False,
    break_off: int | None = None,
    at_step: Callable[[SupervisedRun, int], None] = lambda _current, _step: None,
    drain_seconds: float = WAIT_SECONDS,
) -> RunResult:
    """Train to the end, or be killed after a step that the auditor has."""
    with supervised(run, resume=resume) as current:
        supervision = current.supervision
        if not current.sealed_before:
            supervision.enhance(small(seed=1))
            optimiser = supervision.optimiser()
            for batch in supervision.batches():
                losses = supervision.losses(batch)
                optimiser.zero_grad()
                losses.total.backward()
                optimiser.step()
                supervision.step(batch, losses)
                at_step(current, batch.plan.step)
                if batch.plan.step == break_off:
                    wait_until(lambda: current.uplink_state.unacknowledged == 0)
                    raise Killed
            supervision.seal()
        return current.finish(drain_seconds)


def train_and_kill(run: ContainedRun, step: int, *, resume: bool = False) -> None:
    with pytest.raises(Killed):
        train(run, resume=resume, break_off=step)


def leave_pending(run: ContainedRun, when: str) -> None:
    """Kill a training with a flush signed that was lost on its way there, or back."""
    down = Faults()

    def lose_connection(current: SupervisedRun, step: int) -> None:
        if step == 3:
            wait_until(lambda: current.uplink_state.unacknowledged == 0)
            getattr(down, when)["append"] = unreachable
        elif step == 4:
            wait_until(run.folder.pending.exists)
            raise Killed

    with pytest.raises(Killed):
        train(replace(run, faults=down), at_step=lose_connection)
    assert run.folder.pending.exists()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def check_verified(run: ContainedRun, result: RunResult, continuations: int) -> list[str]:
    """Every check passes, on the server; return the kinds of the log's records in order."""
    assert result.outcome is RunOutcome.SUBMITTED
    assert result.report is not None
    failed = [f for f in result.report.findings if f.outcome == "failed"]
    assert not failed, failed
    assert result.report.level == 2
    found = {f.check: f for f in result.report.findings}
    assert found["continuations-logged"].outcome == "passed"
    assert found["schedule"].outcome == found["states"].outcome == "passed"
    with run.client() as client:
        assert client.status(result.session_id).continuations == continuations
    assert not run.folder.session_key.exists()
    assert not list(run.folder_path.rglob("*.pem"))
    return [parse_record(line).kind for line in run.folder.records_path.read_bytes().splitlines()]


def test_two_fresh_containers_finish_a_run_and_all_of_it_verifies(run: ContainedRun) -> None:
    train_and_kill(run, 2)
    train_and_kill(in_container(run, 2), 4, resume=True)
    result = train(in_container(run, 3), resume=True)
    kinds = check_verified(run, result, continuations=2)
    assert kinds.count("grant") == 1
    assert kinds.count("continuation") == kinds.count("resume") == 2
    for place in [index for index, kind in enumerate(kinds) if kind == "continuation"]:
        assert kinds[place - 1] == "receipt"
        assert next(kind for kind in kinds[place + 1 :] if kind != "receipt") == "resume"
    request = SessionRequest.from_bytes(run.folder.request.read())
    assert request.container == contained_run(1)
    grant = parse_record(run.folder.records_path.read_bytes().splitlines()[0])
    assert grant.kind == "grant"
    assert grant.mode == "container"
    assert grant.image_digest == identity().config_digest


def test_without_a_fault_there_is_no_continuation(run: ContainedRun) -> None:
    kinds = check_verified(run, train(run), continuations=0)
    assert "continuation" not in kinds
    assert not run.folder.continuations.exists()


@pytest.fixture
def only_run(tmp_path: Path) -> Iterator[ContainedRun]:
    """A run under an order for a single session."""
    with own_auditor(tmp_path, images=[identity().config_digest], most_sessions=1) as auditor:
        plain = Run.from_file(auditor.config(tmp_path), auditor.token)
        yield ContainedRun(plain.config, plain.base, plain.token, contained_run(1))


def test_a_lost_grant_is_asked_for_again_with_the_same_key_while_there_is_one(
    only_run: ContainedRun,
) -> None:
    answers = iter((unreachable, unreachable))

    def lose_twice() -> None:
        for lose in answers:
            lose()

    run = replace(only_run, faults=Faults(after={"open_session": lose_twice}))
    check_verified(run, train(run), continuations=0)
    assert next(answers, None) is None
    with run.client() as client:
        assert len(client.sessions()) == 1


def test_a_refused_request_is_not_repeated(run: ContainedRun) -> None:
    calls = []

    def refuse() -> None:
        calls.append(1)
        raise ServerRefusedError(409, "OrderExhaustedError", "no more sessions")

    with pytest.raises(ServerRefusedError):
        train(replace(run, faults=Faults(after={"open_session": refuse})))
    assert len(calls) == 1


def test_a_lost_grant_is_asked_for_again_with_a_new_key(
    run: ContainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "ATTEMPTS", 2)
    with pytest.raises(ServerUnreachableError):
        train(replace(run, faults=Faults(after={"open_session": unreachable})))
    first = SessionRequest.from_bytes(run.folder.request.read())
    check_verified(run, train(in_container(run, 2)), continuations=0)
    second = SessionRequest.from_bytes(run.folder.request.read())
    assert first.session_key != second.session_key
    assert second.container == contained_run(2)


@pytest.mark.parametrize("kills", [1, 2])
def test_killed_between_the_grant_and_the_first_flush(run: ContainedRun, kills: int) -> None:
    with pytest.raises(Killed), supervised(run):
        raise Killed
    for number in range(2, kills + 1):
        again = in_container(run, number, Faults(before={"append": unreachable}))
        with pytest.raises(Killed), supervised(again, resume=True):
            raise Killed
        run.folder.pending.delete()  # it may have been signed by then; nobody has it
    kinds = check_verified(run, train(in_container(run, 9), resume=True), continuations=kills)
    assert [kind for kind in kinds if kind != "receipt"][:3] == ["grant", "continuation", "state"]
    assert "resume" not in kinds


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_signed_flush_is_sent_again_as_it_is(run: ContainedRun, when: str) -> None:
    leave_pending(run, when)
    signed = run.folder.pending.read()
    result = train(in_container(run, 2), resume=True)
    check_verified(run, result, continuations=1)
    notes = [json.loads(line) for line in run.folder.checkpoints_path.read_bytes().splitlines()]
    assert any(note.startswith(signed.decode()) for note in notes)


STAGES = {
    "the flush is not sent again": (Faults(before={"append": killed}), 1),
    "the flush's answer is lost": (Faults(after={"append": killed}), 1),
    "the continuation is not asked for": (Faults(before={"continue_session": killed}), 2),
    "the continuation's answer is lost": (Faults(after={"continue_session": killed}), 2),
}


@pytest.mark.parametrize("stage", STAGES)
def test_killed_while_going_on(run: ContainedRun, stage: str) -> None:
    faults, continuations = STAGES[stage]
    leave_pending(run, "before")
    for number in (2, 3):
        with pytest.raises(Killed):
            train(in_container(run, number, faults), resume=True)
    result = train(in_container(run, 4), resume=True)
    kinds = check_verified(run, result, continuations)
    assert kinds.count("continuation") == 1
    for number in range(1, continuations + 1):
        assert run.folder.continuation(number).exists()


def test_killed_with_the_continuation_recorded_and_not_flushed(run: ContainedRun) -> None:
    train_and_kill(run, 2)
    clients = iter((False, True))  # of opening the session, and of the uplink

    def kill_the_second() -> None:
        if next(clients):
            raise Killed

    with pytest.raises(Killed):
        train(in_container(run, 2, Faults(clients=kill_the_second)), resume=True)
    assert b'"kind":"continuation"' in run.folder.spool_path.read_bytes()
    kinds = check_verified(run, train(in_container(run, 3), resume=True), continuations=2)
    assert kinds.count("continuation") == 1


def test_what_was_not_cosigned_is_dropped_and_done_anew(run: ContainedRun) -> None:
    train_and_kill(run, 3)
    spool = run.folder.spool_path.read_bytes()
    step = next(line for line in reversed(spool.splitlines()) if b'"step":3' in line)
    forged = step.replace(b'"step":3', b'"step":4')
    for path in (run.folder.spool_path, run.folder.records_path):
        path.write_bytes(path.read_bytes() + forged + b"\n")
    discarded = []
    with (
        suppress(Killed),
        supervised(
            in_container(run, 2), resume=True, on_resume=lambda *lost: discarded.append(lost)
        ) as current,
    ):
        current.supervision.enhance(small(seed=1))
        current.supervision.optimiser()
        next(current.supervision.batches())
        raise Killed
    assert discarded == [(2, 1)]
    check_verified(run, train(in_container(run, 3), resume=True), continuations=2)


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_changed_spool_does_not_count_the_log_does(run: ContainedRun, damage: str) -> None:
    train_and_kill(run, 4)
    spool = run.folder.spool_path.read_bytes()
    run.folder.spool_path.write_bytes(
        spool[: len(spool) // 2] if damage == "cut" else spool.replace(b'"step":4', b'"step":2')
    )
    check_verified(run, train(in_container(run, 2), resume=True), continuations=1)


def test_a_changed_state_is_passed_over_and_no_state_at_all_is_an_error(run: ContainedRun) -> None:
    train_and_kill(run, 4)
    states = sorted(run.folder.states.iterdir())
    data = states[-1].read_bytes()
    states[-1].write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    kept = [state.read_bytes() for state in states[:-1]]
    for state in states[:-1]:
        state.write_bytes(b"")
    with pytest.raises(StateMissingError):
        train(in_container(run, 2), resume=True)
    for state, content in zip(states[:-1], kept, strict=True):
        state.write_bytes(content)
    check_verified(run, train(in_container(run, 3), resume=True), continuations=2)
    resumed = [
        record.step
        for line in run.folder.records_path.read_bytes().splitlines()
        if (record := parse_record(line)).kind == "resume"
    ]
    assert resumed == [2]


def test_a_changed_log_is_refused(run: ContainedRun) -> None:
    train_and_kill(run, 2)
    log = run.folder.records_path.read_bytes()
    run.folder.records_path.write_bytes(log.replace(b'"step":2', b'"step":1'))
    with pytest.raises(LogDamagedError, match="changed"):
        train(in_container(run, 2), resume=True)


def test_a_log_changed_after_it_was_verified_is_not_taken_over(
    run: ContainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_and_kill(run, 2)
    log = run.folder.records_path.read_bytes()
    settle = Committer.settle

    def settle_and_forge(committer: Committer) -> None:
        settle(committer)
        run.folder.records_path.write_bytes(log.replace(b'"step":2', b'"step":1'))

    with monkeypatch.context() as patch:
        patch.setattr(Committer, "settle", settle_and_forge)
        with pytest.raises(LogDamagedError, match="another program"):
            train(in_container(run, 2), resume=True)
    assert not run.folder.continuation_request(1).exists()
    run.folder.records_path.write_bytes(log)
    check_verified(run, train(in_container(run, 3), resume=True), continuations=1)


def test_a_spool_that_lies_there_before_the_session_is_dropped(run: ContainedRun) -> None:
    with supervised(run) as current:
        session = current.session
    run.folder.spool_path.write_bytes(b'{"planted":1}\n')
    with Spool.open(run.folder.spool_path) as spool, run.client() as client:
        assert continue_session(session, spool, client, contained_run(1)) is session
        assert len(spool) == 0
    assert run.folder.spool_path.read_bytes() == b""


def reload(run: ContainedRun, session: Session, container: ContainerRun | None) -> Session:
    return load_session(
        run.folder,
        session.config,
        session.pool,
        session.test,
        container=container,
        trust_root_bytes=run.trust_root,
    )


def test_another_trust_root_in_the_folder_than_the_container_was_given_is_refused(
    run: ContainedRun,
) -> None:
    with supervised(run) as current:
        session = current.session
    assert reload(run, session, run.container).grant == session.grant
    assert run.trust_root is not None
    run.folder.trust_root.write(run.trust_root + b"\n")  # as valid as the one before
    with pytest.raises(RunMismatchError, match="trust root"):
        reload(run, session, run.container)


@pytest.mark.parametrize("contained", [True, False])
def test_another_order_of_the_same_auditor_is_refused(
    run: ContainedRun, auditor: OwnAuditor, contained: bool
) -> None:
    run = run if contained else replace(run, container=None)
    with supervised(run) as current:
        session = current.session
    order = session.order.model_copy(update={"outage_policy": "stop", "late_after_seconds": 1.0})
    payload = statements.make(
        statements.ORDER_PREDICATE, order, statements.subject("order", order.order_id, order)
    )
    envelope = dsse.sign(payload, [auditor.home.signing_key("order")])
    run.folder.order.write(envelope.to_bytes())
    with pytest.raises(RunMismatchError, match="the order"):
        reload(run, session, run.container)


def test_a_pending_flush_that_the_lost_key_did_not_sign_is_refused(run: ContainedRun) -> None:
    leave_pending(run, "before")
    note = run.folder.pending.read()
    text, _, signature = note.rpartition(b" ")
    damaged = signature.replace(signature[20:21], b"A" if signature[20:21] != b"A" else b"B", 1)
    run.folder.pending.write(text + b" " + damaged)
    with pytest.raises(LogDamagedError, match="not signed"):
        train(in_container(run, 2), resume=True)
    run.folder.pending.delete()
    check_verified(run, train(in_container(run, 2), resume=True), continuations=1)


def test_a_flush_that_only_the_auditor_has_still_is_noticed(run: ContainedRun) -> None:
    leave_pending(run, "after")
    signed = run.folder.pending.read()
    tail = run.folder.records_path.read_bytes()
    run.folder.pending.delete()
    with pytest.raises(LogDamagedError, match="the auditor holds"):
        train(in_container(run, 2), resume=True)
    run.folder.pending.write(signed)  # from a backup
    run.folder.records_path.write_bytes(tail)
    check_verified(run, train(in_container(run, 3), resume=True), continuations=2)


def test_lost_or_exchanged_continuations_are_noticed(run: ContainedRun) -> None:
    train_and_kill(run, 2)
    train_and_kill(in_container(run, 2), 4, resume=True)
    files = {path: path.read_bytes() for path in run.folder.continuations.iterdir()}
    for path in files:
        path.unlink()
    with pytest.raises(CosignatureError, match="does not verify"):
        train(in_container(run, 3), resume=True)
    for path, data in files.items():
        path.write_bytes(data)
    asked = run.folder.continuation_request(1).path
    asked.write_bytes(files[asked].replace(b"2.0", b"3.0").replace(b'"cpus":2', b'"cpus":3'))
    with pytest.raises(ContinuationRefusedError, match="for request"):
        train(in_container(run, 3), resume=True)
    asked.write_bytes(files[asked])
    check_verified(run, train(in_container(run, 3), resume=True), continuations=2)


def test_an_acknowledged_seal_needs_no_key_to_submit(run: ContainedRun) -> None:
    result = train(replace(run, faults=Faults(before={"submit": unreachable})))
    assert result.outcome is RunOutcome.UNACKNOWLEDGED
    check_verified(run, train(in_container(run, 2), resume=True), continuations=0)


def seal_without_receipt(run: ContainedRun, when: str) -> None:
    """Train to the end; the seal is signed, and lost on its way there, or its answer back."""
    faults = Faults(**{when: {"append the seal": unreachable}})
    result = train(replace(run, faults=faults), drain_seconds=2.0)
    assert result.outcome is RunOutcome.UNACKNOWLEDGED
    assert run.folder.pending.exists()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_signed_seal_is_sent_again_and_needs_no_key(run: ContainedRun, when: str) -> None:
    seal_without_receipt(run, when)
    kinds = check_verified(run, train(in_container(run, 2), resume=True), continuations=0)
    assert kinds[-1] == "seal"


def test_an_unsigned_seal_is_made_again(run: ContainedRun) -> None:
    seal_without_receipt(run, "before")
    run.folder.pending.delete()
    kinds = check_verified(run, train(in_container(run, 2), resume=True), continuations=1)
    assert kinds.count("seal") == 1


def test_a_container_that_is_not_locked_down_gets_no_key_and_the_next_one_does(
    run: ContainedRun,
) -> None:
    train_and_kill(run, 2)
    loose = replace(run, container=contained_run(2, described={"privileged": True}))
    with pytest.raises(ServerRefusedError, match="PrivilegedError"):
        train(loose, resume=True)
    assert not run.folder.continuation_request(1).exists()
    check_verified(run, train(in_container(run, 3), resume=True), continuations=1)


def test_a_run_stays_in_its_container_and_its_image(run: ContainedRun) -> None:
    train_and_kill(run, 1)
    with pytest.raises(RunMismatchError, match="in a container, or not"):
        train(replace(run, container=None), resume=True)
    other = contained_run(2)
    image = other.image.model_copy(update={"config_digest": "7" * 64})
    with pytest.raises(RunMismatchError, match="image"):
        train(replace(run, container=other.model_copy(update={"image": image})), resume=True)
    assert not run.folder.continuations.exists()


def test_sync_sends_what_is_signed_and_says_who_can_sign_the_rest(run: ContainedRun) -> None:
    leave_pending(run, "before")
    with Spool.open(run.folder.spool_path) as spool:
        recorded = len(spool)
        spool.append(spool.read(recorded - 1, 1)[0])  # one more that nobody has signed
    root = trust.open_trust_root(run.folder.trust_root.read(), datetime.now(UTC))
    with in_container(run, 2).client() as client:
        with pytest.raises(SessionKeyGoneError, match="train --resume"):
            sync(run.folder, client, root)
        assert not run.folder.pending.exists()
    check_verified(run, train(in_container(run, 3), resume=True), continuations=1)
    with run.client() as client:
        done = sync(run.folder, client, root)
    assert (done.sent, done.sealed) == (0, True)
