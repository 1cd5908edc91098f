"""Is the evidence still there after the model was changed?

M is fine-tuned, pruned, quantised or distilled as an owner might, while the auditor keeps T. Two
rows are controls: a student that was distilled afresh shares no weights with M, and T on an M that
never met it shows what T remembers by itself. Thresholds of blind queries come from C on the
changed model, as they do when an auditor is given that model.
"""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from auditkit.mint.metrics import share
from auditkit.studies.code_rates import (
    BlindRate,
    blind_query,
    blind_rates,
    calibration_scores,
    drawn,
    taught_codes,
    told_own_code_rates,
)
from auditkit.studies.model_changes import (
    distilled,
    fine_tuned,
    pruned,
    quantised,
    trained_alone,
    transplanted,
)
from auditkit.studies.trial import Trial
from schemas import FlaggedRate, RateEstimate
from schemas.base import Rate, Schema

Positive = Annotated[int, Field(ge=1)]

UNCHANGED = "as trained"
DISTILLED = "distilled into a fresh M"
TRANSPLANTED = "T on an M trained without T"


class PersistenceSettings(Schema):
    """How far M is changed."""

    fine_tuning_epochs: Positive = 5
    fine_tuning_rate: Rate = Field(default=0.1, description="share of the training's own rate")
    pruned: tuple[Rate, ...] = Field(default=(0.3, 0.5), description="shares of M's weights")
    quantised: tuple[Annotated[int, Field(ge=2, le=16)], ...] = Field(
        default=(8, 4), description="bits of each of M's weights"
    )
    distillation_epochs: Positive | None = Field(
        default=None, description="None: as many as the training had"
    )


class ChangedModel(Schema):
    """What is found in M+ after one change."""

    change: str
    accuracy: RateEstimate = Field(description="of M on fresh images")
    own_code: tuple[FlaggedRate, ...] = Field(description="told samples, at provable rates")
    blind: tuple[BlindRate, ...] = Field(description="told samples, unaltered")


class Persistence(Schema):
    """Every change, the model as trained first."""

    rows: tuple[ChangedModel, ...]


def persistence(
    trial: Trial,
    settings: PersistenceSettings | None = None,
    *,
    alone: Trial | None = None,
) -> Persistence:
    """Change M in every way and look for the members' codes again.

    Fine-tuning on new data is left out where there is no E.

    Args:
        trial: one whose T says codes.
        settings: how far M is changed.
        alone: M of the same nonce trained without T, where there is one already.

    Raises:
        NoCodesError: T says no codes.
        CustomModelError: the architecture is the developer's own module.
        NonFiniteScoreError: a change has made M diverge.
    """
    taught_codes(trial)
    changes = _changes(trial, settings or PersistenceSettings(), alone)
    return Persistence(rows=tuple(_measured(name, changed) for name, changed in changes))


def _changes(
    trial: Trial, settings: PersistenceSettings, alone: Trial | None
) -> Iterator[tuple[str, Trial]]:
    """Yield one changed trial after the other, so that only one is in memory."""
    epochs, rate = settings.fine_tuning_epochs, settings.fine_tuning_rate
    yield UNCHANGED, trial
    yield "fine-tuned on D", fine_tuned(trial, trial.split.trained, epochs, rate)
    if len(trial.split.external):
        yield "fine-tuned on new data", fine_tuned(trial, trial.split.external, epochs, rate)
    for part in settings.pruned:
        yield f"pruned by {part:.0%}", pruned(trial, part)
    for bits in settings.quantised:
        yield f"weights of {bits} bits", quantised(trial, bits)
    yield DISTILLED, distilled(trial, settings.distillation_epochs or trial.config.epochs)
    yield TRANSPLANTED, transplanted(trial, alone or trained_alone(trial))


def _measured(name: str, trial: Trial) -> ChangedModel:
    told = trial.images("told")
    correct = trial.ask(trial.images("test")).logits.argmax(axis=1) == trial.labels("test")
    return ChangedModel(
        change=name,
        accuracy=share(correct),
        own_code=told_own_code_rates(trial),
        blind=blind_rates(
            blind_query(trial, told), drawn(len(told), None, 0), calibration_scores(trial)
        ),
    )
