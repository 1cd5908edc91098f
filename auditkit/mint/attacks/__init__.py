"""Membership inference attacks of the literature, as functions of logits, labels and references.

One module per paper. Every score is higher for a likely member, float64 of shape (N,); thresholds
belong to `auditkit.mint.calibration`, on samples that are not tested.
"""

from auditkit.mint.attacks.carlini import Variance, lira_offline_scores, lira_online_scores
from auditkit.mint.attacks.errors import (
    AttackError,
    AttackParameterError,
    AttackShapeError,
    EmptySamplesError,
    IdenticalReferencesError,
    LabelRangeError,
    MissingInputError,
    MissingReferenceError,
    NonFiniteLogitsError,
    TooFewReferencesError,
)
from auditkit.mint.attacks.gap import correctness_scores, gap_scores
from auditkit.mint.attacks.registry import ATTACKS, Attack, AttackInputs
from auditkit.mint.attacks.salem import confidence_scores
from auditkit.mint.attacks.song import modified_entropy_scores
from auditkit.mint.attacks.watson import calibrated_loss_scores
from auditkit.mint.attacks.ye import population_scores, reference_scores
from auditkit.mint.attacks.yeom import loss_scores, scores_of_losses
from auditkit.mint.attacks.zarifzadeh import (
    choose_rmia_a,
    rmia_offline_scores,
    rmia_online_scores,
)

__all__ = [
    "ATTACKS",
    "Attack",
    "AttackError",
    "AttackInputs",
    "AttackParameterError",
    "AttackShapeError",
    "EmptySamplesError",
    "IdenticalReferencesError",
    "LabelRangeError",
    "MissingInputError",
    "MissingReferenceError",
    "NonFiniteLogitsError",
    "TooFewReferencesError",
    "Variance",
    "calibrated_loss_scores",
    "choose_rmia_a",
    "confidence_scores",
    "correctness_scores",
    "gap_scores",
    "lira_offline_scores",
    "lira_online_scores",
    "loss_scores",
    "modified_entropy_scores",
    "population_scores",
    "reference_scores",
    "rmia_offline_scores",
    "rmia_online_scores",
    "scores_of_losses",
]
