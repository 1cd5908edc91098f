"""The Enhanced Audited Model as it is handed over: safetensors weights and this description."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.base import Count, FiniteFloat, Name, Schema, Sha256
from schemas.training import MintConfig, ModelConfig, TapConfig


class Normalisation(Schema):
    """Pixel scaling: `x = (pixel / 255 - mean) / std`, per channel."""

    mean: tuple[FiniteFloat, ...]
    std: tuple[Annotated[FiniteFloat, Field(gt=0.0)], ...]

    @model_validator(mode="after")
    def _has_one_pair_per_channel(self) -> "Normalisation":
        if len(self.mean) != len(self.std):
            raise ValueError("`mean` and `std` have one number per channel each")
        return self


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
