import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from faulty_auditor import Fault, FaultyAuditor
from runs import Run, check_log, new_run, record_grant, record_seal, record_steps

from developer_agent import uplink as uplink_module
from developer_agent.client import ServerClient
from developer_agent.errors import (
    CosignatureError,
    NotAuthorisedError,
    RunLockedError,
    ServerOutageError,
    ServerRefusedError,
    ServerUnreachableError,
    SpoolWriteError,
    UplinkStoppedError,
)
from developer_agent.recorder import Recorder
from developer_agent.run_folder import RunFolder
from developer_agent.spool import Spool
from developer_agent.uplink import Uplink, retry_delay, sync
from schemas import OutagePolicy


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same behaviour in a shorter time."""
    monkeypatch.setattr(uplink_module, "FLUSH_INTERVAL_SECONDS", 0.02)
    monkeypatch.setattr(uplink_module, "FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(uplink_module, "LONGEST_RETRY_SECONDS", 0.05)


def uplink(run: Run, policy: OutagePolicy = "continue-late", late_after: float = 60.0) -> Uplink:
    return Uplink(
        run.committer(),
        run.spool,
        policy=policy,
        late_after_seconds=late_after,
        jitter=random.Random(1),
    )


def hang(auditor: FaultyAuditor) -> threading.Event:
    """Let the auditor store flushes, and answer only when the event is set."""
    release = threading.Event()

    def answer(note: str) -> str:
        release.wait(20)
        return note

    auditor.forge = answer
    return release


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.005)
    pytest.fail("it did not come to pass within ten seconds")


def test_a_training_is_followed_while_it_runs_and_complete_at_its_end(run: Run) -> None:
    record_grant(run.recorder)
    with uplink(run) as link:
        for step in range(1, 200):
            link.permit()
            record_steps(run.recorder, step, 1)
            time.sleep(0.001)
        record_seal(run.recorder, 199)
        assert link.drain(30) == 0
        state = link.state
    assert (state.spooled, state.acknowledged, state.unacknowledged) == (201, 201, 0)
    assert state.log_size == len(run.auditor.records) > 201
    assert state.last_cosigned_at is not None
    assert (state.outage_since, state.error) == (None, None)
    check_log(run.folder, run.auditor)
    assert len(run.auditor.flushes) > 2


def test_a_bad_network_delays_and_harms_nothing(run: Run) -> None:
    generator = random.Random(3)
    run.auditor.faults.extend(generator.choices(list(Fault), k=25))
    record_grant(run.recorder)
    with uplink(run) as link:
        for step in range(1, 100):
            record_steps(run.recorder, step, 1)
            time.sleep(0.002)
        record_seal(run.recorder, 99)
        assert link.drain(60) == 0
    check_log(run.folder, run.auditor)


def test_continue_late_trains_on_and_catches_up(run: Run) -> None:
    record_grant(run.recorder)
    with uplink(run) as link:
        run.auditor.down = True
        record_steps(run.recorder, 1, 5)
        wait_until(lambda: link.state.outage_since is not None)
        since = link.state.outage_since
        for step in range(6, 50):
            link.permit()
            record_steps(run.recorder, step, 1)
        assert link.state.outage_since == since
        run.auditor.down = False
        wait_until(lambda: link.state.outage_since is None)
        assert link.drain(30) == 0
    check_log(run.folder, run.auditor)


def test_pause_waits_for_the_server(run: Run) -> None:
    run.auditor.down = True
    record_grant(run.recorder)
    with uplink(run, "pause") as link:
        wait_until(lambda: link.state.outage_since is not None)
        passed = threading.Event()
        training = threading.Thread(target=lambda: (link.permit(), passed.set()))
        training.start()
        assert not passed.wait(0.2)
        run.auditor.down = False
        assert passed.wait(10)
        training.join()
        assert link.state.acknowledged == 1


def test_pause_ends_when_the_uplink_is_closed(run: Run) -> None:
    run.auditor.down = True
    record_grant(run.recorder)
    link = uplink(run, "pause").start()
    wait_until(lambda: link.state.outage_since is not None)
    closing = threading.Timer(0.1, link.close)
    closing.start()
    with pytest.raises(UplinkStoppedError, match="closed"):
        link.permit()
    closing.join()


def test_stop_allows_a_short_outage_and_no_long_one(run: Run) -> None:
    run.auditor.down = True
    record_grant(run.recorder)
    with uplink(run, "stop", late_after=1.5) as link:
        wait_until(lambda: link.state.outage_since is not None)
        link.permit()
        with pytest.raises(ServerOutageError, match=r"after 1\.5 s.*Nothing is lost"):
            wait_until(lambda: link.permit() is not None)
        run.auditor.down = False
        assert link.drain(30) == 0
        link.permit()
    check_log(run.folder, run.auditor)


def test_stop_also_counts_a_server_that_takes_the_request_and_never_answers(run: Run) -> None:
    record_grant(run.recorder)
    release = hang(run.auditor)
    with uplink(run, "stop", late_after=0.05) as link:
        with pytest.raises(ServerOutageError):
            wait_until(lambda: link.permit() is not None)
        release.set()


@pytest.mark.parametrize("policy", ["continue-late", "pause", "stop"])
@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        ((409, "ForkError"), ServerRefusedError),
        ((403, "SessionExpiredError"), ServerRefusedError),
        ((401, "NotAuthenticatedError"), NotAuthorisedError),
    ],
)
def test_a_refusal_that_cannot_heal_stops_the_training(
    run: Run, policy: OutagePolicy, refusal: tuple[int, str], error: type[Exception]
) -> None:
    run.auditor.refusal = refusal
    record_grant(run.recorder)
    with uplink(run, policy) as link:
        wait_until(lambda: link.state.error is not None)
        assert isinstance(link.state.error, error)
        with pytest.raises(UplinkStoppedError, match=refusal[1]) as caught:
            wait_until(lambda: link.permit() is not None)
        assert isinstance(caught.value.__cause__, error)
        assert link.drain(30) == 1


def test_a_forged_cosignature_stops_the_training(run: Run) -> None:
    run.auditor.forge = lambda note: note.replace("cosigner ", "cosigner AAAA", 1)
    record_grant(run.recorder)
    with uplink(run) as link:
        wait_until(lambda: link.state.error is not None)
        assert isinstance(link.state.error, CosignatureError)


def test_a_disk_that_fails_under_the_uplink_is_seen_by_the_training(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose_data(*_: object) -> None:
        raise OSError(5, "Input/output error")

    record_grant(run.recorder)
    with monkeypatch.context() as patch:
        patch.setattr("developer_agent.spool.os.fdatasync", lose_data)
        with uplink(run) as link:
            wait_until(lambda: link.state.error is not None)
            with pytest.raises(UplinkStoppedError, match="Input/output error") as caught:
                link.permit()
    assert isinstance(caught.value.__cause__, SpoolWriteError)


def test_the_exit_is_bounded_and_says_what_is_missing(run: Run) -> None:
    run.auditor.down = True
    record_grant(run.recorder)
    record_steps(run.recorder, 1, 9)
    with uplink(run) as link:
        assert link.drain(0.2) == 10
    run.auditor.down = False
    with uplink(run) as link:
        assert link.drain(30) == 0
    check_log(run.folder, run.auditor)


def test_close_does_not_wait_for_a_hanging_request(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uplink_module, "CLOSE_SECONDS", 0.05)
    release = hang(run.auditor)
    record_grant(run.recorder)
    link = uplink(run).start()
    wait_until(lambda: len(run.auditor.flushes) == 1)
    link.close()
    release.set()
    wait_until(lambda: all(t.name != "auditkit-uplink" for t in threading.enumerate()))
    assert link.state.acknowledged == 0  # the answer came too late to be believed
    with uplink(run) as link:
        assert link.drain(30) == 0
    check_log(run.folder, run.auditor)


def test_an_uplink_that_was_never_started_closes(run: Run) -> None:
    record_grant(run.recorder)
    link = uplink(run)
    link.close()
    assert link.state.acknowledged == 0


def test_retries_back_off_to_ten_seconds_and_are_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    generator = random.Random(0)
    delays = [[retry_delay(failures, generator) for _ in range(50)] for failures in range(1, 60)]
    for failures, spread in enumerate(delays, start=1):
        longest = min(10.0, 0.25 * 2 ** (failures - 1))
        assert longest / 2 <= min(spread) < max(spread) <= longest
    assert retry_delay(10**9, generator) <= 10.0


@pytest.fixture
def interrupted(run: Run) -> RunFolder:
    """A sealed run whose process ended during an outage, with a flush under way."""
    record_grant(run.recorder)
    with uplink(run) as link:
        record_steps(run.recorder, 1, 5)
        assert link.drain(30) == 0
        run.auditor.faults.extend([Fault.LOST_ANSWER] * 1000)
        record_steps(run.recorder, 6, 5)
        wait_until(lambda: link.state.outage_since is not None)
        run.auditor.down = True
        record_seal(run.recorder, 10)
    run.auditor.faults.clear()
    return run.folder


def test_sync_finishes_an_interrupted_upload(run: Run, interrupted: RunFolder) -> None:
    run.auditor.down = False
    client = ServerClient(run.auditor.url, "token")
    with pytest.raises(RunLockedError):
        sync(interrupted, client, run.trust_root)
    progress: list[tuple[int, int]] = []
    elsewhere = RunFolder(interrupted.path.with_name("copy"))  # where nobody holds the lock
    shutil.copytree(interrupted.path, elsewhere.path)
    result = sync(elsewhere, client, run.trust_root, on_progress=lambda *now: progress.append(now))
    assert result.sent == 6
    assert result.sealed
    assert result.log_size == len(run.auditor.records)
    assert progress[-1] == (6, 6)
    check_log(elsewhere, run.auditor)
    again = sync(elsewhere, client, run.trust_root)
    assert (again.sent, again.log_size) == (0, result.log_size)


def test_sync_gives_up_on_a_server_that_stays_away(tmp_path: Path, auditor: FaultyAuditor) -> None:
    folder = new_run(tmp_path / "away", auditor)
    with Spool.open(folder.spool_path) as spool:
        record_grant(Recorder(spool))
    auditor.down = True
    with pytest.raises(ServerUnreachableError, match=auditor.url):
        sync(folder, ServerClient(auditor.url, "token"), auditor.trust_root(), attempts=3)
    assert not auditor.flushes
    auditor.down = False
    assert not sync(folder, ServerClient(auditor.url, "token"), auditor.trust_root()).sealed
    check_log(folder, auditor)
