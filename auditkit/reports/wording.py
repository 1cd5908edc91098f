"""What the report says in words: outcomes, limits, cohorts, terms. Derived from the findings."""

import math
from dataclasses import dataclass
from typing import Literal

from auditkit.reports import containers, formatting
from auditkit.reports.content import ReportInput
from schemas import AssuranceLevel, CohortName, Finding, FlaggedRate, RateEstimate, TrainingConfig
from schemas.evaluation import PROVABLE_RATES
from schemas.verification import FindingOutcome

ToneName = Literal["good", "reserved", "bad"]


@dataclass(frozen=True)
class Conclusion:
    """The overall outcome in one headline and one sentence."""

    tone: ToneName
    headline: str
    sentence: str


@dataclass(frozen=True)
class Statement:
    """One point of the summary: a bold lead and an explanation.

    `outcome` chooses the icon of an open point.
    """

    lead: str
    text: str
    outcome: FindingOutcome = "warning"


@dataclass(frozen=True)
class CohortWords:
    """Name of a cohort and one sentence on what it is for."""

    name: str
    text: str


COHORTS: dict[CohortName, CohortWords] = {
    "told": CohortWords(
        "told",
        "Declared members: M trained on them and T was told so. T should recognise them.",
    ),
    "silent": CohortWords(
        "silent",
        "M trained on them but T never saw them. This control shows what happens to data that is "
        "used and not declared: T is not expected to recognise it.",
    ),
    "told_only": CohortWords(
        "told only",
        "T was told “member” but M never trained on them. This control shows that T "
        "recognises what it was told, whether or not M learnt from it.",
    ),
    "external": CohortWords(
        "external", "Non-members that T was shown as non-members while it was trained."
    ),
    "calibration": CohortWords(
        "calibration",
        "Shown to neither model. The thresholds come from these samples alone, so their own rates "
        "equal the nominal ones by construction.",
    ),
    "test": CohortWords(
        "test",
        "Fresh samples from outside the pool. The share flagged here is the false positive rate "
        "as measured, and should agree with the nominal one.",
    ),
}

OUTCOME_WORDS = {
    "passed": "Passed",
    "warning": "Warning",
    "failed": "Failed",
    "not_checked": "Not checked",
}

HEADLINE_PROVABLE_RATE = PROVABLE_RATES[1]

VERDICT_WORDS = {
    "member": "Recognised: told to the MINT Model as a member",
    "not_shown": "Not recognised: no evidence that it was told to the MINT Model",
}

EVIDENCE_WORDS = {
    "declared": "own membership code, provable",
    "calibrated": "score against calibration",
    "undeclared": "passive test",
}

EVIDENCE_MEANING = {
    "declared": "Own membership code: the p-value is a proven bound. A sample that was never told "
    "to T agrees so well with its own code at most this often, whatever it looks like. It rests on "
    "no other sample.",
    "calibrated": "Score against calibration: the p-value is the rank among samples that nobody "
    "was shown. It holds for strangers drawn like those, on average over the samples that could "
    "have been drawn, and says less about others. Where T "
    "learned codes, the score is of the member whose code fits best.",
    "undeclared": "Passive test: the p-value is of a whole set of samples, and of none alone.",
}

CODES_BESIDE_A_HASH = Statement(
    "What membership codes add to a list of hashes.",
    "A list of hashes finds exact copies of the declared samples too, and more simply. Codes add "
    "three things: members are still found after flips, shifts, recompression or resizing; nothing "
    "about the samples has to be stored; and the evidence is inside the model, so it shows that "
    "this model was told these samples, not only that a list names them.",
)

GLOSSARY: tuple[Statement, ...] = (
    Statement("Audited Model (M)", "The model whose training data is in question."),
    Statement(
        "MINT Model (T)",
        "A small model trained together with M that reads M’s inner activations and says "
        "whether a sample was a member. MINT stands for membership inference test.",
    ),
    Statement("Enhanced Audited Model (M+)", "M and T together, as submitted to the auditor."),
    Statement("Member", "A sample that the training used and that was declared to T."),
    Statement(
        "Pool",
        "All samples that the developer committed to before training. The auditor’s nonce, "
        "not the developer, decides which cohort each sample falls into.",
    ),
    Statement(
        "Nonce",
        "A fresh random number from the auditor from which split, order, initial weights and "
        "augmentation all follow, so that nothing can be prepared in advance.",
    ),
    Statement(
        "False positive rate",
        "How often a sample that was not told to T is nevertheless called a member.",
    ),
    Statement(
        "p-value",
        "The probability that a sample unknown to T scores at least this high. "
        "It is not the probability that the sample is a stranger.",
    ),
    Statement(
        "Positive predictive value",
        "How often “member” is right, given how common members are among the "
        "samples asked about (the prior).",
    ),
    Statement(
        "AUC", "Probability that a sample of the cohort scores above a fresh one; 0.5 is guessing."
    ),
    Statement(
        "95 % interval",
        "Exact (Clopper–Pearson) range in which the true rate lies, given how many samples were "
        "counted.",
    ),
    Statement(
        "Digest",
        "SHA-256 fingerprint of a file or document: any change of content changes it.",
    ),
    Statement(
        "Log, checkpoint, cosignature",
        "Each training step is a record of a tamper-evident log. A checkpoint signs the log so "
        "far; the auditor’s cosignature fixes when it was received.",
    ),
    Statement(
        "Replay",
        "Repeating random pieces of the training and comparing the resulting weights with those "
        "that were logged.",
    ),
)

OPEN_LEADS: dict[FindingOutcome, str] = {
    "failed": "Refuted:",
    "warning": "With a warning:",
    "not_checked": "Not checked:",
}

CONSEQUENCES: dict[str, Statement] = {
    containers.IMAGE_CHECK: Statement(
        "Which code ran.",
        "The container was not verified: that the approved code ran is the developer’s own word.",
    ),
    "initial-weights": Statement(
        "Where the training began.",
        "The initial weights were not rebuilt from the nonce, so a start from a model that had "
        "already been trained is not excluded.",
    ),
    "replay": Statement(
        "That the logged steps were computed.",
        "Replay was not performed: no part of the training was repeated, so a forged but "
        "consistent log is not excluded.",
    ),
}
"""What follows for the reader when a check of `auditkit.evidence.verify` was not made."""

WITHOUT_CONTAINER = Statement(
    "Which code ran.",
    "The training did not run in a container: that the approved code ran, and that it saw nothing "
    "but the declared data, is the developer’s own word. Without a container, no evidence reaches "
    "beyond assurance level L1.",
)
"""What follows when there was no container that could have been checked."""

LIMIT_OF_L2 = (
    "Level L2 excludes mistakes, and cheating through the unmodified tools; it does not exclude a "
    "developer who writes their own agent, launcher or container engine."
)
"""What the account of a container is worth: the developer's machine writes it."""

ALWAYS_NOT_PROVEN: tuple[Statement, ...] = (
    Statement(
        "Data that was used but not declared.",
        "T knows what it was told, not what M was trained on: a silent member looks like a "
        "stranger. “Not recognised” therefore never means “not used”.",
    ),
    Statement(
        "An attack by the machine’s administrator.",
        "A developer with root on the host can attack the training from outside, container or "
        "not, or write the whole account of it with tools of their own, and no software check "
        "can exclude it.",
    ),
)


def conclusion(report: ReportInput) -> Conclusion:
    """Return the overall outcome; a failed check outweighs everything else."""
    counted = _counted(report.verification.findings)
    made = counted["passed"] + counted["warning"] + counted["failed"]
    if made == 0:
        return Conclusion(
            "bad", "Nothing was checked", "No check was made, so this report proves nothing."
        )
    if report.seal is None:
        failed = f"{counted['failed']} of {formatting.count_of(made, 'check')} failed"
        return Conclusion(
            "bad" if counted["failed"] else "reserved",
            "The session is not complete",
            "The training has not been sealed, so there is no final model that this evidence "
            f"speaks for; {failed if counted['failed'] else 'no check of what arrived failed'}.",
        )
    if counted["failed"]:
        return Conclusion(
            "bad",
            "The evidence does not hold together",
            f"{counted['failed']} of the {formatting.count_of(made, 'check')} that were made "
            "failed. Nothing below should be relied on until this is explained.",
        )
    reservations = _reservations(counted)
    if report.verification.level < AssuranceLevel.L1:
        return Conclusion(
            "reserved",
            "The evidence is not complete",
            "No check failed, but some that every conclusion rests on could not be made: "
            f"{counted['passed']} passed, {reservations}.",
        )
    if reservations:
        return Conclusion(
            "reserved",
            "The evidence holds, with reservations",
            f"No check failed: {counted['passed']} passed, {reservations}. "
            "The limits are listed below.",
        )
    return Conclusion(
        "good",
        "The evidence holds",
        f"All {formatting.count_of(made, 'check')} passed. The limits are listed below.",
    )


def proven(report: ReportInput) -> list[Statement]:
    """Return what a reader may rely on; nothing when a check failed."""
    if not report.verification.passed or report.verification.level < AssuranceLevel.L1:
        return []
    statements = [
        Statement(
            "The training was logged while it happened.",
            f"{formatting.count_of(report.log.records, 'record')} form one complete log, signed in "
            f"the session and countersigned by {report.auditor} in "
            f"{formatting.count_of(report.log.checkpoints, 'checkpoint')}. It cannot have been "
            "edited, shortened or reordered afterwards.",
        )
    ]
    run = report.request.container
    if report.verification.level >= AssuranceLevel.L2 and run is not None:
        count = 1 + len(report.continuations)
        where = "one container" if count == 1 else f"{count} containers, one after another"
        statements.append(
            Statement(
                "The allowed image ran, as the container engine and the program inside report it.",
                f"It ran in {where}, locked down and without a network. The image, whose identity "
                "was recomputed from its bytes on the developer’s machine, "
                f"{containers.admission(report.order, run)} (section 4). {LIMIT_OF_L2}",
            )
        )
    if report.verification.level >= AssuranceLevel.L3:
        statements.append(
            Statement(
                "The training can be repeated.",
                "Random pieces, and the last one, were run again and led to the weights that were "
                "logged"
                f"{_up_to_noise(report)}. {replay_strength(report)}".rstrip(),
            )
        )
    if report.seal is not None:
        statements.append(
            Statement(
                "This log belongs to one model.",
                "The sealed model has the weights digest "
                f"{report.seal.weights_digest[:12]}… (in full in section 3).",
            )
        )
    return statements + _measured(report)


def replay_strength(report: ReportInput) -> str:
    """Return what the replay covered and could have missed; empty when no level rests on one."""
    verification = report.verification
    if verification.level < AssuranceLevel.L3 or verification.detection is None:
        return ""
    return verification.detection.summary


def _up_to_noise(report: ReportInput) -> str:
    detection = report.verification.detection
    if detection is None or detection.grade == "strong":
        return ""
    return ", up to the noise between two kinds of machine, which makes this weak evidence"


def not_proven(report: ReportInput) -> list[Statement]:
    """Return what a reader must not conclude: every open finding, then the standing limits."""
    findings = report.verification.findings
    consequences = CONSEQUENCES
    if report.request.container is None:
        consequences = consequences | {containers.IMAGE_CHECK: WITHOUT_CONTAINER}
    standing = {
        check: words
        for check, words in consequences.items()
        if all(f.outcome == "not_checked" for f in findings if f.check == check)
    }
    statements = [
        Statement(f"{lead} {_sentence(f.claim)}", _sentence(f.detail), outcome)
        for outcome, lead in OPEN_LEADS.items()
        for f in findings
        if f.outcome == outcome and f.check not in standing
    ]
    if report.seal is None:
        statements.append(
            Statement(
                "The final model.", "The log has no seal, so it does not speak for any final model."
            )
        )
    return [*statements, *standing.values(), *ALWAYS_NOT_PROVEN]


def configuration_rows(config: TrainingConfig) -> list[tuple[str, str]]:
    """Return the declared training configuration as label and value."""
    model, mint, optimiser = config.model, config.mint, config.optimiser
    taps = ", ".join(config.taps.modules) if config.taps.modules else config.taps.setup
    arguments = ", ".join(f"{key} = {value}" for key, value in sorted(model.arguments.items()))
    augmentation = config.augmentation.replace("_", " and ")
    if config.augmentation != "none":
        augmentation += f", up to {config.shift_pixels} pixels"
    return [
        ("Architecture of M", model.architecture + (f" ({arguments})" if arguments else "")),
        ("Input", f"{model.height} × {model.width} pixels, channels: {model.channels}"),
        ("Classes", formatting.integer(model.classes)),
        ("Taps read by T", taps),
        (
            "MINT Model T",
            f"{mint.head.replace('_', ' ')} head, width {mint.channels}, hidden "
            + ", ".join(str(width) for width in mint.hidden),
        ),
        (
            "What T learns",
            f"a secret code of {mint.code_length} numbers for each member"
            if mint.evidence == "codes"
            else "member or not",
        ),
        (
            "Who held T during the training",
            "the auditor; the developer had activations and gradients only "
            f"({mint.wire_precision} on the way)"
            if mint.custody == "auditor"
            else "the developer, in the process that trained M",
        ),
        ("Weight of the task loss, λ1", formatting.decimal(mint.task_weight)),
        ("Weight of the MINT loss, λ2", formatting.decimal(mint.mint_weight)),
        ("Optimiser", f"{optimiser.name}, {optimiser.schedule.replace('_', ' ')} schedule"),
        ("Learning rate and L2 term", f"{optimiser.learning_rate:g} and {optimiser.l2:g}"),
        ("Epochs", formatting.integer(config.epochs)),
        (
            "Samples per step",
            f"{config.batch_size} members and {config.external_batch_size} external",
        ),
        ("Augmentation", augmentation),
        ("Precision", f"{config.precision}, {formatting.count_of(config.threads, 'thread')}"),
    ]


def flagged_at(rates: tuple[FlaggedRate, ...], nominal: float) -> RateEstimate | None:
    """Return the measured rate at one nominal false positive rate, or None if not recorded."""
    for rate in rates:
        if math.isclose(rate.false_positive_rate, nominal):
            return rate.flagged
    return None


def _measured(report: ReportInput) -> list[Statement]:
    if report.evaluation is None:
        return []
    nominal = report.order.false_positive_rate
    found = {
        c.cohort: flagged_at(c.flagged, nominal)
        for c in report.evaluation.cohorts
        if c.cohort in ("told", "test")
    }
    told, test = found.get("told"), found.get("test")
    if told is None or test is None:
        return []
    text = (
        f"The MINT Model recognised {formatting.percent(told.value)} of the samples it was told as "
        f"members, and took {formatting.percent(test.value)} of fresh samples for members, at a "
        f"nominal false positive rate of {formatting.nominal_percent(nominal)}."
    )
    return [Statement("The error rates of membership answers are known.", text), *_own_code(report)]


def _own_code(report: ReportInput) -> list[Statement]:
    """Return what is known about queries for own codes; nothing where T learned none."""
    evaluation = report.evaluation
    if evaluation is None:
        return []
    found = {
        c.cohort: flagged_at(c.own_code, HEADLINE_PROVABLE_RATE)
        for c in evaluation.cohorts
        if c.cohort in ("told", "test")
    }
    told, test = found.get("told"), found.get("test")
    if told is None or test is None:
        return []
    nominal = formatting.p_value(HEADLINE_PROVABLE_RATE)
    return [
        Statement(
            "Members can be told by their own codes.",
            f"By the scores that the developer has sealed, {formatting.percent(told.value)} of the "
            f"samples told as members agree with their own code at a false positive rate of "
            f"{nominal}, which is proven and not measured. Of fresh samples, "
            f"{test.successes} of {formatting.integer(test.trials)} agreed with a code that was "
            "never used.",
        )
    ]


def _counted(findings: tuple[Finding, ...]) -> dict[str, int]:
    return {word: sum(f.outcome == word for f in findings) for word in OUTCOME_WORDS}


def _reservations(counted: dict[str, int]) -> str:
    parts = []
    if counted["warning"]:
        parts.append(f"{counted['warning']} gave a warning")
    if counted["not_checked"]:
        verb = "was" if counted["not_checked"] == 1 else "were"
        parts.append(f"{counted['not_checked']} {verb} not made")
    return " and ".join(parts)


def _sentence(text: str) -> str:
    """Return the claim as a sentence: a capital first, a full stop last."""
    trimmed = text.strip().rstrip(".")
    return f"{trimmed[:1].upper()}{trimmed[1:]}."
