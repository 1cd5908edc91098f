"""A developer's own model and loop under supervision: the example of the developer's guide."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from own_auditor import own_auditor, small

from developer_agent.errors import AgentError
from developer_agent.supervised_run import Run, RunOutcome, supervised
from developer_agent.supervision import SupervisionOrderError


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A real server with an order, and a run that is configured for it."""
    with own_auditor(tmp_path, allow_without_container=True) as auditor:
        yield Run.from_file(auditor.config(tmp_path), auditor.token)


def test_own_model_and_own_loop_give_evidence_that_holds(run: Run) -> None:
    with supervised(run, user_code=[Path(__file__)]) as current:
        supervision = current.supervision
        supervision.enhance(small(seed=1))
        optimiser = supervision.optimiser()
        for batch in supervision.batches():
            losses = supervision.losses(batch)
            optimiser.zero_grad()
            losses.total.backward()
            optimiser.step()
            supervision.step(batch, losses)
        supervision.seal()
        result = current.finish()
    assert result.outcome is RunOutcome.SUBMITTED
    assert result.report is not None
    assert result.report.passed, result.report
    assert result.report.level == 1
    # Only the developer can build this model, so its initial weights are not called checked.
    initial = next(f for f in result.report.findings if f.check == "initial-weights")
    assert initial.outcome == "not_checked"


def test_a_forgotten_step_is_noticed_at_once(run: Run) -> None:
    with supervised(run) as current:
        supervision = current.supervision
        supervision.enhance(small(seed=1))
        supervision.optimiser()
        batches = supervision.batches()
        next(batches)
        with pytest.raises(SupervisionOrderError, match="`step` was not called"):
            next(batches)
        with pytest.raises(SupervisionOrderError, match="step 0 of"):
            supervision.seal()


def test_calls_in_the_wrong_order_say_what_to_do(run: Run) -> None:
    with supervised(run) as current:
        with pytest.raises(SupervisionOrderError, match="enhance"):
            current.supervision.optimiser()
        with pytest.raises(SupervisionOrderError, match="optimiser"):
            next(current.supervision.batches())


def test_two_processes_cannot_work_on_one_run(run: Run) -> None:
    wanted = pytest.raises(AgentError, match="in use by process")
    with supervised(run), wanted, supervised(run, resume=True):
        pass


def test_changed_data_cannot_resume_a_run(run: Run, tmp_path: Path) -> None:
    with supervised(run):
        pass
    path = tmp_path / "config.toml"
    path.write_text(path.read_text().replace("limit = 300", "limit = 310"))
    changed = Run.from_file(path, run.token)
    with pytest.raises(AgentError, match="the pool differs"), supervised(changed, resume=True):
        pass
