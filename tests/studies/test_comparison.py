"""Every method on one split: honest thresholds, results that are kept, and sets."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from auditkit.cli.demo import example
from auditkit.data.fit import PoolShapeError
from auditkit.mint.attacks import ATTACKS
from auditkit.mint.calibration import p_values
from auditkit.mint.enhanced import EnhancedAuditedModel
from auditkit.mint.metrics import rate
from auditkit.studies import comparison_run as running
from auditkit.studies.comparison import (
    ComparisonSettings,
    MethodFigures,
    Scored,
    Variant,
    measure,
    passive_methods,
    set_rates,
    train_alone,
)
from auditkit.studies.comparison_run import Comparison, Part, plan, results, run_part
from auditkit.studies.comparison_text import (
    SHORT,
    comparison_tables,
    markdown,
    over_seeds,
    roc_chart,
    short_share,
)
from auditkit.studies.errors import CellFileError, ReferencesError, StudyDataError
from auditkit.studies.trial import Trial
from schemas import MintConfig
from schemas.settings import parse_settings, read_toml
from tests.studies.small import FRESH, SIZES, first, parts, settings

REFERENCES = 2
MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def whole() -> ComparisonSettings:
    return settings(references=REFERENCES)


@pytest.fixture(scope="module")
def folder(whole: ComparisonSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All parts of a comparison, run in this process."""
    folder = tmp_path_factory.mktemp("comparison")
    for part in plan(whole):
        run_part(whole, *parts(), folder, part)
    return folder


@pytest.fixture(scope="module")
def found(whole: ComparisonSettings, folder: Path) -> Comparison:
    return results(whole, folder, "a machine")


@pytest.fixture(scope="module")
def alone(whole: ComparisonSettings) -> Trial:
    pool, test = parts()
    return train_alone(whole, pool, test, seed=0)


def method(found: Comparison, name: str) -> MethodFigures:
    return next(entry for entry in found.methods if entry.method == name)


def test_every_family_of_methods_is_there(found: Comparison) -> None:
    names = {entry.method for entry in found.methods}
    assert names >= {"active", "codes-own", "codes-blind"}
    assert names >= {"passive-vanilla", "passive-cnn", "passive-outcome", "gmint"}
    # Two references leave most samples without one that was trained on them.
    assert names & set(ATTACKS) == {
        name for name, attack in ATTACKS.items() if not attack.needs_in_references
    }
    assert {entry.family for entry in found.methods} == {"active", "codes", "passive", "attack"}


def test_a_single_reference_is_no_reason_to_lose_a_long_run(
    whole: ComparisonSettings, folder: Path, tmp_path: Path
) -> None:
    lonely = whole.model_copy(update={"references": 1, "gradients": None})
    reference = plan(lonely)[0]
    kept = running.path_of(lonely, reference, folder)
    (tmp_path / kept.name).write_bytes(kept.read_bytes())
    run_part(lonely, *parts(), tmp_path, Part("alone", "alone", 0))
    names = {entry.method for entry in results(lonely, tmp_path, "a machine").methods}
    assert "loss" in names
    assert not names & {"lira_online", "lira_offline", "rmia_online", "rmia_offline"}


def test_every_method_has_the_figures_that_a_reader_needs(found: Comparison) -> None:
    for entry in found.methods:
        assert entry.audited_accuracy.trials == FRESH
        assert entry.peak_bytes > 100 * MEBIBYTE
        assert entry.training_seconds > 0
        told = entry.cohort("told")
        assert told is not None
        assert told.auc is not None
        fresh = entry.cohort("test")
        assert fresh is not None
        assert fresh.auc is None
        assert fresh.size == FRESH


def test_codes_are_learnt_and_provable_at_any_rate(found: Comparison) -> None:
    own = method(found, "codes-own")
    rates = [flagged.false_positive_rate for flagged in own.cohorts[0].flagged]
    assert rates == [0.01, 0.001, 1e-6]
    blind = method(found, "codes-blind")
    # C of 120 reaches 1 %, and no smaller rate.
    assert [flagged.false_positive_rate for flagged in blind.cohorts[0].flagged] == [0.01]


def test_thresholds_come_from_c_alone(alone: Trial) -> None:
    rng = np.random.default_rng(0)
    cohorts = {name: rng.normal(size=200) for name in ("told", "silent", "test", "calibration")}
    scored = Scored("made-up", "made up", "attack", "this test", cohorts)
    ((_, figures),) = measure(iter([scored]), alone, "alone", 0)
    for cohort in ("told", "silent", "test"):
        entry = figures.cohort(cohort)
        assert entry is not None
        (flagged,) = entry.flagged
        expected = p_values(cohorts[cohort], cohorts["calibration"]) <= 0.01
        assert flagged.flagged.successes == expected.sum()
    calibration = figures.cohort("calibration")
    assert calibration is not None
    assert calibration.flagged == ()


def test_passive_models_are_judged_on_members_that_they_were_not_fitted_on(
    whole: ComparisonSettings, alone: Trial
) -> None:
    for scored in passive_methods(alone, whole.passive, None, seed=0):
        assert len(scored.cohorts["told"]) == SIZES.told // 2
        assert len(scored.cohorts["external"]) == SIZES.external // 2
        assert len(scored.cohorts["silent"]) == SIZES.silent
        assert len(scored.cohorts["calibration"]) == SIZES.calibration


def test_sets_of_silent_samples_are_seen_and_strangers_are_not() -> None:
    rng = np.random.default_rng(1)
    cohorts = {
        "told": rng.normal(2.0, 1.0, 100),
        "silent": rng.normal(1.5, 1.0, 100),
        "told_only": rng.normal(0.0, 1.0, 60),
        "test": rng.normal(0.0, 1.0, 200),
        "calibration": rng.normal(0.0, 1.0, 999),
    }
    (rates,) = set_rates(Scored("loss", "loss", "attack", "a paper", cohorts), "alone", 0, 0.001)
    assert rates.evidence == "undeclared"
    assert [power.size for power in rates.power] == [1, 10, 50, 100]
    single, _, fifty, _ = rates.power
    assert single.resampled.value < 0.2 < 0.99 < fifty.resampled.value
    assert fifty.disjoint.trials == 2
    assert {(alarm.cohort, alarm.size) for alarm in rates.false_alarms} == {
        *(("told_only", size) for size in (1, 10, 50)),
        *(("test", size) for size in (1, 10, 50, 100)),
    }
    assert not any(alarm.refuted for alarm in rates.false_alarms)


def test_a_test_that_alarms_on_strangers_is_refuted() -> None:
    rng = np.random.default_rng(1)
    cohorts = {name: rng.normal(size=100) for name in ("silent", "calibration")}
    cohorts["test"] = rng.normal(2.0, 1.0, 200)
    (rates,) = set_rates(Scored("loss", "loss", "attack", "a paper", cohorts), "alone", 0, 0.01)
    assert any(alarm.refuted for alarm in rates.false_alarms)


def test_sets_are_measured_by_codes_and_by_scores_of_m(found: Comparison) -> None:
    measured = {(entry.method, entry.audited_model, entry.evidence) for entry in found.sets}
    assert ("codes-own", "codes", "declared") in measured
    for audited in ("active", "codes", "alone"):
        assert ("loss", audited, "undeclared") in measured
        assert ("passive-outcome", audited, "undeclared") in measured
    assert ("difficulty_calibration", "alone", "undeclared") in measured
    assert ("rmia_offline", "alone", "undeclared") in measured
    assert all(
        power.size <= SIZES.silent
        for e in found.sets
        if e.evidence == "undeclared"
        for power in e.power
    )


def test_a_finished_comparison_is_not_run_again(
    whole: ComparisonSettings, folder: Path, found: Comparison
) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    done = list(running.run(whole, Path(), folder))
    assert [part.kept for part in done] == [True] * len(plan(whole))
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert results(whole, folder, "a machine") == found


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({"seeds": (0, 1)}, set()),
        ({"variants": ()}, set()),
        ({"references": 0}, {"alone"}),
        ({"gradients": None}, {"alone"}),
        ({"false_alarm_rate": 0.02}, {"alone", "active", "codes"}),
        ({"population": 14}, {"reference0", "reference1", "alone"}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_changed_settings_never_meet_old_results(
    whole: ComparisonSettings, folder: Path, change: dict[str, object], again: set[str]
) -> None:
    changed = whole.model_copy(update=change)
    missing = {
        part.name
        for part in plan(changed)
        if part.seed == 0 and not running.path_of(changed, part, folder).exists()
    }
    assert missing == again


def test_damaged_results_are_named(whole: ComparisonSettings, folder: Path, tmp_path: Path) -> None:
    for part in (Part("alone", "alone", 0), Part("variant", "codes", 0)):
        source = running.path_of(whole, part, folder)
        (tmp_path / source.name).write_bytes(source.read_bytes()[:-40])
        with pytest.raises(CellFileError, match=f"{source.name} is not a result.*remove it"):
            results(whole, tmp_path, "a machine")
        (tmp_path / source.name).unlink()
    reference = running.path_of(whole, Part("reference", "reference0", 0, 0), folder)
    (tmp_path / reference.name).write_bytes(reference.read_bytes()[:200])
    with pytest.raises(CellFileError, match=f"{reference.name} is not a result.*remove it"):
        run_part(whole, *parts(), tmp_path, Part("alone", "alone", 0))


def test_data_that_do_not_suit_are_refused_before_training(whole: ComparisonSettings) -> None:
    pool, test = parts()
    with pytest.raises(StudyDataError, match=f"a pool of {SIZES.pool} samples.*found 200"):
        running.check_data(whole, first(pool, 200), test)
    thirteen = type(test)(test.images, test.labels, tuple("abcdefghijklm"))
    with pytest.raises(PoolShapeError, match="test set has 13 classes"):
        running.check_data(whole, pool, thirteen)
    small = whole.model_copy(update={"population": 60})
    with pytest.raises(ReferencesError, match="samples of E"):
        running.check_data(small, pool, test)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"false_alarm_rate": 0.001}, "needs at least 999 calibration samples, found 120"),
        ({"seeds": (1, 1)}, "different seeds"),
        (
            {"variants": ({"name": "alone", "title": "x", "mint": {"evidence": "codes"}},)},
            "'alone'",
        ),
    ],
)
def test_settings_that_could_not_end_well_are_refused(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(**changes)


def test_membership_cannot_be_learnt_without_strangers() -> None:
    with pytest.raises(ValidationError, match="set external_batch_size"):
        Variant(name="active", title="Active MINT", mint=MintConfig())


def test_the_document_has_every_method_in_every_table(found: Comparison) -> None:
    text = markdown(found)
    told, *_ = text.split("**Called member")
    for entry in found.methods:
        assert entry.title in told
    assert "Undeclared-data test" in text
    assert "announced rate 1 %" in text
    assert "provable false-positive rate 10^-6" in text
    assert "Nothing here is evidence" in text


def test_tables_fit_a_terminal(found: Comparison) -> None:
    for table in comparison_tables(found, SHORT):
        columns = zip(table.header, *table.rows, strict=True)
        width = sum(max(map(len, column)) + 2 for column in columns)
        assert width <= 120, (table.title, width)
        assert len(table.groups) == len(table.rows)


def test_the_roc_has_a_line_and_a_name_for_every_method(found: Comparison) -> None:
    drawing = roc_chart(found.methods)
    assert drawing.count("<polyline") == len(found.methods)
    for entry in found.methods:
        assert f">{entry.title}</text>" in drawing


@pytest.mark.parametrize(
    ("successes", "trials", "shown"),
    [
        (0, 400, "0 (0–1)"),
        (400, 400, "100 (99–100)"),
        (4998, 5000, "99.96 (99.8–100)"),
        (1, 5000, "0.02 (0–0.2)"),
        (24_999, 25_000, "99.996 (99.9–100)"),
        (185, 400, "46.2 (41–52)"),
    ],
)
def test_short_shares_never_claim_more_than_was_seen(
    successes: int, trials: int, shown: str
) -> None:
    assert short_share(rate(successes, trials)) == shown


def test_seeds_that_differ_are_not_taken_for_one_large_sample() -> None:
    lucky, unlucky = rate(200, 1_000), rate(100, 1_000)
    together = over_seeds([lucky, unlucky])
    assert together.value == pytest.approx(0.15)
    assert (together.low, together.high) == (unlucky.low, lucky.high)
    pooled = rate(300, 2_000)
    assert together.low < pooled.low < pooled.high < together.high


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_the_examples_fit_their_pools_and_can_be_built(name: str) -> None:
    path = example(f"evaluate-{name}.toml")
    found = parse_settings(ComparisonSettings, read_toml(path), str(path))
    assert found.sizes.pool == found.pool.selection.limit
    for variant in found.variants:
        EnhancedAuditedModel.build(found.joint(variant), seed=0)
