"""Small models and cohorts that the tests of the science share."""

import numpy as np

from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.scores import CohortScores
from schemas import MintConfig, ModelConfig, TapConfig

NARROW = {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)}


def model_config(architecture: str = "resnet18", side: int = 32, **changes: object) -> ModelConfig:
    options: dict[str, object] = {
        "architecture": architecture,
        "arguments": NARROW if architecture == "resnet18" else {},
        "classes": 4,
        "channels": 3,
        "height": side,
        "width": side,
    }
    return ModelConfig.model_validate(options | changes)


def build(
    model: ModelConfig | None = None,
    taps: TapConfig | None = None,
    mint: MintConfig | None = None,
    seed: int = 7,
) -> EnhancedAuditedModel:
    parts = (
        model or model_config(),
        taps or TapConfig(),
        mint or MintConfig(head="fully_connected", hidden=(8,)),
    )
    return EnhancedAuditedModel.build(parts, seed)


def cohort(scores: np.ndarray, correct: np.ndarray | None = None) -> CohortScores:
    scores = np.asarray(scores, dtype=np.float32)
    return CohortScores(
        scores=scores,
        task_losses=np.exp(-scores).astype(np.float32),
        correct=np.ones(len(scores), np.bool_) if correct is None else correct,
    )
