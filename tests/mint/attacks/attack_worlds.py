"""Logits of models that did, or did not, remember their training samples."""

from dataclasses import dataclass

import numpy as np

from auditkit.mint.attacks import AttackInputs

CLASSES = 6


@dataclass(frozen=True)
class World:
    """Members come first and others after them, in equal numbers."""

    inputs: AttackInputs
    members: int


def model_logits(
    generator: np.random.Generator, labels: np.ndarray, easiness: np.ndarray, boost: np.ndarray
) -> np.ndarray:
    logits = generator.normal(size=(len(labels), CLASSES))
    logits[np.arange(len(labels)), labels] += easiness + boost
    return logits.astype(np.float32)


def draw_world(
    seed: int, memory: float, pairs: int = 150, references: int = 8, population: int = 200
) -> World:
    """M and every reference add `memory` to the true logit of the samples they trained on."""
    generator = np.random.default_rng(seed)
    count = 2 * pairs
    labels = generator.integers(0, CLASSES, count)
    easiness = generator.normal(1.0, 1.5, count)
    table = generator.permuted(
        np.tile(np.arange(references) < references // 2, (count, 1)), axis=1
    ).T
    outside = generator.integers(0, CLASSES, population)
    outside_easiness = generator.normal(1.0, 1.5, population)
    nothing = np.zeros(population)
    return World(
        AttackInputs(
            logits=model_logits(generator, labels, easiness, memory * (np.arange(count) < pairs)),
            labels=labels,
            reference_logits=np.stack(
                [model_logits(generator, labels, easiness, memory * row) for row in table]
            ),
            reference_members=table,
            population_logits=model_logits(generator, outside, outside_easiness, nothing),
            population_labels=outside,
            population_reference_logits=np.stack(
                [
                    model_logits(generator, outside, outside_easiness, nothing)
                    for _ in range(references)
                ]
            ),
            a=0.5,
        ),
        pairs,
    )
