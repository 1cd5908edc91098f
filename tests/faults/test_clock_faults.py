"""A clock that is minutes off is named as such, whoever's it is."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from auditkit.evidence.log_checks import CLOCK_TOLERANCE_SECONDS
from auditor_server.store import SessionRow
from developer_agent.errors import ServerRefusedError
from developer_agent.recorder import unix_milliseconds
from developer_agent.run_folder import RunFolder
from schemas import Finding, VerificationReport
from tests.faults.session_story import (
    Agent,
    Answered,
    Client,
    World,
    check_report,
    new_world,
    serving,
    session_of,
)

TEN_MINUTES = 600
BEYOND_THE_VERIFIER = CLOCK_TOLERANCE_SECONDS + 30
LENIENT = 3600.0  # seconds that an auditor may allow, if it wants to see such logs
WRONG = [
    pytest.param(TEN_MINUTES, "10.0 minutes ahead of the auditor's", id="ahead"),
    pytest.param(-TEN_MINUTES, "10.0 minutes behind the auditor's", id="behind"),
    pytest.param(BEYOND_THE_VERIFIER, "2.5 minutes ahead of the auditor's", id="a little ahead"),
    pytest.param(-BEYOND_THE_VERIFIER, "2.5 minutes behind the auditor's", id="a little behind"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return new_world(tmp_path_factory.mktemp("clocks") / "home")


def clock(seconds: float) -> Callable[[], int]:
    """The agent's clock, so many seconds ahead."""
    return lambda: unix_milliseconds() + round(seconds * 1000)


def play(
    world: World,
    folder: RunFolder,
    *,
    agent_ahead: float = 0.0,
    server_ahead: Callable[[int], float] = lambda _flushes: 0.0,
    **settings: float,
) -> tuple[VerificationReport | ServerRefusedError, SessionRow]:
    """A session with wrong clocks: its report, or how it was refused; and what is stored of it.

    Args:
        world: the auditor.
        folder: of the run.
        agent_ahead: seconds.
        server_ahead: seconds, after so many flushes.
        settings: of the server.
    """
    answered = Answered()

    def now() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=server_ahead(len(answered.receipts)))

    with serving(world.home, now, **settings) as auditor:
        client = Client(world, lambda: auditor, answered)
        agent = Agent(folder, world, client, clock=clock(agent_ahead))
        try:
            agent.run()
            return agent.submit(), session_of(auditor, folder)
        except ServerRefusedError as error:
            return error, session_of(auditor, folder)


def times(report: object) -> Finding:
    assert isinstance(report, VerificationReport)
    (found,) = (finding for finding in report.findings if finding.check == "times-possible")
    return found


def refused(error: object) -> str:
    assert isinstance(error, ServerRefusedError)
    assert (error.status, error.error_name) == (422, "RecordTimeError")
    assert not error.temporary
    return error.detail


@pytest.mark.parametrize(("seconds", "said"), WRONG)
def test_the_server_refuses_records_of_a_wrong_clock_and_says_by_how_much(
    world: World, tmp_path: Path, seconds: float, said: str
) -> None:
    error, session = play(world, RunFolder(tmp_path / "run"), agent_ahead=seconds)
    assert said in refused(error)
    assert session.size == 0


@pytest.mark.parametrize(("seconds", "said"), WRONG)
def test_it_is_all_the_same_when_the_servers_clock_is_wrong(
    world: World, tmp_path: Path, seconds: float, said: str
) -> None:
    folder = RunFolder(tmp_path / "run")
    # Only the difference of the two clocks can be known.
    error, session = play(world, folder, server_ahead=lambda _: -seconds)
    assert said in refused(error)
    assert session.size == 0


@pytest.mark.parametrize(("seconds", "said"), WRONG)
def test_a_lenient_server_takes_them_and_the_finding_says_by_how_much(
    world: World, tmp_path: Path, seconds: float, said: str
) -> None:
    folder = RunFolder(tmp_path / "run")
    report, _ = play(world, folder, agent_ahead=seconds, most_clock_skew_seconds=LENIENT)
    found = times(report)
    assert (found.outcome, found.error) == ("failed", "ImpossibleTimeError")
    assert said in found.detail


def test_a_server_clock_set_ahead_during_a_session_is_a_warning_with_the_difference(
    world: World, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    report, _ = play(world, folder, server_ahead=lambda flushes: TEN_MINUTES if flushes >= 2 else 0)
    check_report(report)
    found = times(report)
    assert found.outcome == "warning"
    assert "up to 10.0 minutes" in found.detail
    assert "the agent's clock is behind the auditor's by as much" in found.detail


def test_a_server_clock_set_back_during_a_session_stops_it_and_spoils_nothing(
    world: World, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    error, session = play(
        world, folder, server_ahead=lambda flushes: -TEN_MINUTES if flushes >= 2 else 0
    )
    assert "10.0 minutes ahead of the auditor's" in refused(error)
    kept = session.size
    report, session = play(world, folder)  # the clock is right again
    check_report(report)
    assert session.size > kept > 0


def test_a_small_step_back_of_the_servers_clock_does_not_spoil_an_honest_session(
    world: World, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    report, _ = play(world, folder, server_ahead=lambda flushes: -100 if flushes >= 2 else 0)
    check_report(report)
    assert times(report).outcome == "passed"
