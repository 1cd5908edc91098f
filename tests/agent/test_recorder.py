import json
import math
import threading
from pathlib import Path

import pytest
from runs import record_grant, record_seal, record_steps, step_fields

from developer_agent.errors import LogSealedError, NonFiniteRecordError, RecordError
from developer_agent.recorder import Recorder, is_seal, read_records
from developer_agent.spool import Spool
from schemas import CohortMetrics, EvaluationRecord, RateEstimate, SealRecord, StepRecord


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.open(tmp_path / "spool")


def test_what_is_written_parses_to_what_happened(spool: Spool) -> None:
    recorder = Recorder(spool, clock=lambda: 1_700_000_000_000)
    record_grant(recorder)
    record_steps(recorder, 1, 3)
    record_seal(recorder, 3)
    records = list(read_records(spool))
    assert [record.kind for record in records] == ["grant", "step", "step", "step", "seal"]
    assert records[2] == StepRecord.model_validate(
        step_fields(2) | {"sequence": 2, "time_ms": 1_700_000_000_000}
    )


def test_nested_records_are_kept_whole(spool: Spool) -> None:
    rate = RateEstimate(successes=1, trials=2, value=0.5, low=0.1, high=0.9)
    cohort = CohortMetrics(
        cohort="told", size=2, auc=0.5, flagged=(), task_accuracy=rate, task_loss=0.1 + 0.2
    )
    Recorder(spool).record(EvaluationRecord, step=1, epoch=0, cohorts=(cohort,))
    (record,) = read_records(spool)
    assert isinstance(record, EvaluationRecord)
    assert record.cohorts == (cohort,)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["task_loss", "objective", "mint_accuracy"])
def test_a_diverged_training_is_named_and_nothing_is_written(
    spool: Spool, field: str, value: float
) -> None:
    recorder = Recorder(spool)
    with pytest.raises(NonFiniteRecordError, match=f"{field} of a StepRecord at step 4"):
        recorder.record(StepRecord, **step_fields(4) | {field: value})
    assert len(spool) == 0


@pytest.mark.parametrize(
    "wrong", [{"task_accuracy": 1.5}, {"step": "4"}, {"batch": "short"}, {"colour": "red"}]
)
def test_a_record_that_breaks_its_schema_is_refused(spool: Spool, wrong: dict[str, object]) -> None:
    with pytest.raises(RecordError) as caught:
        Recorder(spool).record(StepRecord, **step_fields(4) | wrong)
    assert not isinstance(caught.value, NonFiniteRecordError)
    assert next(iter(wrong)) in str(caught.value)
    assert len(spool) == 0


def test_after_the_seal_nothing_is_recorded_not_even_by_the_next_process(spool: Spool) -> None:
    recorder = Recorder(spool)
    record_steps(recorder, 1, 1)
    assert not recorder.sealed
    record_seal(recorder, 1)
    for sealed in (recorder, Recorder(spool)):
        assert sealed.sealed
        with pytest.raises(LogSealedError):
            record_steps(sealed, 2, 1)
    assert is_seal(spool.read(1, 1)[0])
    assert not is_seal(spool.read(0, 1)[0])


def test_times_never_run_backwards_even_over_a_restart(spool: Spool) -> None:
    ticks = iter([1000, 900, 1001])
    recorder = Recorder(spool, clock=lambda: next(ticks))
    record_steps(recorder, 1, 3)
    record_steps(Recorder(spool, clock=lambda: 5), 4, 1)
    assert [record.time_ms for record in read_records(spool)] == [1000, 1000, 1001, 1001]


def test_several_threads_get_different_positions(spool: Spool) -> None:
    recorder = Recorder(spool)
    threads = [threading.Thread(target=record_steps, args=(recorder, 1, 200)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [json.loads(line)["sequence"] for line in spool.lines()] == list(range(800))
    assert all(isinstance(record, StepRecord) for record in read_records(spool))
    assert SealRecord not in map(type, read_records(spool))
