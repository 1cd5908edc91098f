"""The charts of a session's report, each with a text that says what it shows."""

import math
from dataclasses import dataclass

import numpy as np

from auditkit.reports import formatting, plots, statistics
from auditkit.reports.content import COHORT_ORDER, FloatArray, ReportInput, StepTrace
from auditkit.reports.wording import COHORTS
from schemas import CohortName

CURVE_POINTS = 300
HISTOGRAM_BINS = 40
LARGEST_DRAWN_LOSS = 1e30  # any real loss is far below
LEAST_ROC_RATE = 1e-4  # lower rates are never resolved by the sample sizes in use

COHORT_COLOURS: dict[CohortName, str] = {
    "told": "#1f4e79",
    "silent": "#9a3b1b",
    "told_only": "#5b3a86",
    "external": "#4a5563",
    "calibration": "#7a5a00",
    "test": "#1d6350",
}
TASK_COLOUR = "#1f4e79"
MINT_COLOUR = "#9a3b1b"
CHANCE_COLOUR = "#5b6472"
MINT_DASH = "6 3"


@dataclass(frozen=True)
class Figure:
    """A chart and the caption under it."""

    svg: str
    caption: str


def training_figures(report: ReportInput) -> list[Figure]:
    """Return loss and accuracy over the steps, or nothing if no step was logged."""
    return step_figures(report.steps)


def step_figures(steps: StepTrace, each: int = 1) -> list[Figure]:
    """Return loss and accuracy over the steps.

    Args:
        steps: the training, in order; nothing is drawn without any.
        each: steps that one entry of `steps` is the mean of.
    """
    if len(steps) == 0:
        return []
    at = statistics.bucket_means(steps.step.astype(np.float64), CURVE_POINTS)
    group = each * math.ceil(len(steps) / CURVE_POINTS)
    averaged = "" if group == 1 else f" Each point is the mean of about {group} steps."
    task_loss = statistics.bucket_means(_drawable(steps.task_loss), CURVE_POINTS)
    mint_loss = statistics.bucket_means(_drawable(steps.mint_loss), CURVE_POINTS)
    task_accuracy = statistics.bucket_means(steps.task_accuracy, CURVE_POINTS)
    mint_accuracy = statistics.bucket_means(steps.mint_accuracy, CURVE_POINTS)
    x_axis = plots.Axis("step", *_widened(float(at.min()), float(at.max())))
    losses = plots.line_chart(
        plots.Frame(
            "loss-curves",
            "Losses during training",
            f"Task loss goes from {task_loss[0]:.3g} to {task_loss[-1]:.3g}, "
            f"MINT loss from {mint_loss[0]:.3g} to {mint_loss[-1]:.3g}, "
            f"over {formatting.integer(each * len(steps))} steps.",
        ),
        x_axis,
        plots.Axis("loss (nats)", 0.0, _ceiling(task_loss, mint_loss)),
        [
            plots.Line("task loss of M", at, task_loss, TASK_COLOUR),
            plots.Line("MINT loss of T", at, mint_loss, MINT_COLOUR, MINT_DASH),
        ],
    )
    accuracies = plots.line_chart(
        plots.Frame(
            "accuracy-curves",
            "Accuracy on the training batches",
            f"Accuracy of M goes from {formatting.percent(task_accuracy[0])} to "
            f"{formatting.percent(task_accuracy[-1])}, of T from "
            f"{formatting.percent(mint_accuracy[0])} to {formatting.percent(mint_accuracy[-1])}.",
        ),
        x_axis,
        plots.Axis("accuracy", 0.0, 1.0, percent=True),
        [
            plots.Line("M: right class", at, task_accuracy, TASK_COLOUR),
            plots.Line("T: member or not", at, mint_accuracy, MINT_COLOUR, MINT_DASH),
        ],
    )
    return [
        Figure(losses, f"Losses, as recorded at each step.{averaged}"),
        Figure(accuracies, f"Accuracies on the batches just trained on.{averaged}"),
    ]


def score_histograms(report: ReportInput) -> list[Figure]:
    """Return one histogram of T's scores per cohort, all on the same axes."""
    present = [cohort for cohort in COHORT_ORDER if len(report.scores.get(cohort, ())) > 0]
    if not present:
        return []
    everything = np.concatenate([report.scores[cohort] for cohort in present])
    low, high = _widened(float(everything.min()), float(everything.max()))
    edges = np.linspace(low, high, HISTOGRAM_BINS + 1)
    shares = {c: np.histogram(report.scores[c], edges)[0] / len(report.scores[c]) for c in present}
    x_axis = plots.Axis("score of T", low, high)
    y_axis = plots.Axis("share of samples", 0.0, _ceiling(*shares.values()), percent=True)
    rate = report.order.false_positive_rate
    threshold = statistics.conformal_threshold(
        np.asarray(report.scores.get("calibration", ()), dtype=np.float64), rate
    )
    return [
        Figure(
            plots.histogram(
                plots.Frame(
                    f"scores-{cohort.replace('_', '-')}",
                    f"Scores of the cohort {COHORTS[cohort].name}",
                    _histogram_words(report.scores[cohort], threshold, rate),
                    width=330.0,
                    height=200.0,
                ),
                x_axis,
                y_axis,
                edges=edges,
                heights=shares[cohort],
                colour=COHORT_COLOURS[cohort],
                marker=threshold,
            ),
            f"{COHORTS[cohort].name} (n = {formatting.integer(len(report.scores[cohort]))})",
        )
        for cohort in present
    ]


def roc_figure(report: ReportInput) -> Figure | None:
    """Return the log-log ROC of each member cohort against the fresh test samples."""
    others = report.scores.get("test")
    compared: list[tuple[CohortName, str, float]] = [
        ("told", "", 2.2),
        ("told_only", "7 3", 1.7),
        ("silent", "2 3", 1.7),
    ]
    present = [entry for entry in compared if len(report.scores.get(entry[0], ())) > 0]
    if others is None or len(others) == 0 or not present:
        return None
    low = max(LEAST_ROC_RATE, 10.0 ** math.floor(math.log10(1 / len(others))))
    axis = plots.Axis("false positive rate, on test", low, 1.0, "log", percent=True)
    lines, words = [], []
    for cohort, dash, width in present:
        false_rates, true_rates = statistics.roc_curve(report.scores[cohort], others)
        drawn = true_rates >= low
        name = COHORTS[cohort].name
        colour = COHORT_COLOURS[cohort]
        lines.append(
            plots.Line(name, false_rates[drawn], true_rates[drawn], colour, dash, width=width)
        )
        reached = float(np.interp(0.01, false_rates, true_rates))
        words.append(f"{name}: {formatting.percent(reached)} found at 1 % false positives.")
    chance = np.asarray([low, 1.0])
    lines.append(plots.Line("chance", chance, chance, CHANCE_COLOUR, "1 3", width=1.8))
    svg = plots.line_chart(
        plots.Frame(
            "roc",
            "True positive rate against false positive rate, both on a logarithmic scale",
            " ".join(words),
            width=460.0,
            height=360.0,
        ),
        axis,
        plots.Axis("true positive rate", low, 1.0, "log", percent=True),
        lines,
    )
    return Figure(
        svg,
        "Trade-off of T: how many members are found (up) for how many false alarms (right). "
        "A line on the diagonal is guessing.",
    )


def _histogram_words(scores: FloatArray, threshold: float | None, rate: float) -> str:
    quartiles = np.percentile(scores, [25, 50, 75])
    words = (
        f"{formatting.integer(len(scores))} samples; half of the scores lie between "
        f"{quartiles[0]:.3g} and {quartiles[2]:.3g}, the median is {quartiles[1]:.3g}."
    )
    if threshold is None:
        return words
    above = formatting.percent(float(np.mean(scores > threshold)))
    return f"{words} {above} lie above the {formatting.nominal_percent(rate)} threshold."


def _drawable(losses: FloatArray) -> FloatArray:
    """Bound what a forged log claims, so that it cannot overflow the arithmetic of a chart."""
    return np.clip(losses, -LARGEST_DRAWN_LOSS, LARGEST_DRAWN_LOSS)


def _widened(low: float, high: float) -> tuple[float, float]:
    """Return a range that is never empty, whatever the scale of its numbers."""
    if high - low > 1e-9 * max(abs(low), abs(high), 1e-9):
        return low, high
    margin = max(abs(low), 1.0) / 2
    return low - margin, high + margin


def _ceiling(*series: FloatArray) -> float:
    """Return the upper end of an axis from 0 that holds all values."""
    highest = max(float(np.max(values)) for values in series)
    return 1.05 * highest if highest > 0 else 1.0
