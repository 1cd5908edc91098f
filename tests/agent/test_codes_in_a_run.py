"""A run that teaches codes asks the auditor for them in every process, and writes them nowhere."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from own_auditor import OwnAuditor, own_auditor, small
from test_continuation import ContainedRun, check_verified, train, train_and_kill

from auditkit.evidence.code_delivery import CodesDeliveryError
from auditkit.evidence.membership_codes import SessionCodes
from developer_agent import patience
from developer_agent.client import ServerClient
from developer_agent.codes import fetch_codes
from developer_agent.errors import ServerUnreachableError, SessionKeyGoneError
from developer_agent.supervised_run import Run, supervised
from developer_agent.supervision import CodesMissingError, Supervision
from schemas import MintConfig
from tests.evidence.contained import contained_run, identity

LENGTH = 128
CODES = MintConfig(
    evidence="codes", code_length=LENGTH, head="fully_connected", hidden=(32,), mint_weight=1.0
)


@dataclass
class Way:
    """What lies between the agent and the auditor on the way of the codes."""

    change: Callable[[bytes], bytes] = lambda sealed: sealed
    failures: int = 0
    answers: list[bytes] = field(default_factory=list)


class CodesClient(ServerClient):
    """The real client, with something in between."""

    def __init__(self, way: Way, base_url: str, token: str | None) -> None:
        super().__init__(base_url, token)
        self._way = way

    def membership_codes(self, session_id: str, request: bytes) -> bytes:
        if self._way.failures:
            self._way.failures -= 1
            raise ServerUnreachableError("the network is gone")
        self._way.answers.append(super().membership_codes(session_id, request))
        return self._way.change(self._way.answers[-1])


@dataclass(frozen=True)
class CodedRun(ContainedRun):
    way: Way = field(default_factory=Way)

    def client(self) -> ServerClient:
        return CodesClient(self.way, self.config.server.url, self.token)


@pytest.fixture(scope="module")
def auditor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnAuditor]:
    with own_auditor(
        tmp_path_factory.mktemp("auditor"),
        images=[identity().config_digest],
        most_sessions=1000,
    ) as auditor:
        yield auditor


@pytest.fixture
def run(auditor: OwnAuditor, tmp_path: Path) -> CodedRun:
    plain = Run.from_file(auditor.config(tmp_path, epochs=3), auditor.token)
    training = plain.config.training.model_copy(update={"mint": CODES})
    return CodedRun(
        config=plain.config.model_copy(update={"training": training}),
        base=plain.base,
        token=plain.token,
        container=contained_run(1),
        trust_root=auditor.trust_root.read_bytes(),
    )


def test_every_container_asks_anew_and_gets_the_same_codes(
    run: CodedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[SessionCodes] = []

    def noting(*arguments: object) -> SessionCodes | None:
        codes = fetch_codes(*arguments)  # type: ignore[arg-type]
        assert codes is not None
        fetched.append(codes)
        return codes

    monkeypatch.setattr("developer_agent.supervised_run.fetch_codes", noting)
    train_and_kill(run, 2)
    check_verified(run, train(replace(run, container=contained_run(2)), resume=True), 1)
    first, second = fetched
    assert np.array_equal(first.members, second.members)
    assert len(set(run.way.answers)) == 2, "each process has a key of its own"
    rows = [row.tobytes() for row in first.members]
    rows += [first.packed()[start : start + LENGTH] for start in range(0, len(rows), LENGTH)]
    for path in run.folder_path.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(row in data for row in rows), path


def test_a_network_that_comes_back_is_waited_for(run: CodedRun) -> None:
    run.way.failures = 2
    check_verified(run, train(run), 0)


def test_a_network_that_stays_away_ends_the_run_before_it_began(
    run: CodedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "ATTEMPTS", 2)
    run.way.failures = 9
    with pytest.raises(ServerUnreachableError):
        train(run)
    assert run.folder.spool_path.read_bytes() == b""


@pytest.mark.parametrize(
    "change",
    [lambda sealed: sealed[:-1], lambda sealed: bytes(len(sealed)), lambda _: b"codes of others"],
    ids=["cut", "zeros", "exchanged"],
)
def test_codes_that_were_touched_on_the_way_are_not_taught(
    run: CodedRun, change: Callable[[bytes], bytes]
) -> None:
    run.way.change = change
    with pytest.raises(CodesDeliveryError):
        train(run)
    assert run.folder.spool_path.read_bytes() == b"", "nothing was recorded, nothing trained"


def test_a_process_without_the_session_key_asks_for_nothing(run: CodedRun) -> None:
    with (
        supervised(run) as current,
        run.client() as client,
        pytest.raises(SessionKeyGoneError, match="session key"),
    ):
        fetch_codes(replace(current.session, key=None), client)
    assert run.way.answers == []


def test_a_loop_without_codes_says_how_to_get_them(run: CodedRun) -> None:
    with supervised(run) as current:
        alone = Supervision(current.session, current.supervision._spool)
        alone.enhance(small(seed=1))
        alone.optimiser()
        with pytest.raises(CodesMissingError, match="supervised_run"):
            next(alone.batches())


def test_a_run_that_teaches_no_codes_asks_for_none(run: CodedRun) -> None:
    training = run.config.training.model_copy(update={"mint": MintConfig(head="fully_connected")})
    plain = replace(run, config=run.config.model_copy(update={"training": training}))
    train(plain)
    assert run.way.answers == []
