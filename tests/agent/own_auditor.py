"""A real auditor's server in a process of its own, with one order, and runs under that order."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from auditor_server.context import Auditor
from auditor_server.home import Home, create_home
from auditor_server.orders import add_order
from auditor_server.settings import ServerSettings
from schemas import AuditOrder
from tests.agent.real_server import serving
from tests.server.hand_built import sign_order

DEVELOPER = "Example Lab"
ORDER = "own"
CONFIG = """
developer = "Example Lab"
output = "run"
[server]
url = "{url}"
order = "own"
trust_root = "{trust_root}"
[pool]
kind = "digits"
selection = {{ limit = 300 }}
[test]
kind = "digits"
selection = {{ skip = 1600 }}
[training]
name = "own"
epochs = {epochs}
batch_size = 40
external_batch_size = 40
state_interval_steps = 2
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


@dataclass(frozen=True)
class OwnAuditor:
    home: Home
    url: str

    @property
    def token(self) -> str:
        return self.home.tokens["developer"]

    @property
    def trust_root(self) -> Path:
        return self.home.path / "trust-root.json"

    def config(self, folder: Path, epochs: int = 8) -> Path:
        """A configuration in this folder, for a run under the order."""
        path = folder / "config.toml"
        path.write_text(CONFIG.format(url=self.url, trust_root=self.trust_root, epochs=epochs))
        return path


@contextmanager
def own_auditor(folder: Path, **order: Any) -> Iterator[OwnAuditor]:
    now = datetime.now(UTC)
    home = create_home(folder / "auditor", "Test Authority", "audit.test", now)
    document = AuditOrder.from_bytes(
        json.dumps(
            {
                "order_id": ORDER,
                "auditor": "Test Authority",
                "developer": DEVELOPER,
                "purpose": "Tests.",
                "issued_at": now.isoformat(),
                "expires_at": now.replace(year=now.year + 1).isoformat(),
                "split": {"external": 0.4, "calibration": 0.35, "silent": 0.05},
                **order,
            }
        )
    )
    add_order(Auditor.open(ServerSettings(home=home.path)), sign_order(home, document).to_bytes())
    with serving(home) as url:
        yield OwnAuditor(home, url)


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
