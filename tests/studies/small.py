"""Trainings that take less than a second."""

import hashlib

from auditkit.data.pools import Pool
from auditkit.studies.comparison import ComparisonSettings, Variant
from schemas import MintConfig, ModelConfig, OptimiserConfig, SplitSizes, TrainingConfig
from tests.studies.conftest import digits_parts

SIZES = SplitSizes(told=60, silent=12, told_only=12, external=100, calibration=120)
NONCE = hashlib.sha256(b"a small training").digest()
FRESH = 80
CODES = MintConfig(evidence="codes", code_length=64, head="fully_connected", hidden=(32,))
MEMBERSHIP = MintConfig(head="fully_connected", hidden=(16,))
ALONE = MintConfig(head="fully_connected", hidden=(16,), mint_weight=0.0)


def parts() -> tuple[Pool, Pool]:
    """A pool of as many digits as the cohorts need, and fresh ones."""
    pool, test = digits_parts()
    return first(pool, SIZES.pool), first(test, FRESH)


def first(pool: Pool, count: int) -> Pool:
    return Pool(pool.images[:count], pool.labels[:count], pool.class_names)


def config(mint: MintConfig = MEMBERSHIP, external: int = 16, epochs: int = 2) -> TrainingConfig:
    return TrainingConfig(
        name="small",
        model=ModelConfig(
            architecture="resnet18",
            arguments={"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)},
            classes=10,
            channels=1,
            height=8,
            width=8,
            stem_stride=1,
            stem_pool=False,
        ),
        mint=mint,
        optimiser=OptimiserConfig(name="adam", learning_rate=0.003),
        epochs=epochs,
        batch_size=24,
        external_batch_size=external,
        augmentation="shift",
        threads=1,
    )


def settings(**changes: object) -> ComparisonSettings:
    """A comparison of Active MINT, codes and everything that reads a finished M."""
    whole: dict[str, object] = {
        "pool": {"kind": "digits", "selection": {"limit": SIZES.pool}},
        "test": {"kind": "digits", "selection": {"skip": SIZES.pool, "limit": FRESH}},
        "sizes": SIZES,
        "training": config(ALONE, external=0),
        "variants": (
            Variant(name="active", title="Active MINT", mint=MEMBERSHIP, external_batch_size=16),
            Variant(name="codes", title="keyed codes", mint=CODES),
        ),
        "population": 15,
        "false_alarm_rate": 0.01,
    }
    return ComparisonSettings.model_validate(whole | changes)
