"""A developer's own model and loop under supervision: the example of the developer's guide."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from torch import nn

from auditkit.evidence import dsse, statements
from auditor_server.context import Auditor
from auditor_server.home import create_home
from auditor_server.orders import add_order
from auditor_server.settings import ServerSettings
from developer_agent.errors import AgentError
from developer_agent.supervised_run import Run, RunOutcome, supervised
from developer_agent.supervision import SupervisionOrderError
from schemas import AuditOrder

CONFIG = """
developer = "Example Lab"
output = "run"
[server]
url = "{url}"
order = "own"
trust_root = "auditor/trust-root.json"
[pool]
kind = "digits"
selection = {{ limit = 300 }}
[test]
kind = "digits"
selection = {{ skip = 1600 }}
[training]
name = "own"
epochs = 3
batch_size = 40
external_batch_size = 40
threads = 1
[training.model]
architecture = "custom:small"
classes = 10
channels = 1
height = 8
width = 8
[training.taps]
setup = "named"
modules = ["first", "second"]
[training.mint]
head = "fully_connected"
hidden = [32]
[training.optimiser]
name = "adam"
learning_rate = 0.01
"""


class Small(nn.Module):
    """A model that timm does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU())
        self.classify = nn.Linear(8 * 4 * 4, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classify(self.second(self.first(images)).flatten(1))


def small(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Small()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """A real server with an order, and a run that is configured for it."""
    now = datetime.now(UTC)
    home = create_home(tmp_path / "auditor", "Test Authority", "audit.test", now)
    order = AuditOrder.from_bytes(
        json.dumps(
            {
                "order_id": "own",
                "auditor": "Test Authority",
                "developer": "Example Lab",
                "purpose": "Tests.",
                "issued_at": now.isoformat(),
                "expires_at": now.replace(year=now.year + 1).isoformat(),
                "split": {"external": 0.4, "calibration": 0.35, "silent": 0.05},
                "allow_without_container": True,
            }
        )
    )
    payload = statements.make(
        statements.ORDER_PREDICATE, order, statements.subject("order", order.order_id, order)
    )
    envelope = dsse.sign(payload, [home.signing_key("order")]).to_bytes()
    add_order(Auditor.open(ServerSettings(home=home.path)), envelope)
    server = subprocess.Popen(
        [sys.executable, "-m", "auditor_server", "--home", str(home.path), "--port", "0"],
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    address = json.loads(server.stdout.readline())
    path = tmp_path / "config.toml"
    path.write_text(CONFIG.format(url=f"http://{address['host']}:{address['port']}"))
    yield Run.from_file(path, home.tokens["developer"])
    server.terminate()
    server.wait()


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
