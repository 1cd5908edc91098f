"""Every method on the same split under one protocol: what `auditkit evaluate` runs.

M is trained alone for the methods that read a finished model (passive MINT, gradient MINT and the
attacks of the literature), and once more with each variant of T for those that take part in the
training (Active MINT, keyed membership codes). Split, initial weights, batches and augmentation
are the same for all of them. Thresholds come from C alone, and passive MINT Models are judged on
members that they were not fitted on.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from auditkit.data.pools import Pool
from auditkit.data.source import DataSource
from auditkit.evidence.derivation import Indices
from auditkit.mint.attacks import ATTACKS, AttackInputs
from auditkit.mint.codes import blind_scores, own_code_p_values, own_scores
from auditkit.mint.gradients import GradientConfig, gradient_features
from auditkit.mint.metrics import auc, flagged_rates, roc_points, share
from auditkit.mint.passive import (
    ActivationMaps,
    PassiveConfig,
    fitting_split,
    read_maps,
    read_outcome,
    train_passive,
)
from auditkit.studies.trial import COHORTS, Trial, TrialProgress, peak_bytes, train_trial
from schemas import (
    CohortName,
    FlaggedRate,
    MintConfig,
    RateEstimate,
    SplitSizes,
    TapConfig,
    TrainingConfig,
)
from schemas.base import Count, FiniteFloat, Fraction, Name, Schema

FALSE_POSITIVE_RATES = (0.01, 0.001)
# An own code's rates are provable, so that they need no calibration set.
PROVABLE_RATES = (0.01, 0.001, 1e-6)
# Half of the told members and of E fits the passive MINT Models; the other half is reported.
FITTED_SHARE = 0.5
NONCE_DOMAIN = b"auditkit/study/v1\0"
ALONE = "alone"
SECRET_DOMAIN = b"auditkit/study-secret/v1\0"

Scores = NDArray[np.float64]
Reader = Callable[[CohortName, Indices], NDArray[np.float32] | ActivationMaps]
CohortScores = Mapping[CohortName, Scores]


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
    population: Count = Field(
        default=2_000,
        description="samples of E that attacks compare with, and as many to choose parameters on",
    )
    seeds: tuple[Count, ...] = Field(default=(0,), min_length=1)

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
    source: str
    cohorts: CohortScores
    provable: bool = False


def train_alone(
    settings: ComparisonSettings,
    pool: Pool,
    test: Pool,
    *,
    seed: int,
    on_epoch: Callable[[TrialProgress], None] = lambda _progress: None,
) -> Trial:
    """Train M without any MINT Model.

    Raises:
        MintError: see `train_trial`.
    """
    nonce = settings.nonce(seed)
    return train_trial(settings.alone(), pool, test, settings.sizes, nonce, on_epoch=on_epoch)


def train_variant(
    settings: ComparisonSettings,
    variant: Variant,
    pool: Pool,
    test: Pool,
    *,
    seed: int,
    on_epoch: Callable[[TrialProgress], None] = lambda _progress: None,
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
        on_epoch=on_epoch,
    )


def joint_methods(trial: Trial, variant: Variant) -> Iterator[Scored]:
    """Yield the scores of the methods that take part in the training."""
    answers = {cohort: trial.ask(trial.images(cohort)) for cohort in _present(trial)}
    if trial.codes is None:
        cohorts = {name: _double(found.outputs) for name, found in answers.items()}
        yield Scored(variant.name, variant.title, "DeAlcala et al., 2025", cohorts)
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
    yield Scored(f"{variant.name}-own", f"{variant.title}, own code", "ours", own, provable=True)
    yield Scored(f"{variant.name}-blind", f"{variant.title}, blind", "ours", blind)


def passive_methods(
    trial: Trial, config: PassiveConfig, gradients: GradientConfig | None, seed: int
) -> Iterator[Scored]:
    """Yield the scores of MINT Models that are fitted on the finished M."""
    model, scale = trial.model.audited, trial.normalisation
    taps = trial.model.taps.names
    factors = "DeAlcala et al., Factors Impacting Membership Inference"
    mint = "DeAlcala et al., Is my Data in your AI Model?"
    rows = _FittingRows(trial, seed)

    def maps(cohort: CohortName, rows: Indices) -> ActivationMaps:
        return read_maps(model, taps, trial.images(cohort)[rows], scale)

    def outcome(cohort: CohortName, rows: Indices) -> NDArray[np.float32]:
        return read_outcome(model, trial.images(cohort)[rows], trial.labels(cohort)[rows], scale)

    def gradient(cohort: CohortName, rows: Indices) -> NDArray[np.float32]:
        images, labels = trial.images(cohort)[rows], trial.labels(cohort)[rows]
        return gradient_features(model, images, labels, scale, gradients)

    cnn = config.model_copy(update={"kind": "cnn"})
    yield rows.fit("passive-vanilla", "passive MINT, Vanilla", factors, maps, config)
    yield rows.fit("passive-cnn", "passive MINT, CNN", mint, maps, cnn)
    yield rows.fit("passive-outcome", "passive MINT, model outcome", mint, outcome, config)
    if gradients is not None:
        yield rows.fit("gmint", "gMINT", "Mancera et al., gMINT", gradient, config)


def attack_methods(
    cohorts: Mapping[CohortName, AttackInputs],
) -> Iterator[Scored]:
    """Yield the scores of every attack of the literature that has what it needs."""
    for attack in ATTACKS.values():
        if all(attack.applies_to(inputs) for inputs in cohorts.values()):
            scores = {name: attack.scores(inputs) for name, inputs in cohorts.items()}
            yield Scored(attack.name, attack.title, attack.source, scores)


def measure(
    methods: Iterator[Scored], trial: Trial, audited_model: str, seed: int
) -> Iterator[MethodFigures]:
    """Measure methods one by one, cohort by cohort, as they are scored."""
    logits = trial.ask(trial.images("test")).logits
    accuracy = share(logits.argmax(axis=1) == trial.labels("test"))
    started = time.monotonic()
    for scored in methods:
        yield MethodFigures(
            method=scored.method,
            title=scored.title,
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
        started = time.monotonic()


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
        return Scored(method, title, source, scores)


def _present(trial: Trial) -> list[CohortName]:
    return [cohort for cohort in COHORTS if len(trial.indices(cohort))]


def _double(scores: NDArray[np.float32]) -> Scores:
    return scores.astype(np.float64)
