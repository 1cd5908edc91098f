"""A trial of the laboratory is a supervised training without the supervision."""

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch

from auditkit.data.manifest import Manifest
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.derivation import Schedule, derive_split
from auditkit.evidence.membership_codes import SessionCodes
from auditkit.mint.codes import own_code_p_values, own_scores
from auditkit.mint.errors import NonFiniteLossError
from auditkit.studies.early_stopping import StoppingRule
from auditkit.studies.trial import Trial, TrialProgress, train_trial
from developer_agent.run_folder import RunFolder
from developer_agent.session import Session
from developer_agent.spool import Spool
from developer_agent.supervision import Supervision
from schemas import AuditOrder, SessionGrant, SessionRequest, TrainingConfig, TrustRoot
from schemas.base import Schema
from tests.schemas.example_documents import DOCUMENTS
from tests.studies.conftest import SECRET
from tests.studies.small import ALONE, CODES, MEMBERSHIP, NONCE, SIZES, config, parts

S = TypeVar("S", bound=Schema)


def trial(training: TrainingConfig, **options: object) -> Trial:
    pool, test = parts()
    options = {"secret": SECRET, **options}
    return train_trial(training, pool, test, SIZES, NONCE, **options)  # type: ignore[arg-type]


def weights_digest(found: Trial) -> str:
    return sha256_hex(found.model.weights())


def supervised(training: TrainingConfig, folder: Path) -> str:
    """What the supervision loop makes of the same nonce, configuration and codes."""
    pool, test = parts()
    split = derive_split(NONCE, SIZES)
    manifest = Manifest(pool, NONCE)
    session = Session(
        folder=RunFolder.create(folder),
        trust_root=example(TrustRoot),
        order=example(AuditOrder),
        request=example(SessionRequest).model_copy(update={"config": training}),
        grant=example(SessionGrant).model_copy(update={"nonce": NONCE.hex(), "split": SIZES}),
        grant_digest="0" * 64,
        key=None,
        pool=pool,
        test=test,
        manifest=manifest,
    )
    length = training.mint.code_length
    codes = SessionCodes.derive(SECRET, manifest.leaves, split, length)
    with Spool.open(session.folder.spool_path) as spool:
        supervision = Supervision(session, spool, fetch_codes=lambda: codes)
        model = supervision.enhance()
        optimiser = supervision.optimiser()
        for batch in supervision.batches():
            losses = supervision.losses(batch)
            optimiser.zero_grad(set_to_none=True)
            losses.total.backward()
            optimiser.step()
            supervision.step(batch, losses)
    return sha256_hex(model.weights())


def example(kind: type[S]) -> S:
    return next(document for document in DOCUMENTS if isinstance(document, kind))


@pytest.mark.parametrize("mint", [MEMBERSHIP, CODES], ids=["membership", "codes"])
def test_a_trial_gives_the_weights_of_a_supervised_run(mint: object, tmp_path: Path) -> None:
    training = config(mint, external=16 if mint is MEMBERSHIP else 0)  # type: ignore[arg-type]
    assert weights_digest(trial(training)) == supervised(training, tmp_path / "run")


def test_everything_random_follows_from_the_nonce() -> None:
    torch.manual_seed(1)
    first = trial(config())
    torch.manual_seed(2)
    again = trial(config())
    pool, test = parts()
    other = train_trial(config(), pool, test, SIZES, bytes(32))
    assert weights_digest(first) == weights_digest(again) != weights_digest(other)
    np.testing.assert_array_equal(first.indices("silent"), again.indices("silent"))


def test_without_a_mint_weight_m_does_not_depend_on_t_or_e() -> None:
    lonely, beside = trial(config(ALONE, external=0)), trial(config(ALONE, external=16))
    images = lonely.images("test")
    np.testing.assert_array_equal(lonely.ask(images).logits, beside.ask(images).logits)


def test_told_and_told_only_samples_say_their_own_code_and_nobody_else_does(
    codes_trial: Trial,
) -> None:
    found = {
        cohort: own_code_p_values(
            own_scores(
                codes_trial.ask(codes_trial.images(cohort)).outputs, codes_trial.own_codes(cohort)
            )
        )
        for cohort in ("told", "told_only", "silent", "external", "calibration", "test")
    }
    assert (found["told"] <= 1e-6).mean() > 0.95
    assert (found["told_only"] <= 1e-6).mean() > 0.9
    for stranger in ("silent", "external", "calibration", "test"):
        assert (found[stranger] > 1e-6).all()
        # exp(-z^2 / 2) is a bound: half of the strangers agree by less than nothing
        assert (found[stranger] == 1.0).mean() > 0.3


def test_the_scores_of_a_trial_are_those_that_a_session_would_seal(codes_trial: Trial) -> None:
    scores = codes_trial.scores()
    assert set(scores) == {"told", "silent", "told_only", "external", "calibration", "test"}
    for cohort, found in scores.items():
        assert found.size == len(codes_trial.indices(cohort))


def test_a_stopping_rule_ends_the_training_early() -> None:
    seen: list[TrialProgress] = []
    # An improvement by 100 never happens: the second epoch is one too many.
    found = trial(
        config(epochs=6),
        stopping=StoppingRule(patience=1, least_improvement=100.0),
        on_epoch=seen.append,
    )
    assert found.epochs == 2
    assert [progress.epoch for progress in seen] == [1, 2]


def test_steps_other_than_the_schedules_are_trained_as_they_are() -> None:
    training = config(ALONE, external=0)
    split = derive_split(NONCE, SIZES)
    schedule = Schedule(NONCE, split, training.batch_size, 0, training.epochs)
    whole = trial(training)
    same = trial(training, plans=list(schedule.steps()))
    assert weights_digest(whole) == weights_digest(same)
    steps = list(schedule.steps())
    half = trial(training, plans=steps[: len(steps) // 2])
    assert half.epochs == training.epochs // 2
    assert weights_digest(half) != weights_digest(whole)


def test_another_split_moves_the_cohorts() -> None:
    split = derive_split(NONCE, SIZES)
    swapped = replace(split, silent=split.told_only, told_only=split.silent)
    found = trial(config(epochs=1), split=swapped)
    np.testing.assert_array_equal(found.indices("silent"), split.told_only)
    np.testing.assert_array_equal(found.images("silent"), parts()[0].images[split.told_only])


def test_a_training_that_diverges_is_told_at_once() -> None:
    training = config(epochs=1)
    hot = training.optimiser.model_copy(update={"name": "sgd", "learning_rate": 1e30})
    with pytest.raises(NonFiniteLossError):
        trial(training.model_copy(update={"optimiser": hot}))
