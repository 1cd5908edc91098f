"""A tiny model that has learnt its noise by heart, and noise that it has never seen."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from auditkit.mint.models import build_audited_model
from auditkit.mint.preprocessing import normalisation_of, to_inputs
from schemas import Normalisation
from tests.mint.builders import model_config

SIDE = 16
CLASSES = 4
SAMPLES = 160
STEPS = 45
BATCH = 64


@dataclass(frozen=True)
class Memorised:
    model: nn.Module
    members: np.ndarray
    member_labels: np.ndarray
    others: np.ndarray
    other_labels: np.ndarray
    normalisation: Normalisation


@cache
def memorised() -> Memorised:
    """Labels are random, so that all M can do is to remember."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (2 * SAMPLES, SIDE, SIDE, 3), dtype=np.uint8)
    labels = generator.integers(0, CLASSES, 2 * SAMPLES)
    normalisation = normalisation_of(images)
    model = build_audited_model(
        model_config(side=SIDE, classes=CLASSES, stem_stride=1, stem_pool=False), 3
    )
    inputs = to_inputs(images[:SAMPLES], normalisation)
    targets = torch.from_numpy(labels[:SAMPLES])
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    order = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        rows = torch.randperm(SAMPLES, generator=order)[:BATCH]
        loss = functional.cross_entropy(model(inputs[rows]), targets[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return Memorised(
        model=model,
        members=images[:SAMPLES],
        member_labels=labels[:SAMPLES],
        others=images[SAMPLES:],
        other_labels=labels[SAMPLES:],
        normalisation=normalisation,
    )
