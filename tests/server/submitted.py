"""A small Enhanced Audited Model, sealed and submitted as an honest agent does it."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import requests
import torch
from hand_built import HandBuiltAgent
from numpy.typing import NDArray
from PIL import Image

from auditkit.evidence import canonical
from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.preprocessing import to_inputs
from auditkit.mint.scores import CohortScores, write_scores
from schemas import MintConfig, ModelConfig, ModelDescription, Normalisation, TapConfig

SIDE = 32
MODEL = ModelConfig(architecture="test_resnet", classes=10, channels=3, height=SIDE, width=SIDE)
TAPS = TapConfig(setup="middle")
MINT = MintConfig(channels=4, hidden=(8,))
NORMALISATION = Normalisation(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
CALIBRATION_SIZE = 16


def noise_image(seed: int, side: int = SIDE) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@dataclass(frozen=True)
class Submission:
    weights: bytes
    description: bytes
    scores: bytes

    def files(self, **changes: bytes) -> dict[str, Any]:
        parts = {
            "weights": self.weights,
            "description": self.description,
            "scores": self.scores,
            **changes,
        }
        return {name: (name, data, "application/octet-stream") for name, data in parts.items()}

    def seal(self, agent: HandBuiltAgent) -> None:
        agent.log_grant()
        agent.log_seal(
            *(canonical.sha256_hex(d) for d in (self.weights, self.description, self.scores))
        )
        agent.sent(agent.flush(0))

    def send(self, agent: HandBuiltAgent, **changes: bytes) -> requests.Response:
        return agent.client.put(f"{agent.path}/submission", files=self.files(**changes))


def make_model() -> EnhancedAuditedModel:
    return EnhancedAuditedModel.build((MODEL, TAPS, MINT), 7).eval()


def score(model: EnhancedAuditedModel, pixels: NDArray[np.uint8]) -> float:
    with torch.inference_mode():
        return float(model(to_inputs(pixels[None], NORMALISATION))[1])


def make_submission(
    session_id: str, calibration: NDArray[np.float32], model: ModelConfig = MODEL
) -> Submission:
    weights = make_model().weights()
    description = ModelDescription(
        session_id=session_id,
        model=model,
        taps=TAPS,
        mint=MINT,
        normalisation=NORMALISATION,
        class_names=tuple("0123456789"),
        weights_digest=canonical.sha256_hex(weights),
        parameters=1,
    )
    cohort = CohortScores(
        calibration, np.zeros_like(calibration), np.ones(len(calibration), dtype=np.bool_)
    )
    return Submission(
        weights, canonical.to_bytes(description), write_scores({"calibration": cohort})
    )


def flat_calibration(value: float, size: int = CALIBRATION_SIZE) -> NDArray[np.float32]:
    return np.full(size, value, dtype=np.float32)
