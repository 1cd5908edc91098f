"""A model and a training loop of one's own, under supervision.

`auditkit train examples/own_loop/digits.toml --no-container` imports this file and calls `train`.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from auditkit.evidence.derivation import initialisation_seed
from developer_agent.supervised_run import SupervisedRun
from schemas import CohortMetrics, CohortName

LARGEST_GRADIENT = 5.0  # norm; what one's own loop does more than the built-in one


class SmallNet(nn.Module):
    """A classifier of 8 x 8 digits. T reads `edges` and `shapes`, which digits.toml names."""

    def __init__(self) -> None:
        super().__init__()
        self.edges = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU())
        self.shapes = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU())
        self.classify = nn.Linear(32 * 4 * 4, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 1, 8, 8) to logits (B, 10)."""
        logits: Tensor = self.classify(self.shapes(self.edges(images)).flatten(1))
        return logits


def train(run: SupervisedRun) -> Mapping[CohortName, CohortMetrics]:
    """Train until the schedule ends, or on from the last saved state, and seal the run."""
    supervision = run.supervision
    enhanced = supervision.enhance(initial_model(initialisation_seed(run.session.nonce)))
    optimiser = supervision.optimiser()
    for batch in supervision.batches():
        losses = supervision.losses(batch)
        optimiser.zero_grad()
        losses.total.backward()
        nn.utils.clip_grad_norm_(enhanced.parameters(), LARGEST_GRADIENT)
        optimiser.step()
        supervision.step(batch, losses)
    return supervision.seal()


def initial_model(seed: int) -> SmallNet:
    """Everything random must follow from the auditor's nonce, the first weights as well."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SmallNet()
