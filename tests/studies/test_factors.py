"""The factors study: who is shown how often, what is compared with what, and what is concluded."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from auditkit.cli.errors import UsageError
from auditkit.cli.study import study_app
from auditkit.evidence.derivation import derive_split
from auditkit.mint.models import build_audited_model
from auditkit.mint.task_losses import CosineClassifier
from auditkit.studies.differences import mean_over_seeds, paired_difference
from auditkit.studies.errors import (
    CellFileError,
    ExposureError,
    StudyDataError,
    TooFewSeedsError,
)
from auditkit.studies.exposure import exposed_steps, exposure_groups
from auditkit.studies.factor_cells import (
    ATTACKS,
    AttackFigures,
    CellResult,
    GroupFigures,
    run_cells,
)
from auditkit.studies.factor_tables import StudyReport, factor_tables
from auditkit.studies.factor_text import text_tables
from auditkit.studies.factors import (
    EVERY_MEMBER,
    FACTORS,
    SCALES,
    Cell,
    group_names,
    levels,
    open_data,
    plan,
    training_config,
)
from schemas import FlaggedRate, RateEstimate, SplitSizes

NONCE = b"n" * 32
TINY = SCALES["tiny"]


def split(told: int = 41):
    sizes = SplitSizes(told=told, silent=0, told_only=0, external=7, calibration=5)
    return derive_split(NONCE, sizes)


class TestExposure:
    @settings(max_examples=25, deadline=None)
    @given(
        exposures=st.lists(st.integers(1, 40), min_size=1, max_size=5),
        epochs=st.integers(1, 35),
        batch_size=st.integers(1, 50),
    )
    def test_every_sample_is_shown_exactly_as_often_as_its_group_says(
        self, exposures, epochs, batch_size
    ):
        found = split()
        steps = exposed_steps(NONCE, found, exposures, epochs, batch_size)
        shown = Counter(int(index) for step in steps for index in step.told)
        for group, count in zip(
            exposure_groups(NONCE, found, len(exposures)), exposures, strict=True
        ):
            assert {shown.pop(int(index)) for index in group} == {count}
        assert not shown
        assert [step.step for step in steps] == list(range(1, len(steps) + 1))
        assert max(len(step.told) for step in steps) <= batch_size
        assert [step.epoch for step in steps] == sorted(step.epoch for step in steps)

    def test_shows_are_spread_over_the_training_and_no_group_is_always_last(self):
        found = split(told=400)
        groups = exposure_groups(NONCE, found, 4)
        steps = exposed_steps(NONCE, found, (1, 10, 20, 30), 30, 64)
        for group, count in zip(groups, (1, 10, 20, 30), strict=True):
            per_epoch = np.zeros(30)
            for step in steps:
                per_epoch[step.epoch] += np.isin(step.told, group).sum()
            expected = len(group) * count / 30
            # Within five standard deviations of a fair spread, in every epoch.
            assert np.abs(per_epoch - expected).max() <= 5 * np.sqrt(expected)

    def test_at_most_once_an_epoch_where_that_is_possible(self):
        steps = exposed_steps(NONCE, split(), (1, 10, 20, 30), 30, 8)
        shows = Counter((step.epoch, int(index)) for step in steps for index in step.told)
        assert set(shows.values()) == {1}

    def test_groups_are_drawn_by_the_nonce_and_part_d(self):
        found = split()
        groups = exposure_groups(NONCE, found, 4)
        assert sorted(len(group) for group in groups) == [10, 10, 10, 11]
        assert sorted(np.concatenate(groups)) == sorted(found.told)
        other = exposure_groups(b"m" * 32, found, 4)
        assert any(set(a) != set(b) for a, b in zip(groups, other, strict=True))
        again = exposed_steps(NONCE, found, (1, 2), 3, 8)
        for one, two in zip(again, exposed_steps(NONCE, found, (1, 2), 3, 8), strict=True):
            assert np.array_equal(one.told, two.told)

    @pytest.mark.parametrize("wrong", [((), 3, 8), ((1, 0), 3, 8), ((1,), 0, 8), ((1,), 3, 0)])
    def test_impossible_schedules_are_refused(self, wrong):
        with pytest.raises(ExposureError, match="at least 1"):
            exposed_steps(NONCE, split(), *wrong)

    def test_more_groups_than_samples_are_refused(self):
        with pytest.raises(ExposureError, match="between 1 and 41"):
            exposure_groups(NONCE, split(), 42)


class TestDifferences:
    def test_the_interval_is_students(self):
        # Mean 2, standard deviation 1, t(0.975, 2 degrees) = 4.302653.
        found = mean_over_seeds([1.0, 2.0, 3.0])
        half = 4.302653 / 3**0.5
        assert (found.mean, found.low, found.high) == pytest.approx((2.0, 2 - half, 2 + half))
        assert found.direction == "not shown"

    def test_pairing_sees_what_the_spread_between_seeds_would_hide(self):
        base = [0.1, 0.5, 0.9]
        higher = [0.21, 0.6, 1.01]
        assert paired_difference(higher, base).direction == "higher"
        assert paired_difference(base, higher).direction == "lower"
        assert mean_over_seeds(higher).low < mean_over_seeds(base).high

    def test_seeds_that_agree_exactly_show_nothing(self):
        found = paired_difference([0.75, 0.5], [0.5, 0.25])
        assert (found.mean, found.low, found.high) == (0.25, 0.25, 0.25)
        assert found.direction == "not shown"
        assert found.p_value == 1.0

    def test_the_interval_covers_the_truth_as_often_as_it_says(self):
        generator = np.random.default_rng(0)
        shown = sum(
            mean_over_seeds(row).direction != "not shown" for row in generator.normal(size=(400, 5))
        )
        assert 8 <= shown <= 34  # 20 are expected; three standard deviations

    def test_one_seed_is_no_interval(self):
        with pytest.raises(TooFewSeedsError, match="at least 2"):
            mean_over_seeds([1.0])


class TestPlan:
    @pytest.mark.parametrize("scale", SCALES)
    def test_levels_differ_in_their_factor_alone_and_share_their_seeds(self, scale):
        chosen = SCALES[scale]
        varied = {"batch_size": "batch_size", "dropout": "dropout", "loss": "loss"}
        for factor, field in varied.items():
            for row in zip(*(level.cells for level in levels(chosen, factor)), strict=True):
                assert len({cell.nonce for cell in row}) == 1
                rest = {cell.model_copy(update={field: row[0].model_dump()[field]}) for cell in row}
                assert len(rest) == 1
                assert len(set(row)) == len(row)
        for row in zip(*(level.cells for level in levels(chosen, "exposure")), strict=True):
            assert len(set(row)) == 1

    def test_a_training_that_two_factors_need_is_run_once(self):
        cells = plan(SCALES["cpu"])
        assert len(cells) == len(set(cells)) == 5 * (1 + 1 + 2 + 2 + 3)
        base = Cell(batch_size=64, dropout=0.0, loss="softmax", seed=0)
        assert base in cells
        for factor in ("batch_size", "dropout", "loss"):
            assert any(base in level.cells for level in levels(SCALES["cpu"], factor))

    def test_the_factor_reaches_the_model(self):
        pool, _, chosen = open_data(None, TINY)
        cell = Cell(batch_size=8, dropout=0.5, loss="adaface", seed=0)
        config = training_config(cell, chosen, pool)
        model = build_audited_model(config.model, seed=0)
        assert model.drop_rate == 0.5
        assert isinstance(model.get_classifier(), CosineClassifier)
        assert config.batch_size == 8
        assert config.mint.mint_weight == 0


class TestData:
    def test_pool_and_fresh_samples_share_nothing(self):
        pool, test, chosen = open_data(None, SCALES["cpu"])
        assert pool.size + test.size == 1_797
        assert chosen.sizes.pool == pool.size
        assert chosen.sizes.told == chosen.sizes.external == 466

    def test_a_folder_without_a_known_layout_is_refused(self, tmp_path: Path):
        with pytest.raises(StudyDataError, match="MNIST/raw"):
            open_data(tmp_path, TINY)
        with pytest.raises(StudyDataError, match="MNIST/raw"):
            open_data(tmp_path / "missing", TINY)


def flagged(value: float) -> FlaggedRate:
    count = round(100 * value)
    return FlaggedRate(
        false_positive_rate=0.01,
        flagged=RateEstimate(successes=count, trials=100, value=value, low=0.0, high=1.0),
    )


def invented(cell: Cell, auc_of_group: dict[str, float]) -> CellResult:
    """A result whose AUC moves with the seed, as real ones do."""
    wobble = 0.01 * cell.seed
    return CellResult(
        digest="0" * 64,
        cell=cell,
        trained_accuracy=1.0,
        test_accuracy=0.5,
        seconds=1.0,
        groups=tuple(
            GroupFigures(
                group=group,
                members=10,
                attacks=tuple(
                    AttackFigures(
                        attack=attack,
                        auc=auc + wobble,
                        accuracy=0.5 + wobble,
                        flagged=(flagged(auc / 2),),
                    )
                    for attack in ATTACKS
                ),
            )
            for group, auc in auc_of_group.items()
        ),
    )


class TestConclusions:
    chosen = SCALES["cpu"]

    def results(self, factor: str, slope: float) -> list[CellResult]:
        """Cells in which every further level of the factor adds about `slope` to the AUC."""
        found = []
        for number, level in enumerate(levels(self.chosen, factor)):
            if factor != "exposure":
                found += [
                    invented(cell, {EVERY_MEMBER: 0.6 + number * (slope + 1e-4 * (cell.seed % 2))})
                    for cell in level.cells
                ]
            elif number == 0:
                names = (EVERY_MEMBER, *group_names(self.chosen.exposures))
                found = [
                    invented(
                        cell,
                        {
                            name: 0.5 + place * (slope + 1e-4 * (cell.seed % 2))
                            for place, name in enumerate(names)
                        },
                    )
                    for cell in level.cells
                ]
        return found

    def table(self, factor: str, slope: float):
        (table,) = factor_tables(self.results(factor, slope), self.chosen, (factor,))
        return table

    def test_an_effect_is_paired_measured_and_named(self):
        table = self.table("exposure", 0.05)
        assert [row.name for row in table.levels] == ["x1", "x10", "x20", "x30"]
        last = [e for e in table.effects if (e.name, e.figure) == ("x30", "AUC")]
        assert len(last) == len(ATTACKS)
        for effect in last:
            assert effect.base == "x1"
            assert effect.difference.mean == pytest.approx(0.15, abs=1e-3)
            # The wobble of 0.01 per seed is the same on both sides and drops out.
            assert effect.difference.high - effect.difference.low < 1e-3
            assert effect.direction == "higher"

    def test_the_paper_is_agreed_with_where_an_effect_is_found_that_it_names(self):
        paper, guideline = self.table("exposure", 0.05).remarks
        assert paper.startswith("Agrees")
        assert guideline.count("borne out") == len(ATTACKS)

    def test_a_disagreement_is_said_aloud(self):
        (found,) = self.table("batch_size", 0.05).remarks
        assert found.startswith("DISAGREES")
        (missing,) = self.table("loss", 0.0).remarks
        assert missing.startswith(("NOT BORNE OUT", "Agrees"))
        _, guideline = self.table("dropout", 0.05).remarks
        assert guideline.count("CONTRADICTED") == len(ATTACKS)

    def test_no_effect_is_claimed_where_there_is_none(self):
        generator = np.random.default_rng(3)
        cells = [
            invented(cell, {EVERY_MEMBER: float(0.6 + 0.01 * generator.normal())})
            for level in levels(self.chosen, "loss")
            for cell in level.cells
        ]
        (table,) = factor_tables(cells, self.chosen, ("loss",))
        (remark,) = table.remarks
        assert remark.startswith("NOT BORNE OUT")

    def test_tables_hold_every_level_and_attack(self):
        table = self.table("dropout", -0.05)
        shown, auc, rate = text_tables(table)
        assert len(shown.rows) == 3 * len(ATTACKS)
        assert {len(row) for row in shown.rows} == {len(shown.header)}
        assert auc.rows[1][0] == "0.5 against 0"
        assert auc.rows[1][1].startswith("-0.100 [")
        assert auc.rows[1][1].endswith("lower")
        assert "TPR at 1 %" in rate.title


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> tuple[Path, str]:
    """One whole study, by the command that users type."""
    folder = tmp_path_factory.mktemp("study") / "out"
    result = CliRunner().invoke(
        study_app, ["factors", "--scale", "tiny", "--output", str(folder)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return folder, result.output


class TestTheCommand:
    def test_it_prints_and_writes_every_factor(self, ran):
        folder, output = ran
        document = (folder / "factors.md").read_text()
        for words in ("Exposure", "Batch size", "Dropout", "Loss of M", "AdaFace against softmax"):
            assert words in output
            assert words in document
        report = StudyReport.from_bytes((folder / "factors.json").read_bytes())
        assert [table.factor for table in report.tables] == list(FACTORS)
        assert "half is judged" in document

    def test_members_are_judged_that_were_not_fitted_on(self, ran):
        folder, _ = ran
        cells = [CellResult.from_bytes(path.read_bytes()) for path in (folder / "cells").iterdir()]
        assert len(cells) == len(plan(TINY))
        for result in cells:
            members = {group.group: group.members for group in result.groups}
            assert members.pop(EVERY_MEMBER) == TINY.sizes.told // 2
            if result.cell.exposures:
                assert sum(members.values()) == TINY.sizes.told // 2
                assert set(members) == set(group_names(TINY.exposures))

    def test_the_losses_really_train_differently(self, ran):
        folder, _ = ran
        cells = {
            result.cell: result
            for path in (folder / "cells").iterdir()
            for result in [CellResult.from_bytes(path.read_bytes())]
        }
        for row in zip(*(level.cells for level in levels(TINY, "loss")), strict=True):
            losses = [cells[cell].figures(EVERY_MEMBER, "loss") for cell in row]
            assert len({figures.auc for figures in losses}) > 1

    def test_a_study_goes_on_where_it_was_stopped(self, ran):
        folder, _ = ran
        paths = sorted((folder / "cells").iterdir())
        before = {path: path.stat().st_mtime_ns for path in paths}
        gone = paths[3]
        text = gone.read_text()
        gone.unlink()
        pool, test, chosen = open_data(None, TINY)
        done = list(run_cells(chosen, pool, test, folder))
        assert [cell.kept for cell in done].count(False) == 1
        assert {p: p.stat().st_mtime_ns for p in paths if p != gone} == {
            p: t for p, t in before.items() if p != gone
        }
        # The same seeds give the same numbers, up to the time they took.
        again, once = json.loads(gone.read_text()), json.loads(text)
        assert again | {"seconds": 0} == once | {"seconds": 0}

    def test_other_settings_or_data_never_meet_old_results(self, ran):
        folder, _ = ran
        pool, test, chosen = open_data(None, TINY)
        longer = chosen.model_copy(update={"margin_scale": 8.0})
        first = next(run_cells(longer, pool, test, folder))
        assert not first.kept
        dimmed = type(pool)(pool.images // 2, pool.labels, pool.class_names)
        assert not next(run_cells(chosen, dimmed, test, folder)).kept

    def test_a_damaged_result_is_named(self, ran):
        folder, _ = ran
        pool, test, chosen = open_data(None, TINY)
        paths = list((folder / "cells").glob(f"{plan(TINY)[0].title}_*.json"))
        texts = {path: path.read_text() for path in paths}
        for path in paths:
            path.write_text("{}")
        with pytest.raises(CellFileError, match="delete it"):
            next(run_cells(chosen, pool, test, folder))
        for path, text in texts.items():
            path.write_text(text)

    def test_an_unknown_factor_lists_the_known_ones(self, tmp_path: Path):
        with pytest.raises(UsageError, match="exposure, batch_size, dropout, loss"):
            CliRunner().invoke(
                study_app,
                ["factors", "--only", "colour", "--output", str(tmp_path)],
                catch_exceptions=False,
            )
