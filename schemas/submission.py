"""The Enhanced Audited Model as it is handed over: safetensors weights and this description."""

from typing import Literal

from schemas.base import Count, FiniteFloat, Name, Schema, Sha256
from schemas.training import MintConfig, ModelConfig, TapConfig


class Normalisation(Schema):
    """Pixel scaling: `x = (pixel / 255 - mean) / std`, per channel."""

    mean: tuple[FiniteFloat, ...]
    std: tuple[FiniteFloat, ...]


class ModelDescription(Schema):
    """Everything needed to rebuild M+ = M and T from the weights file, and nothing executable."""

    schema_version: Literal[1] = 1
    session_id: Name
    model: ModelConfig
    taps: TapConfig
    mint: MintConfig
    normalisation: Normalisation
    class_names: tuple[str, ...]
    weights_digest: Sha256
    parameters: Count
