"""What a batch holds: E in two views where T learns codes, and once where it does not."""

import numpy as np
import torch

from auditkit.mint.objective import MEMBER, NO_CODE, NON_MEMBER
from auditkit.mint.preprocessing import augment, to_inputs
from auditkit.mint.steps import RowCounts, new_batch
from schemas import ModelConfig, Normalisation, OptimiserConfig, TrainingConfig

NORMALISATION = Normalisation(mean=(0.5,), std=(0.25,))
CONFIG = TrainingConfig(
    name="steps",
    model=ModelConfig(architecture="resnet18", classes=3, channels=1, height=8, width=8),
    optimiser=OptimiserConfig(learning_rate=0.1),
    epochs=1,
    batch_size=5,
    external_batch_size=3,
    augmentation="flip_shift",
)
ROWS = RowCounts(told=3, silent=2, told_only=1, external=3)
GENERATOR = np.random.default_rng(8)
IMAGES = GENERATOR.integers(0, 256, (9, 8, 8, 1), dtype=np.uint8)
LABELS = GENERATOR.integers(0, 3, 9)
WORDS = GENERATOR.integers(0, 2**32, 9, dtype=np.uint32)


def test_without_codes_every_row_comes_once() -> None:
    batch = new_batch(IMAGES, LABELS, ROWS, words=WORDS, config=CONFIG, normalisation=NORMALISATION)
    assert batch.rows == ROWS
    assert batch.own_codes is None
    assert torch.equal(
        batch.inputs, augment(to_inputs(IMAGES, NORMALISATION), WORDS, "flip_shift", 2)
    )
    assert batch.membership.tolist() == [MEMBER] * 4 + [NON_MEMBER] * 3
    assert batch.labels.tolist() == LABELS[:5].tolist()
    assert (batch.hidden.start, batch.hidden.stop) == (3, 5)


def test_with_codes_samples_of_e_come_in_a_second_view() -> None:
    own = np.array([4, 5, 6, 7, NO_CODE, NO_CODE, NO_CODE])
    words = WORDS.copy()
    batch = new_batch(
        IMAGES,
        LABELS,
        ROWS,
        words=words,
        config=CONFIG,
        normalisation=NORMALISATION,
        own_codes=own,
    )
    once = augment(to_inputs(IMAGES, NORMALISATION), WORDS, "flip_shift", 2)
    again = augment(to_inputs(IMAGES[6:], NORMALISATION), ~WORDS[6:], "flip_shift", 2)
    assert torch.equal(batch.inputs, torch.cat((once, again)))
    assert batch.rows == RowCounts(told=3, silent=2, told_only=1, external=6)
    assert batch.membership.tolist() == [MEMBER] * 4 + [NON_MEMBER] * 6
    assert batch.own_codes is not None
    assert batch.own_codes.tolist() == [4, 5, 6, 7] + [NO_CODE] * 6
    assert np.array_equal(words, WORDS)  # the caller's words are left as they were


def test_with_codes_and_without_e_nothing_is_added() -> None:
    rows = RowCounts(told=3, silent=2, told_only=1, external=0)
    batch = new_batch(
        IMAGES[:6],
        LABELS[:6],
        rows,
        words=WORDS[:6],
        config=CONFIG,
        normalisation=NORMALISATION,
        own_codes=np.arange(4),
    )
    assert batch.rows == rows
    assert len(batch.inputs) == 6
