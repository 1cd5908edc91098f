"""Training with T on the auditor's server: one exchange per step, through crashes and outages."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from own_auditor import OwnAuditor, own_auditor, small
from safetensors.torch import load
from test_continuation import Killed, wait_until
from torch import Tensor

from auditkit.evidence import mint_exchange
from auditkit.evidence.canonical import sha256_hex
from auditkit.mint.split_training import HeldStep, pack_maps, unpack_maps
from auditor_server.codes import committed_secret, session_codes
from auditor_server.context import Auditor
from auditor_server.held_mint import SessionMint
from auditor_server.settings import ServerSettings
from developer_agent.client import ServerClient
from developer_agent.errors import ServerOutageError, ServerRefusedError, ServerUnreachableError
from developer_agent.joint_training import JointTraining
from developer_agent.recorder import read_records
from developer_agent.run_folder import RunFolder
from developer_agent.session import Session
from developer_agent.spool import Spool
from developer_agent.state import state_digest, state_name
from developer_agent.supervised_run import Run, RunOutcome, RunResult, SupervisedRun, supervised
from developer_agent.supervision import PoolSamples
from schemas import (
    ContainerRun,
    MintConfig,
    MintExchangeRequest,
    ResumeRecord,
    SealRecord,
    StateRecord,
    StepRecord,
    TapShapes,
)
from tests.evidence.contained import contained_run, identity

LENGTH = 32
MEMBERSHIP = MintConfig(head="fully_connected", hidden=(32,), custody="auditor")
CODES = MEMBERSHIP.model_copy(update={"evidence": "codes", "code_length": LENGTH})
EPOCHS, LAST_STEP = 4, 8  # a state is kept after every second step


@dataclass
class Line:
    """What lies between the agent and T; each callable may raise or change the message."""

    before: Callable[[MintExchangeRequest], None] = lambda _request: None
    after: Callable[[MintExchangeRequest, bytes], bytes] = lambda _request, answer: answer
    asked: list[MintExchangeRequest] = field(default_factory=list)


class LineClient(ServerClient):
    def __init__(self, line: Line, base_url: str, token: str | None) -> None:
        super().__init__(base_url, token)
        self._line = line

    def exchange(self, session_id: str, message: bytes) -> bytes:
        document, _ = mint_exchange.read_message(message)
        payload = json.loads(document)["payload"]
        request = MintExchangeRequest.from_bytes(base64.b64decode(payload))
        self._line.asked.append(request)
        self._line.before(request)
        return self._line.after(request, super().exchange(session_id, message))


@dataclass(frozen=True)
class HeldRun(Run):
    """A run whose T is elsewhere."""

    line: Line = field(default_factory=Line)

    def client(self) -> ServerClient:
        return LineClient(self.line, self.config.server.url, self.token)

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.folder_path)

    def records(self, kind: type) -> list[Any]:
        with Spool.open(self.folder.spool_path) as spool:
            return [record for record in read_records(spool) if isinstance(record, kind)]


@pytest.fixture(scope="module")
def auditor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnAuditor]:
    with own_auditor(
        tmp_path_factory.mktemp("auditor"),
        images=[identity().config_digest],
        allow_without_container=True,
        least_code_length=LENGTH,
        most_sessions=1000,
        outage_policy="pause",
    ) as auditor:
        yield auditor


def new_run(
    auditor: OwnAuditor,
    folder: Path,
    mint: MintConfig = MEMBERSHIP,
    container: ContainerRun | None = None,
) -> HeldRun:
    plain = Run.from_file(auditor.config(folder, epochs=EPOCHS), auditor.token)
    training = plain.config.training.model_copy(update={"mint": mint})
    return HeldRun(
        config=plain.config.model_copy(update={"training": training}),
        base=plain.base,
        token=plain.token,
        container=container,
        trust_root=auditor.trust_root.read_bytes(),
    )


AfterStep = Callable[[SupervisedRun, int], None]


def loop(current: SupervisedRun, after_step: AfterStep) -> None:
    supervision = current.supervision
    supervision.enhance(small(0))
    optimiser = supervision.optimiser()
    for batch in supervision.batches():
        losses = supervision.losses(batch)
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
        supervision.step(batch, losses)
        after_step(current, supervision.step_done)
    supervision.seal()


def train(
    run: HeldRun, *, resume: bool = False, after_step: AfterStep = lambda _current, _step: None
) -> RunResult:
    with supervised(run, resume=resume) as current:
        if not current.sealed_before:
            loop(current, after_step)
        return current.finish()


def kill_at(step: int) -> AfterStep:
    def kill(current: SupervisedRun, done: int) -> None:
        if done == step:
            wait_until(lambda: current.uplink_state.unacknowledged == 0)
            raise Killed

    return kill


def check_verified(result: RunResult) -> None:
    assert result.outcome is RunOutcome.SUBMITTED, result.problem
    assert result.report is not None
    failed = [found for found in result.report.findings if found.outcome == "failed"]
    assert not failed
    (custody,) = [found for found in result.report.findings if found.check == "mint-custody"]
    assert "the auditor held T" in custody.detail


@pytest.mark.parametrize("mint", [MEMBERSHIP, CODES], ids=["membership", "codes"])
def test_a_training_whose_t_is_with_the_auditor(
    auditor: OwnAuditor, tmp_path: Path, mint: MintConfig
) -> None:
    run = new_run(auditor, tmp_path, mint)
    check_verified(train(run))
    steps = run.records(StepRecord)
    assert [request.step for request in run.line.asked if request.kind == "step"] == [
        record.step for record in steps
    ]
    assert all(record.activations and record.gradient for record in steps)
    states = run.records(StateRecord)
    assert all(state.mint_state_digest and state.mint_weights_digest for state in states)
    (seal,) = run.records(SealRecord)
    assert (seal.audited_weights_digest, seal.mint_weights_digest) == (
        states[-1].weights_digest,
        states[-1].mint_weights_digest,
    )


def test_in_float32_an_interrupted_training_ends_as_an_uninterrupted_one_would(
    auditor: OwnAuditor, tmp_path: Path
) -> None:
    """M goes back to its state, T to the same one; then both do the very same steps again."""
    run = new_run(auditor, tmp_path, MEMBERSHIP.model_copy(update={"wire_precision": "float32"}))
    with pytest.raises(Killed):
        train(run, after_step=kill_at(5))
    check_verified(train(run, resume=True))
    (resumed,) = run.records(ResumeRecord)
    assert (resumed.step, resumed.discarded_steps) == (4, 1)
    first, again = [record for record in run.records(StepRecord) if record.step == 5]
    assert (first.activations, first.gradient) == (again.activations, again.gradient)
    (rewind,) = rewinds(auditor, run)
    assert (rewind.step, rewind.discarded_steps) == (4, 1)


def rewinds(auditor: OwnAuditor, run: HeldRun) -> list[Any]:
    store = Auditor.open(ServerSettings(home=auditor.home.path)).store
    return list(store.custody.rewinds(session_id(run)))


def session_id(run: HeldRun) -> str:
    return run.line.asked[0].session_id


def test_a_lost_answer_is_asked_for_again_and_the_step_is_done_once(
    auditor: OwnAuditor, tmp_path: Path
) -> None:
    lost: dict[tuple[str, int], bytes] = {}
    kinds = {"begin", "step", "scores", "evaluation", "final"}

    def lose_once(request: MintExchangeRequest, answer: bytes) -> bytes:
        known = lost.setdefault((request.kind, request.step), answer)
        if known is answer and request.kind in kinds:
            raise ServerUnreachableError("the answer is lost")
        if request.kind != "scores":  # of which there are several after one step
            assert answer == known
        return answer

    run = new_run(auditor, tmp_path, CODES)
    run.line.after = lose_once
    check_verified(train(run))
    assert {kind for kind, _ in lost} == kinds
    assert not rewinds(auditor, run)


def test_a_gradient_that_was_changed_on_the_way_is_found_out_by_the_log(
    auditor: OwnAuditor, tmp_path: Path
) -> None:
    def change(request: MintExchangeRequest, answer: bytes) -> bytes:
        if (request.kind, request.step) != ("step", 3):
            return answer
        return answer[:-1] + bytes([answer[-1] ^ 1])

    run = new_run(auditor, tmp_path)
    run.line.after = change
    with pytest.raises(ServerRefusedError, match="step 3: the log names") as refused:
        train(run)
    assert refused.value.error_name == "HeldExchangesError"


def test_a_fresh_container_goes_on_with_t_where_the_auditor_holds_it(
    auditor: OwnAuditor, tmp_path: Path
) -> None:
    run = new_run(auditor, tmp_path, CODES, contained_run(1))
    with pytest.raises(Killed):
        train(run, after_step=kill_at(6))
    check_verified(train(replace(run, container=contained_run(2)), resume=True))


class FastClock:
    """Half a minute passes whenever somebody looks, and nobody ever waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 30.0
        return self.now

    def sleep(self, _seconds: float) -> None:
        """Return at once."""


def test_policy_stop_ends_the_run_and_it_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    with own_auditor(
        tmp_path, allow_without_container=True, outage_policy="stop", late_after_seconds=600.0
    ) as strict:
        run = new_run(strict, tmp_path / "run")

        def gone(request: MintExchangeRequest) -> None:
            if request.step >= 3:
                raise ServerUnreachableError("the network is gone")

        run.line.before = gone
        with monkeypatch.context() as patch:
            patch.setattr("developer_agent.remote_mint.time", FastClock())
            with pytest.raises(ServerOutageError, match="holds the MINT Model"):
                train(run)
        run.line.before = lambda _request: None
        check_verified(train(run, resume=True))


def test_an_order_that_lets_a_run_go_on_without_the_auditor_is_refused_at_once(
    tmp_path: Path,
) -> None:
    (tmp_path / "run").mkdir()
    with own_auditor(tmp_path, allow_without_container=True) as lax:
        run = new_run(lax, tmp_path / "run")
        with pytest.raises(ServerRefusedError, match="'pause' or 'stop'") as refused:
            train(run)
        assert refused.value.error_name == "CustodyOutageError"


def test_a_server_that_was_restarted_puts_t_back_and_the_training_goes_on(
    tmp_path: Path,
) -> None:
    (tmp_path / "run").mkdir()
    with restartable_auditor(tmp_path) as (own, restart):
        run = new_run(own, tmp_path / "run", CODES)

        def restart_between_states(_current: SupervisedRun, step: int) -> None:
            if step == 5:  # states are kept at 4 and 6
                restart()

        check_verified(train(run, after_step=restart_between_states))
        assert not rewinds(own, run)


@contextmanager
def restartable_auditor(folder: Path) -> Iterator[tuple[OwnAuditor, Callable[[], None]]]:
    """An auditor whose server can be killed and comes back at the same address."""
    with own_auditor(
        folder,
        allow_without_container=True,
        least_code_length=LENGTH,
        outage_policy="pause",
    ) as prepared:
        home = prepared.home
    processes: list[subprocess.Popen[str]] = []

    def start(port: int) -> int:
        command = [sys.executable, "-m", "auditor_server", "--home", str(home.path)]
        process = subprocess.Popen(
            [*command, "--port", str(port)], stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout is not None
        return int(json.loads(process.stdout.readline())["port"])

    def stop() -> None:
        process = processes[-1]
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()

    port = start(0)

    def restart() -> None:
        stop()
        start(port)

    try:
        yield OwnAuditor(home, f"http://127.0.0.1:{port}"), restart
    finally:
        stop()


def test_neither_t_nor_codes_nor_scores_reach_the_developer(
    auditor: OwnAuditor, tmp_path: Path
) -> None:
    answers: list[bytes] = []

    def keep(_request: MintExchangeRequest, answer: bytes) -> bytes:
        answers.append(answer)
        return answer

    run = new_run(auditor, tmp_path, CODES)
    run.line.after = keep
    check_verified(train(run))
    home = auditor.home.path / "custody" / session_id(run)
    (state,) = home.glob(f"state-{LAST_STEP:08d}.safetensors")
    weights = {
        name: tensor.numpy().tobytes()
        for name, tensor in load(state.read_bytes()).items()
        if name.startswith("mint.") and tensor.numel() > 1
    }
    (scores,) = home.glob(f"scores-{LAST_STEP:08d}-calibration-*.safetensors")
    secrets = [*weights.values(), load(scores.read_bytes())["score/calibration"].numpy().tobytes()]
    assert len(secrets) > 3
    files = [path.read_bytes() for path in run.folder_path.rglob("*") if path.is_file()]
    for secret in secrets:
        assert not any(secret in data for data in (*files, *answers))
    assert load(run.folder.weights.read()).keys().isdisjoint(weights)
    with run.client() as client, pytest.raises(ServerRefusedError) as refused:
        client.membership_codes(session_id(run), b"{}")
    assert refused.value.error_name == "CodesHeldError"


@dataclass
class Again:
    """T of a finished session, with which the auditor does a part of the training again."""

    mint: SessionMint
    shapes: TapShapes
    sent: list[tuple[str, str]] = field(default_factory=list)

    def train(self, step: int, maps: Sequence[Tensor]) -> HeldStep:
        payload = pack_maps(maps, "float16")
        found = self.mint.train(step, payload)
        gradients = pack_maps(found.gradients, "float16")
        self.sent.append((sha256_hex(payload), sha256_hex(gradients)))
        back = unpack_maps(gradients, self.shapes.shapes, len(maps[0]), "float16")
        return replace(found, gradients=back)


@pytest.mark.parametrize("mint", [MEMBERSHIP, CODES], ids=["membership", "codes"])
def test_the_auditor_can_do_a_segment_again_from_both_states_and_finds_the_same(
    auditor: OwnAuditor, tmp_path: Path, mint: MintConfig
) -> None:
    """What a replay needs: M's state and samples, which the developer opens, and T's state."""
    run = new_run(auditor, tmp_path, mint)
    sessions: list[Session] = []
    check_verified(train(run, after_step=lambda current, _step: sessions.append(current.session)))
    session = sessions[0]
    again = kept_at(auditor, session, 2)
    training = JointTraining(session.config, session.nonce, session.schedule, PoolSamples(session))
    training.enhance(small(0))
    optimiser = training.optimiser()
    training.entrust(again)
    assert training.restore(run.folder.state(state_name(2)).read()) == 2
    for plan, words in training.plans(after=2):
        if plan.step > 4:
            break
        batch = training.prepare(plan, words)
        losses = training.losses(batch)
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
    steps = {record.step: record for record in run.records(StepRecord)}
    assert again.sent == [(steps[n].activations, steps[n].gradient) for n in (3, 4)]
    (end,) = [record for record in run.records(StateRecord) if record.step == 4]
    assert state_digest(training.state(4)) == end.state_digest
    assert sha256_hex(again.mint.held.state(4)) == end.mint_state_digest


def kept_at(auditor: OwnAuditor, session: Session, step: int) -> Again:
    server = Auditor.open(ServerSettings(home=auditor.home.path))
    identifier = session.grant.session_id
    row = server.store.custody.held(identifier)
    stored = server.store.session(identifier)
    assert row is not None
    assert stored is not None
    codes = None
    if session.config.mint.evidence == "codes":
        secret = committed_secret(server, stored, session.grant)
        codes = session_codes(server, stored, session.grant, secret)
    shapes = TapShapes.from_bytes(row.shapes)
    mint = SessionMint(session.request, session.grant, shapes, row.secret, codes)
    folder = auditor.home.path / "custody" / identifier
    mint.step_done = mint.held.restore((folder / f"state-{step:08d}.safetensors").read_bytes())
    return Again(mint, shapes)
