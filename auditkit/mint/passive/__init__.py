"""Passive MINT: telling members from non-members of a trained M that nobody prepared for it.

A MINT Model is fitted on the activation maps, the outcome or the gradients of some members and
some non-members, and then scores others. So declared members must be parted first
(`fitting_split`): a scorer says nothing about the samples it was fitted on.
"""

from auditkit.mint.passive.features import outcome_features
from auditkit.mint.passive.maps import ActivationMaps, read_maps, read_outcome
from auditkit.mint.passive.scorer import (
    PassiveConfig,
    PassiveScorer,
    fitting_split,
    train_passive,
)

__all__ = [
    "ActivationMaps",
    "PassiveConfig",
    "PassiveScorer",
    "fitting_split",
    "outcome_features",
    "read_maps",
    "read_outcome",
    "train_passive",
]
