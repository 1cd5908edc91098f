"""The report of one session as one self-contained HTML page.

The page needs no script, no network and no other file: it can be stored, mailed, printed and
filed. Its content security policy forbids loading anything, so a hostile name in the evidence
cannot make it do so either; all text is escaped by the template engine.
"""

from dataclasses import dataclass
from functools import cache
from typing import get_args

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from auditkit.reports import containers, figures, formatting, statistics, wording
from auditkit.reports.content import COHORT_ORDER, ReportInput
from schemas import AssuranceLevel, CohortMetrics, CohortName, RateEstimate
from schemas.evaluation import PROVABLE_RATES
from schemas.verdict import EvidenceKind

NOMINAL_RATES = (0.05, 0.01, 0.001)
PRIORS = (0.01, 0.1, 0.5)
MINT_COHORTS: tuple[CohortName, ...] = ("told", "silent", "told_only")


@dataclass(frozen=True)
class CohortRow:
    """One cohort of the error-rate tables; `flagged` follows NOMINAL_RATES.

    `own_code` follows PROVABLE_RATES, and is empty where T learned no codes.
    """

    words: wording.CohortWords
    metrics: CohortMetrics
    flagged: tuple[RateEstimate | None, ...]
    own_code: tuple[RateEstimate | None, ...]


@dataclass(frozen=True)
class PredictiveRow:
    """Positive predictive values at one nominal rate; `values` follows PRIORS, worst and best."""

    nominal: float
    values: tuple[tuple[float | None, float | None], ...]


@dataclass(frozen=True)
class BaselineRow:
    """How well one cohort is told from fresh samples, by T and by M's loss alone."""

    name: str
    score_auc: float | None
    loss_auc: float | None


@dataclass(frozen=True)
class Source:
    """Where a number of the report comes from."""

    number: str
    record: str


def render_html(report: ReportInput) -> str:
    """Return the report as one HTML document; the same input gives the same text."""
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            config=report.request.config,
            levels=list(AssuranceLevel),
            replay_strength=wording.replay_strength(report),
            conclusion=wording.conclusion(report),
            proven=wording.proven(report),
            not_proven=wording.not_proven(report),
            configuration=wording.configuration_rows(report.request.config),
            container=containers.container_section(report),
            training_figures=figures.training_figures(report),
            cohorts=_cohort_rows(report),
            nominal_rates=NOMINAL_RATES,
            provable_rates=PROVABLE_RATES,
            provable=[row for row in _cohort_rows(report) if row.own_code],
            codes_beside_a_hash=wording.CODES_BESIDE_A_HASH,
            evidence_kinds=_evidence_kinds(report),
            priors=PRIORS,
            predictive=_predictive_rows(report),
            baselines=_baseline_rows(report),
            histograms=figures.score_histograms(report),
            threshold_rate=report.order.false_positive_rate,
            roc=figures.roc_figure(report),
            sources=_sources(report),
            glossary=wording.GLOSSARY,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("auditkit.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "integer": formatting.integer,
        "decimal": formatting.decimal,
        "percent": formatting.percent,
        "nominal": formatting.nominal_percent,
        "interval": formatting.interval,
        "p_value": formatting.p_value,
        "day": formatting.day,
        "moment": formatting.moment,
        "unix_moment": formatting.unix_moment,
        "duration": formatting.duration,
        "drawing": _drawing,
    }
    environment.globals |= {
        "OUTCOME_WORDS": wording.OUTCOME_WORDS,
        "VERDICT_WORDS": wording.VERDICT_WORDS,
        "EVIDENCE_WORDS": wording.EVIDENCE_WORDS,
        "EVIDENCE_MEANING": wording.EVIDENCE_MEANING,
        "COHORTS": wording.COHORTS,
    }
    return environment


def _drawing(svg: str) -> Markup:
    """Mark a chart as ready for the page; `plots` has escaped its text already."""
    return Markup(svg)  # noqa: S704 - written by our own serialiser, never by another party


def _cohort_rows(report: ReportInput) -> list[CohortRow]:
    if report.evaluation is None:
        return []
    rows = [
        CohortRow(
            wording.COHORTS[metrics.cohort],
            metrics,
            tuple(wording.flagged_at(metrics.flagged, rate) for rate in NOMINAL_RATES),
            tuple(wording.flagged_at(metrics.own_code, rate) for rate in PROVABLE_RATES)
            if metrics.own_code
            else (),
        )
        for metrics in report.evaluation.cohorts
        if metrics.size > 0
    ]
    return sorted(rows, key=lambda row: COHORT_ORDER.index(row.metrics.cohort))


def _evidence_kinds(report: ReportInput) -> list[EvidenceKind]:
    """Return the kinds of evidence that the shown verdicts rest on, in the order of the schema."""
    found = {queried.verdict.evidence for queried in report.verdicts}
    return [kind for kind in get_args(EvidenceKind) if kind in found]


def _predictive_rows(report: ReportInput) -> list[PredictiveRow]:
    if report.evaluation is None:
        return []
    by_name = {metrics.cohort: metrics.flagged for metrics in report.evaluation.cohorts}
    rows = []
    for nominal in NOMINAL_RATES:
        told = wording.flagged_at(by_name.get("told", ()), nominal)
        test = wording.flagged_at(by_name.get("test", ()), nominal)
        if told is None or test is None:
            continue
        values = tuple(
            (
                statistics.positive_predictive_value(prior, told.low, test.high),
                statistics.positive_predictive_value(prior, told.high, test.low),
            )
            for prior in PRIORS
        )
        rows.append(PredictiveRow(nominal, values))
    return rows


def _baseline_rows(report: ReportInput) -> list[BaselineRow]:
    losses, scores = report.task_losses, report.scores
    if not len(losses.get("test", ())) or not len(scores.get("test", ())):
        return []
    return [
        BaselineRow(
            wording.COHORTS[cohort].name,
            statistics.area_under_curve(scores[cohort], scores["test"]),
            statistics.area_under_curve(-losses[cohort], -losses["test"]),
        )
        for cohort in MINT_COHORTS
        if len(losses.get(cohort, ())) and len(scores.get(cohort, ()))
    ]


def _sources(report: ReportInput) -> list[Source]:
    sources = []
    if report.start is not None:
        sources.append(
            Source(
                "Container image, code digest and environment (section 3)",
                f"grant record, number {report.start.sequence}",
            )
        )
    if report.request.container is not None:
        further = formatting.count_of(len(report.continuations), "continuation request")
        sources.append(
            Source(
                "Image and containers (section 4)",
                "the session request, field container"
                + (f", and {further}, folder continuations" if report.continuations else ""),
            )
        )
    if len(report.steps):
        sources.append(
            Source(
                "Loss and accuracy curves (section 3)",
                f"the {formatting.count_of(len(report.steps), 'step record')}",
            )
        )
    if report.evaluation is not None:
        sources.append(
            Source(
                "Error rates per cohort, predictive values (section 5)",
                f"evaluation record, number {report.evaluation.sequence}, "
                f"step {formatting.integer(report.evaluation.step)}",
            )
        )
    if report.calibration is not None:
        sources.append(
            Source(
                "Histograms, ROC and baseline (section 5)",
                "the scores file, whose digest is in the calibration record, number "
                f"{report.calibration.sequence}",
            )
        )
    if report.seal is not None:
        sources.append(
            Source(
                "Weights and scores digests (section 3)",
                f"seal record, number {report.seal.sequence}",
            )
        )
    if report.verdicts:
        sources.append(
            Source(
                "Verdicts (section 6)",
                "signed verdict statements in the bundle, folder verdicts",
            )
        )
    return sources
