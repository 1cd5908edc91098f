"""Gradient MINT: members are told from non-members by the gradients that they would train M with.

The gradient of one sample's loss is what it would change in M's weights: the weight modifier of
gMINT (Mancera et al., "Is My Text in Your AI Model?"). `gradient_features` turns it into a vector
of fixed length, on which `auditkit.mint.passive.train_passive` fits a MINT Model.
"""

from auditkit.mint.gradients.features import GradientConfig, gradient_features
from auditkit.mint.gradients.memory import GradientMemory, gradient_memory
from auditkit.mint.gradients.per_sample import (
    gradient_layers,
    per_sample_gradients,
    visit_gradients,
)
from auditkit.mint.gradients.projection import Projection

__all__ = [
    "GradientConfig",
    "GradientMemory",
    "Projection",
    "gradient_features",
    "gradient_layers",
    "gradient_memory",
    "per_sample_gradients",
    "visit_gradients",
]
