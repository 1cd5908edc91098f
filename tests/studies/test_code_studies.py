"""What the laboratory finds out about membership codes, on one small trial."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from auditkit.data.duplicates import nearest
from auditkit.mint.errors import CustomModelError
from auditkit.studies import code_false_positives as kinds
from auditkit.studies import keyless as statistics
from auditkit.studies.alterations import alter
from auditkit.studies.code_false_positives import code_false_positives, strangers
from auditkit.studies.code_rates import blind_query, blind_rates, drawn, told_own_code_rates
from auditkit.studies.errors import NoCodesError, StudyDataError, UnknownAlterationError
from auditkit.studies.keyless import COMBINED, STABILITY, keyless
from auditkit.studies.model_changes import (
    distilled,
    fine_tuned,
    pruned,
    quantised,
    trained_alone,
    transplanted,
)
from auditkit.studies.persistence import (
    DISTILLED,
    TRANSPLANTED,
    UNCHANGED,
    Persistence,
    PersistenceSettings,
    persistence,
)
from auditkit.studies.robustness import UNALTERED, Robustness, robustness
from auditkit.studies.trial import Trial
from tests.studies.conftest import SIZES

# Digits look far more alike than photographs do.
ALIKE = 0.98
QUICK = PersistenceSettings(
    fine_tuning_epochs=1, pruned=(0.3,), quantised=(8,), distillation_epochs=1
)


@pytest.fixture(scope="module")
def alone(codes_trial: Trial) -> Trial:
    """M of the same nonce without T; one epoch is enough to be another model."""
    config = codes_trial.config.model_copy(update={"epochs": 1})
    return trained_alone(replace(codes_trial, config=config))


def own_share(trial: Trial) -> float:
    return told_own_code_rates(trial)[0].flagged.value


# Blind queries with altered copies


def test_unaltered_members_are_found_and_named(codes_trial: Trial) -> None:
    found = robustness(codes_trial, ("flip", "JPEG 75"), seed=1)
    assert [row.alteration for row in found.rows] == [UNALTERED, "flip", "JPEG 75"]
    assert found.calibration_size == SIZES.calibration
    plain = found.rows[0]
    assert [entry.false_positive_rate for entry in plain.members] == [0.01, 0.001]
    assert plain.members[0].named.value > 0.7
    assert plain.members[0].named.trials == SIZES.told
    for row in found.rows:
        strict = [entry.flagged.value for entry in row.members]
        assert strict == sorted(strict, reverse=True)
        assert all(entry.named.value <= entry.flagged.value for entry in row.members)
    assert plain.strangers[0].flagged.value < 0.05
    assert Robustness.from_bytes(found.model_dump_json()) == found


def test_a_limit_measures_fewer_samples_and_the_right_ones(codes_trial: Trial) -> None:
    few = robustness(codes_trial, (), limit=30, seed=2).rows[0]
    assert few.members[0].flagged.trials == few.strangers[0].flagged.trials == 30
    assert few.members[0].named.value > 0.6


def test_a_copy_that_names_another_member_is_not_counted_as_named(codes_trial: Trial) -> None:
    told = codes_trial.images("told")
    found = blind_query(codes_trial, told)
    calibration = blind_query(codes_trial, codes_trial.images("calibration")).scores
    wrong = blind_rates(found, np.roll(drawn(len(told), None, 0), 1), calibration)[0]
    assert wrong.flagged.value > 0.7
    assert wrong.named.value < 0.05


def test_an_unknown_alteration_is_refused(codes_trial: Trial) -> None:
    with pytest.raises(UnknownAlterationError, match="'rotate'"):
        robustness(codes_trial, ("rotate",), limit=4)


def test_drawing_is_seeded_without_repetition() -> None:
    np.testing.assert_array_equal(drawn(5, None, 0), np.arange(5))
    np.testing.assert_array_equal(drawn(5, 9, 0), np.arange(5))
    some = drawn(1000, 50, 3)
    assert len(np.unique(some)) == 50
    np.testing.assert_array_equal(some, drawn(1000, 50, 3))
    assert (some != drawn(1000, 50, 4)).any()


# A reader without the secret


def test_statistics_of_outputs_are_what_they_are_called() -> None:
    outputs = np.array([[3.0, -4.0], [1.0, 1.0]])
    np.testing.assert_allclose(statistics.norm(outputs), [5.0, np.sqrt(2)])
    np.testing.assert_allclose(statistics.fourth_moment(outputs), [(81 + 256) / 2 / 12.5**2, 1.0])
    np.testing.assert_allclose(statistics.mean_absolute(outputs), [3.5, 1.0])
    np.testing.assert_allclose(statistics.largest_share(outputs), [4 / 7, 0.5])
    assert np.isfinite(statistics.fourth_moment(np.zeros((1, 2)))).all()


def test_stability_is_one_for_equal_views_and_zero_for_opposite_ones() -> None:
    view = np.array([[3.0, -4.0], [1.0, 0.0]])
    np.testing.assert_allclose(statistics.stability([view, 7 * view]), 1.0)
    np.testing.assert_allclose(statistics.stability([view, -view]), 0.0, atol=1e-12)


def test_the_largest_of_all_statistics_is_reported(codes_trial: Trial) -> None:
    found = keyless(codes_trial)
    names = [statistic.name for statistic in found.statistics]
    assert names == [*statistics.STATISTICS, STABILITY, COMBINED]
    assert found.largest.auc == max(statistic.auc for statistic in found.statistics)
    assert all(statistic.auc >= 0.5 for statistic in found.statistics[:-1])
    assert (found.told, found.fresh) == (SIZES.told, codes_trial.test.size)


def test_an_answer_that_is_always_the_same_gives_strangers_away(codes_trial: Trial) -> None:
    flat = np.zeros_like(codes_trial.test.images)
    found = keyless(replace(codes_trial, test=replace(codes_trial.test, images=flat)))
    assert found.largest.auc > 0.99


def test_nothing_tells_fresh_samples_from_fresh_samples(codes_trial: Trial) -> None:
    """The same reader on two halves of the strangers: what it finds is chance."""
    split = replace(codes_trial.split, told=codes_trial.split.calibration[:300])
    null = keyless(replace(codes_trial, split=split), limit=300)
    assert null.largest.auc < 0.62


def test_a_reader_needs_samples_of_both_kinds(codes_trial: Trial) -> None:
    split = replace(codes_trial.split, told=codes_trial.split.told[:3])
    with pytest.raises(StudyDataError, match="at least 4 told"):
        keyless(replace(codes_trial, split=split))


# Changes to the model


def test_every_change_is_measured_beside_the_model_as_trained(
    codes_trial: Trial, alone: Trial
) -> None:
    before = codes_trial.model.weights()
    found = persistence(codes_trial, QUICK, alone=alone)
    assert [row.change for row in found.rows] == [
        UNCHANGED,
        "fine-tuned on D",
        "fine-tuned on new data",
        "pruned by 30%",
        "weights of 8 bits",
        DISTILLED,
        TRANSPLANTED,
    ]
    by_name = {row.change: row for row in found.rows}
    share = {name: row.own_code[0].flagged.value for name, row in by_name.items()}
    assert share[UNCHANGED] > 0.9
    assert share["weights of 8 bits"] > 0.9
    assert share["fine-tuned on D"] > 0.5
    assert share[DISTILLED] < 0.1  # a student shares no weights with M
    assert by_name[UNCHANGED].accuracy.trials == codes_trial.test.size
    assert codes_trial.model.weights() == before
    assert Persistence.from_bytes(found.model_dump_json()) == found


def test_fine_tuning_moves_m_and_leaves_t(codes_trial: Trial) -> None:
    tuned = fine_tuned(codes_trial, codes_trial.split.external, epochs=1, rate_share=0.1)
    again = fine_tuned(codes_trial, codes_trial.split.external, epochs=1, rate_share=0.1)
    assert tuned.model.weights() == again.model.weights()
    weights = tuned.model.state_dict()
    for name, weight in codes_trial.model.state_dict().items():
        if name.startswith("mint.") or name.endswith("fc.weight"):
            assert torch.equal(weight, weights[name]) == name.startswith("mint.")


def test_pruning_takes_the_smallest_weights(codes_trial: Trial) -> None:
    thinned = pruned(codes_trial, 0.5)
    pairs = [
        (old.detach(), new.detach())
        for old, new in zip(
            codes_trial.model.audited.parameters(),
            thinned.model.audited.parameters(),
            strict=True,
        )
        if old.ndim >= 2
    ]
    old = torch.cat([pair[0].flatten() for pair in pairs])
    new = torch.cat([pair[1].flatten() for pair in pairs])
    gone = new == 0
    assert gone.double().mean().item() == pytest.approx(0.5, abs=0.001)
    assert old[gone].abs().max() <= old[~gone].abs().min()
    assert torch.equal(old[~gone], new[~gone])


def test_quantisation_leaves_few_levels_per_channel(codes_trial: Trial) -> None:
    coarse = quantised(codes_trial, 4).model.audited
    for parameter in coarse.parameters():
        if parameter.ndim >= 2:
            for channel in parameter.detach():
                assert len(channel.unique()) <= 15
    fine = quantised(codes_trial, 16)
    for old, new in zip(codes_trial.model.parameters(), fine.model.parameters(), strict=True):
        torch.testing.assert_close(old, new, rtol=0, atol=1e-3)


def test_harder_changes_cost_more(codes_trial: Trial) -> None:
    assert own_share(pruned(codes_trial, 0.95)) < own_share(pruned(codes_trial, 0.1))


def test_a_student_learns_the_teachers_answers(codes_trial: Trial) -> None:
    images = codes_trial.images("told")
    answers = codes_trial.ask(images).logits.argmax(axis=1)
    student = distilled(codes_trial, epochs=20)
    agreement = (student.ask(images).logits.argmax(axis=1) == answers).mean()
    assert agreement > 0.8
    assert own_share(student) < 0.1


def test_a_transplant_reads_the_other_m(codes_trial: Trial, alone: Trial) -> None:
    images = codes_trial.images("told")[:8]
    moved = transplanted(codes_trial, alone)
    np.testing.assert_array_equal(moved.ask(images).logits, alone.ask(images).logits)
    assert (moved.ask(images).outputs != codes_trial.ask(images).outputs).all()


def test_without_new_data_there_is_no_such_row(codes_trial: Trial, alone: Trial) -> None:
    split = replace(codes_trial.split, external=codes_trial.split.external[:0])
    found = persistence(replace(codes_trial, split=split), QUICK, alone=alone)
    assert "fine-tuned on new data" not in [row.change for row in found.rows]


def test_a_module_of_ones_own_cannot_be_built_afresh(codes_trial: Trial) -> None:
    model = codes_trial.config.model.model_copy(update={"architecture": "custom:ours"})
    config = codes_trial.config.model_copy(update={"model": model})
    with pytest.raises(CustomModelError):
        distilled(replace(codes_trial, config=config), epochs=1)


# False positives


def test_own_codes_hold_their_rate_on_every_kind_of_stranger(codes_trial: Trial) -> None:
    found = code_false_positives(
        codes_trial,
        similarity=ALIKE,
        other_members=codes_trial.images("external")[:40],
        synthetic=100,
    )
    rows = {(row.kind, row.false_positive_rate): row for row in found.own_code}
    provable = [row for row in found.own_code if row.kind != kinds.EXCHANGED]
    assert all(row.compatible for row in provable)
    assert rows[kinds.ALL, 0.01].flagged.trials == found.non_members
    assert found.non_members == SIZES.silent + SIZES.external + codes_trial.test.size + 300
    for kind in (kinds.OTHERS, kinds.UNIFORM, kinds.GAUSSIAN, kinds.CONSTANT, kinds.UNUSED):
        assert (kind, 0.0001) in rows
    # Near-duplicates are apart, and counted once: digits look alike.
    apart = sum(
        rows[kind, 0.01].flagged.trials
        for kind in (kinds.SILENT, kinds.OTHERS, kinds.EXTERNAL, kinds.FRESH, kinds.NEAR)
        if (kind, 0.01) in rows
    )
    assert apart >= SIZES.silent + SIZES.external + codes_trial.test.size


def test_a_member_with_its_own_code_would_be_found_by_the_same_count(
    codes_trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table can fail: own codes of members, passed as those of strangers, refute the rate."""
    codes = codes_trial.codes
    assert codes is not None
    unused = kinds._unused_codes

    def confused(trial: Trial, kind: str, images: np.ndarray) -> np.ndarray:
        return codes.members if kind == kinds.UNUSED else unused(trial, kind, images)

    monkeypatch.setattr(kinds, "_unused_codes", confused)
    found = code_false_positives(codes_trial, similarity=ALIKE, synthetic=10)
    assert not any(row.compatible for row in found.own_code if row.kind == kinds.UNUSED)


def test_conformal_rates_hold_on_exchangeable_strangers(codes_trial: Trial) -> None:
    found = code_false_positives(codes_trial, similarity=ALIKE, synthetic=100)
    assert found.calibration_size <= SIZES.calibration
    for table in (found.blind, found.claims):
        fresh = [row for row in table if row.kind == kinds.FRESH]
        assert [row.false_positive_rate for row in fresh]
        assert all(row.compatible for row in fresh)
    named = {row.kind for row in found.claims}
    assert named == {row.kind for row in found.claims_as_own}
    assert kinds.CONSTANT in named


def test_kinds_share_no_image(codes_trial: Trial) -> None:
    others = np.concatenate([codes_trial.images("told")[:5], codes_trial.images("external")[:7]])
    found = strangers(codes_trial, others, 50, seed=0)
    photographs = [kinds.SILENT, kinds.OTHERS, kinds.EXTERNAL, kinds.FRESH]
    seen = [image.tobytes() for kind in photographs for image in found[kind]]
    assert len(seen) == len(set(seen))
    assert len(found[kinds.OTHERS]) == 7
    assert not {image.tobytes() for image in codes_trial.images("told")}.intersection(seen)
    assert (found[kinds.CONSTANT] == found[kinds.CONSTANT][:, :1, :1]).all()
    assert kinds.OTHERS not in strangers(codes_trial, None, 50, seed=0)


def test_near_duplicates_of_members_are_a_kind_of_their_own(codes_trial: Trial) -> None:
    copies = alter("noise 4/255", codes_trial.images("told"), seed=0)
    _, similarity = nearest(copies, _members(codes_trial))
    near = int((similarity >= ALIKE).sum())
    assert near > 50
    plain = code_false_positives(codes_trial, similarity=ALIKE, synthetic=10)
    found = code_false_positives(codes_trial, similarity=ALIKE, other_members=copies, synthetic=10)
    assert _trials(found, kinds.NEAR) == _trials(plain, kinds.NEAR) + near
    assert _trials(found, kinds.OTHERS) == len(copies) - near


def test_exchanged_codes_are_never_ones_own() -> None:
    for size in (2, 3, 100):
        exchanged = kinds._derangement(size, seed=size)
        assert sorted(exchanged) == list(range(size))
        assert (exchanged != np.arange(size)).all()


# A MINT Model that says membership


@pytest.mark.parametrize(
    "study", [robustness, keyless, persistence, code_false_positives], ids=lambda f: f.__name__
)
def test_without_codes_each_study_says_so(study: object, codes_trial: Trial) -> None:
    assert callable(study)
    with pytest.raises(NoCodesError, match=r"train with mint\.evidence = 'codes'"):
        study(replace(codes_trial, codes=None))


def _members(trial: Trial) -> np.ndarray:
    return np.concatenate([trial.images("told"), trial.images("told_only")])


def _trials(found: kinds.CodeFalsePositives, kind: str) -> int:
    return next((row.flagged.trials for row in found.own_code if row.kind == kind), 0)
