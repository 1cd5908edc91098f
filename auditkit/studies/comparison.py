"""Every method on the same split under one protocol: what `auditkit evaluate` runs.

M is trained alone for the methods that read a finished model (passive MINT, gradient MINT and the
attacks of the literature), and once more with each variant of T for those that take part in the
training (Active MINT, keyed membership codes). Split, initial weights, batches and augmentation
are the same for all of them. Thresholds come from C alone, and passive MINT Models are judged on
members that they were not fitted on.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from auditkit.data.pools import Pool
from auditkit.data.source import DataSource
from auditkit.evidence.derivation import Indices
from auditkit.mint.attacks import ATTACKS, AttackInputs, loss_scores
from auditkit.mint.calibration import reachable
from auditkit.mint.codes import blind_scores, own_code_p_values, own_scores
from auditkit.mint.gradients import GradientConfig, gradient_features
from auditkit.mint.heads import LEAST_MAP_SIDE
from auditkit.mint.metrics import auc, flagged_rates, roc_points, share
from auditkit.mint.passive import (
    ActivationMaps,
    PassiveConfig,
    fitting_split,
    read_maps,
    read_outcome,
    train_passive,
)
from auditkit.mint.power import FALSE_ALARM_RATE
from auditkit.mint.scores import COHORT_NAMES
from auditkit.studies.references import LACKS_REFERENCES
from auditkit.studies.set_rates import (
    DECLARED_RATE,
    CohortScores,
    Scores,
    SetRates,
    declared_rates,
    undeclared_rates,
)
from auditkit.studies.trial import Trial, peak_bytes, train_trial
from schemas import (
    CohortName,
    FlaggedRate,
    MintConfig,
    RateEstimate,
    SplitSizes,
    TapConfig,
    TrainingConfig,
)
from schemas.base import Count, FiniteFloat, Fraction, Name, Rate, Schema

FALSE_POSITIVE_RATES = (0.01, 0.001)
# An own code's rates are provable, so that they need no calibration set.
PROVABLE_RATES = (0.01, 0.001, 1e-6)
# Half of the told members and of E fits the passive MINT Models; the other half is reported.
FITTED_SHARE = 0.5
NONCE_DOMAIN = b"auditkit/study/v1\0"
ALONE = "alone"
SECRET_DOMAIN = b"auditkit/study-secret/v1\0"

# Scores of M alone that the undeclared-data test is measured with, where they can be had.
UNDECLARED_SCORES = ("loss", "passive-outcome", "difficulty_calibration", "rmia_offline")

Family = Literal["active", "codes", "passive", "attack"]
Reader = Callable[[CohortName, Indices], NDArray[np.float32] | ActivationMaps]


PASSIVE_MINT = "DeAlcala et al., Is my Data in your AI Model?"
OUTCOME = ("passive-outcome", "passive MINT, model outcome", PASSIVE_MINT)


class Variant(Schema):
    """One joint training of M and a MINT Model."""

    name: Name
    title: str
    mint: MintConfig
    taps: TapConfig = TapConfig()
    external_batch_size: Count = 0
    epochs: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="None: as many as M alone"
    )

    @model_validator(mode="after")
    def _has_strangers(self) -> Self:
        if self.mint.evidence == "membership" and self.external_batch_size == 0:
            raise ValueError(
                "a MINT Model that says membership learns it from E; set external_batch_size"
            )
        return self


class ComparisonSettings(Schema):
    """One comparison: data, split, M, and what is trained with it."""

    schema_version: Annotated[int, Field(ge=1, le=1)] = 1
    pool: DataSource
    test: DataSource
    sizes: SplitSizes
    training: TrainingConfig = Field(description="of M alone; its MINT weight is not used")
    variants: tuple[Variant, ...] = ()
    passive: PassiveConfig = PassiveConfig()
    gradients: GradientConfig | None = GradientConfig()
    references: Count = Field(default=0, description="reference models, for attacks that need them")
    population: Annotated[int, Field(ge=1)] = Field(
        default=2_000,
        description="samples of E that attacks compare with, and as many to choose parameters on",
    )
    false_alarm_rate: Rate = Field(
        default=FALSE_ALARM_RATE, description="of the undeclared-data test, for a set of samples"
    )
    seeds: tuple[Count, ...] = Field(default=(0,), min_length=1)

    @model_validator(mode="after")
    def _names_are_different(self) -> Self:
        names = [ALONE, *(variant.name for variant in self.variants)]
        if len(set(names)) < len(names):
            raise ValueError(f"expected variants of different names, none of them {ALONE!r}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("expected different seeds")
        return self

    @model_validator(mode="after")
    def _calibration_reaches_the_rate(self) -> Self:
        if not reachable(self.sizes.calibration, self.false_alarm_rate):
            raise ValueError(
                f"a false-alarm rate of {self.false_alarm_rate:g} needs at least "
                f"{round(1 / self.false_alarm_rate) - 1} calibration samples, found "
                f"{self.sizes.calibration}; enlarge sizes.calibration or false_alarm_rate"
            )
        return self

    def nonce(self, seed: int, training: str = ALONE) -> bytes:
        """Return the nonce that stands for a seed, of the compared trainings or of another one."""
        text = f"{training}/{seed}".encode()
        return hashlib.sha256(NONCE_DOMAIN + text).digest()

    def alone(self) -> TrainingConfig:
        """Return the training of M alone."""
        mint = self.training.mint.model_copy(update={"mint_weight": 0.0})
        return self.training.model_copy(update={"mint": mint, "external_batch_size": 0})

    def joint(self, variant: Variant) -> TrainingConfig:
        """Return the training of M with a variant of T."""
        return self.training.model_copy(
            update={
                "mint": variant.mint,
                "taps": variant.taps,
                "external_batch_size": variant.external_batch_size,
                "epochs": variant.epochs or self.training.epochs,
            }
        )


class CohortFigures(Schema):
    """What one method says about one cohort."""

    cohort: CohortName
    size: Count
    auc: Fraction | None = Field(description="against the fresh test cohort; None for test itself")
    flagged: tuple[FlaggedRate, ...] = Field(description="share called member at each rate")


class MethodFigures(Schema):
    """One method on one seed's split."""

    method: Name
    title: str
    family: Family
    source: str
    audited_model: Name = Field(description="`alone`, or the variant that M was trained with")
    seed: Count
    audited_accuracy: RateEstimate = Field(description="of M on fresh test samples")
    cohorts: tuple[CohortFigures, ...]
    roc: tuple[tuple[Fraction, Fraction], ...] = Field(
        description="(FPR, TPR) of told against fresh test samples"
    )
    training_seconds: FiniteFloat
    scoring_seconds: FiniteFloat
    peak_bytes: Count = Field(description="largest resident size of the process")

    def cohort(self, name: CohortName) -> CohortFigures | None:
        """Return the figures of one cohort, if it has samples."""
        return next((cohort for cohort in self.cohorts if cohort.cohort == name), None)


@dataclass(frozen=True)
class Scored:
    """One method's scores of every cohort; `provable` are own codes, which need no C."""

    method: str
    title: str
    family: Family
    source: str
    cohorts: CohortScores
    provable: bool = False


def train_alone(
    settings: ComparisonSettings,
    pool: Pool,
    test: Pool,
    *,
    seed: int,
) -> Trial:
    """Train M without any MINT Model.

    Raises:
        MintError: see `train_trial`.
    """
    nonce = settings.nonce(seed)
    return train_trial(settings.alone(), pool, test, settings.sizes, nonce)


def train_variant(
    settings: ComparisonSettings,
    variant: Variant,
    pool: Pool,
    test: Pool,
    *,
    seed: int,
) -> Trial:
    """Train M with a variant of T, on the same split as M alone.

    Raises:
        MintError: see `train_trial`.
    """
    nonce = settings.nonce(seed)
    return train_trial(
        settings.joint(variant),
        pool,
        test,
        settings.sizes,
        nonce,
        secret=hashlib.sha256(SECRET_DOMAIN + nonce).digest(),
    )


def joint_methods(trial: Trial, variant: Variant) -> Iterator[Scored]:
    """Yield the scores of the methods that take part in the training."""
    answers = {cohort: trial.ask(trial.images(cohort)) for cohort in _present(trial)}
    if trial.codes is None:
        cohorts = {name: _double(found.outputs) for name, found in answers.items()}
        yield Scored(variant.name, variant.title, "active", "DeAlcala et al., 2025", cohorts)
        return
    members = trial.codes.members
    blind = {
        name: _double(blind_scores(found.outputs, members).scores)
        for name, found in answers.items()
    }
    own = {
        name: _double(own_scores(found.outputs, trial.own_codes(name)))
        for name, found in answers.items()
    }
    name, title = variant.name, variant.title
    yield Scored(f"{name}-own", f"{title}, own code", "codes", "ours", own, provable=True)
    yield Scored(f"{name}-blind", f"{title}, blind", "codes", "ours", blind)


def passive_methods(
    trial: Trial, config: PassiveConfig, gradients: GradientConfig | None, seed: int
) -> Iterator[Scored]:
    """Yield the scores of MINT Models that are fitted on the finished M."""
    model, scale = trial.model.audited, trial.normalisation
    taps = trial.model.taps.names
    factors = "DeAlcala et al., Factors Impacting Membership Inference"
    rows = _FittingRows(trial, seed)

    def maps(cohort: CohortName, rows: Indices) -> ActivationMaps:
        return read_maps(model, taps, trial.images(cohort)[rows], scale)

    def gradient(cohort: CohortName, rows: Indices) -> NDArray[np.float32]:
        images, labels = trial.images(cohort)[rows], trial.labels(cohort)[rows]
        return gradient_features(model, images, labels, scale, gradients)

    cnn = config.model_copy(update={"kind": "cnn"})
    yield rows.fit("passive-vanilla", "passive MINT, Vanilla", factors, maps, config)
    if _are_spatial(trial.model.taps.shapes):
        yield rows.fit("passive-cnn", "passive MINT, CNN", PASSIVE_MINT, maps, cnn)
    yield rows.fit(*OUTCOME, _outcome_reader(trial), config)
    if gradients is not None:
        yield rows.fit("gmint", "gMINT", "Mancera et al., gMINT", gradient, config)


def attack_methods(
    cohorts: Mapping[CohortName, AttackInputs],
) -> Iterator[Scored]:
    """Yield the scores of every attack of the literature that has what it needs."""
    for attack in ATTACKS.values():
        if all(attack.applies_to(inputs) for inputs in cohorts.values()):
            try:
                scores = {name: attack.scores(inputs) for name, inputs in cohorts.items()}
            except LACKS_REFERENCES:
                continue
            yield Scored(attack.name, attack.title, "attack", attack.source, scores)


def measure(
    methods: Iterator[Scored], trial: Trial, audited_model: str, seed: int
) -> Iterator[tuple[Scored, MethodFigures]]:
    """Measure methods one by one, cohort by cohort, as they are scored."""
    logits = trial.ask(trial.images("test")).logits
    accuracy = share(logits.argmax(axis=1) == trial.labels("test"))
    started = time.monotonic()
    for scored in methods:
        figures = MethodFigures(
            method=scored.method,
            title=scored.title,
            family=scored.family,
            source=scored.source,
            audited_model=audited_model,
            seed=seed,
            audited_accuracy=accuracy,
            cohorts=tuple(_cohort_figures(scored, name) for name in scored.cohorts),
            roc=roc_points(scored.cohorts["told"], scored.cohorts["test"]),
            training_seconds=trial.seconds,
            scoring_seconds=time.monotonic() - started,
            peak_bytes=peak_bytes(),
        )
        yield scored, figures
        started = time.monotonic()


def undeclared_scores(trial: Trial, config: PassiveConfig, seed: int) -> Iterator[Scored]:
    """Yield scores of a jointly trained M that need neither T nor references."""
    yield _FittingRows(trial, seed).fit(*OUTCOME, _outcome_reader(trial), config)
    loss = ATTACKS["loss"]
    losses = {
        cohort: loss_scores(trial.ask(trial.images(cohort)).logits, trial.labels(cohort))
        for cohort in _present(trial)
    }
    yield Scored(loss.name, loss.title, "attack", loss.source, losses)


def set_rates(
    scored: Scored, audited_model: str, seed: int, false_alarm_rate: float
) -> Iterator[SetRates]:
    """Yield what sets show by this method, if it is one that judges sets.

    Raises:
        MintError: see `auditkit.studies.set_rates`.
    """
    named = {
        "method": scored.method,
        "title": scored.title,
        "audited_model": audited_model,
        "seed": seed,
    }
    if scored.provable:
        power, alarms = declared_rates(scored.cohorts, DECLARED_RATE, seed)
        about = {"evidence": "declared", "inserted": "told", "rate": DECLARED_RATE}
    elif scored.method in UNDECLARED_SCORES and "silent" in scored.cohorts:
        power, alarms = undeclared_rates(scored.cohorts, false_alarm_rate, seed)
        about = {"evidence": "undeclared", "inserted": "silent", "rate": false_alarm_rate}
    else:
        return
    yield SetRates.model_validate({**named, **about, "power": power, "false_alarms": alarms})


def _cohort_figures(scored: Scored, cohort: CohortName) -> CohortFigures:
    scores = scored.cohorts[cohort]
    return CohortFigures(
        cohort=cohort,
        size=len(scores),
        auc=None if cohort == "test" else auc(scores, scored.cohorts["test"]),
        flagged=_flagged(scored, cohort),
    )


def _flagged(scored: Scored, cohort: CohortName) -> tuple[FlaggedRate, ...]:
    scores = scored.cohorts[cohort]
    if scored.provable:
        p_values = own_code_p_values(scores)
        return tuple(
            FlaggedRate(false_positive_rate=rate, flagged=share(p_values <= rate))
            for rate in PROVABLE_RATES
        )
    if cohort == "calibration":
        return ()
    return flagged_rates(scores, scored.cohorts["calibration"], FALSE_POSITIVE_RATES)


def _outcome_reader(trial: Trial) -> Reader:
    def read(cohort: CohortName, rows: Indices) -> NDArray[np.float32]:
        images, labels = trial.images(cohort)[rows], trial.labels(cohort)[rows]
        return read_outcome(trial.model.audited, images, labels, trial.normalisation)

    return read


class _FittingRows:
    """Which members and which samples of E passive MINT Models are fitted on."""

    def __init__(self, trial: Trial, seed: int) -> None:
        self._trial = trial
        self._seed = seed
        self._members, told = fitting_split(len(trial.split.told), FITTED_SHARE, seed)
        self._others, external = fitting_split(len(trial.split.external), FITTED_SHARE, seed)
        self._judged: dict[CohortName, Indices] = {
            cohort: np.arange(len(trial.indices(cohort))) for cohort in _present(trial)
        }
        self._judged |= {"told": told, "external": external}

    def fit(
        self, method: str, title: str, source: str, read: Reader, config: PassiveConfig
    ) -> Scored:
        """Fit on the features that `read` gives of a cohort's rows, and score the others."""
        scorer = train_passive(
            read("told", self._members), read("external", self._others), config, self._seed
        )
        scores = {
            cohort: _double(scorer.scores(read(cohort, rows)))
            for cohort, rows in self._judged.items()
        }
        return Scored(method, title, "passive", source, scores)


def _are_spatial(shapes: Sequence[tuple[int, ...]]) -> bool:
    """Tell whether convolutions can read all taps: maps, not the tokens of a transformer."""
    return all(len(shape) == 3 and min(shape[1:]) >= LEAST_MAP_SIDE for shape in shapes)


def _present(trial: Trial) -> list[CohortName]:
    return [cohort for cohort in COHORT_NAMES if len(trial.indices(cohort))]


def _double(scores: NDArray[np.float32]) -> Scores:
    return scores.astype(np.float64)
