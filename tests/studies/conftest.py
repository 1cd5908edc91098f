"""One small trial whose T says codes, trained once for all tests that measure it."""

import hashlib

import numpy as np
import pytest

from auditkit.data.pools import Pool, digits
from auditkit.studies.trial import Trial, train_trial
from schemas import MintConfig, ModelConfig, OptimiserConfig, SplitSizes, TrainingConfig

SIZES = SplitSizes(told=100, silent=20, told_only=20, external=60, calibration=999)
NONCE = hashlib.sha256(b"a trial of the tests").digest()
SECRET = hashlib.sha256(b"known to the tests alone").digest()


def digits_parts() -> tuple[Pool, Pool]:
    whole = digits()
    order = np.random.default_rng(0).permutation(whole.size)
    pool, test = np.split(order, [SIZES.pool])
    return (
        Pool(whole.images[pool], whole.labels[pool], whole.class_names),
        Pool(whole.images[test], whole.labels[test], whole.class_names),
    )


def codes_config(**mint: object) -> TrainingConfig:
    options: dict[str, object] = {
        "evidence": "codes",
        "head": "fully_connected",
        "hidden": (256,),
        "code_length": 256,
    }
    return TrainingConfig(
        name="digits-codes",
        model=ModelConfig(
            architecture="resnet18",
            arguments={"layers": (1, 1, 1, 1), "channels": (16, 16, 32, 32)},
            classes=10,
            channels=1,
            height=8,
            width=8,
            stem_stride=1,
            stem_pool=False,
        ),
        mint=MintConfig.model_validate(options | mint),
        optimiser=OptimiserConfig(name="adam", learning_rate=0.003),
        epochs=30,
        batch_size=24,
        external_batch_size=0,
        threads=1,
    )


@pytest.fixture(scope="session")
def codes_trial() -> Trial:
    pool, test = digits_parts()
    return train_trial(codes_config(), pool, test, SIZES, NONCE, secret=SECRET)
