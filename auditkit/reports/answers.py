"""What a signed verdict says in plain words, and what it does not say."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from auditkit.evidence.error_rates import exact_interval
from auditkit.reports import formatting
from auditkit.reports.wording import Conclusion, Statement, ToneName
from schemas import AssuranceLevel, CohortName, MembershipVerdict
from schemas.verdict import EvidenceKind, Outcome

COMMON_LIMITS = 2  # the model, and its level: the last points that every answer has
FOUND, RECOGNISED, NOT_SHOWN = "Found", "Recognised", "Not shown"

KIND_WORDS: dict[EvidenceKind, str] = {
    "declared": "keyed code, the picture's own",
    "calibrated": "score against calibration",
    "undeclared": "passive test of a set",
}
BLIND_WORDS = "keyed code, compared with those of all members"

SET_WORDS: dict[EvidenceKind, str] = {
    "declared": "Evidence that at least one of these {} pictures was told to the model",
    "calibrated": "These {} pictures stand out together: at least one was told to the model, or "
    "they resemble one another, or are of another kind than its own samples",
    "undeclared": "These {} pictures stand out together",
}
NO_SET_EVIDENCE = "No evidence that any of these {} pictures was told to the model"
SET_RESTS_ON: dict[EvidenceKind, str] = {
    "declared": "A proven bound on how well the own codes of strangers agree together, which rests "
    "on the scores in the signed verdicts alone.",
    "calibrated": "A permutation test: how often as many samples that nobody was shown score as "
    "high together. It rests on the scores in the signed verdicts and on the sealed scores of the "
    "calibration set. It holds for pictures that have no more to do with one another than the "
    "model's own samples have: several shots of one scene score alike and stand out by chance. "
    "Judge for yourself whether that is so, whether they are of the same kind as the model's own "
    "samples, and whether they were chosen before their answers were known; otherwise it says "
    "nothing.",
    "undeclared": "A passive test of the set.",
}
SET_LIMIT = (
    "It does not say which one, nor that all were. It is computed from the signed verdicts, and is "
    "not signed itself: `auditkit verify-verdict` computes it again."
)
DISCOVERY_WORDS = (
    "Of the pictures marked as discoveries, on average at most {} are false ones (Benjamini and "
    "Hochberg, over the different pictures of this inquiry, for this model)."
)

MATCH_WORDS: dict[CohortName, str] = {
    "told": "Yes: it is sample {} of the list, one that the model was trained on and told of.",
    "silent": "Yes: it is sample {} of the list, one that the model was trained on, and that the "
    "part that answers here was never told of.",
    "told_only": "Yes: it is sample {} of the list, one that the part that answers here was told "
    "of, and that the model was not trained on.",
    "external": "Yes: it is sample {} of the list, one that was shown as a non-member.",
    "calibration": "Yes: it is sample {} of the list, one that was shown to neither part.",
    "test": "Yes: it is sample {} of the list of fresh samples.",
}
NO_MATCH = (
    "Not looked up. The list is keyed, so that nobody can test pictures against it; only an "
    "opening that the developer makes for exactly this picture finds it there."
)


@dataclass(frozen=True)
class AskedModel:
    """The model that was asked, as its developer names it."""

    name: str
    developer: str
    session_id: str


@dataclass(frozen=True)
class ShownAnswer:
    """One verdict, and what stands beside it; only the verdict is signed."""

    verdict: MembershipVerdict
    digest: str
    """SHA-256 of what was signed, as the registry has it."""
    picture: str | None = None
    match: tuple[int, CohortName] | None = None
    """Index and cohort in the developer's list, where an opening shows that it is in it."""
    adjusted_p_value: float | None = None

    def is_discovery(self, false_discovery_rate: float) -> bool:
        """Tell whether it is a discovery among the answers beside it."""
        return self.adjusted_p_value is not None and self.adjusted_p_value <= false_discovery_rate


@dataclass(frozen=True)
class ShownSet:
    """What all pictures of one kind of evidence show together."""

    headline: str
    evidence: EvidenceKind
    outcome: Outcome
    p_value: float
    false_positive_rate: float
    rests_on: str

    @property
    def tone(self) -> ToneName | None:
        """How to colour it: only what is proven for all pictures, whatever they show, is good."""
        if self.outcome == "not_shown":
            return None
        return "good" if self.evidence == "declared" else "reserved"


@dataclass(frozen=True)
class ShownBatch:
    """The answers of one model, at least one."""

    model: AskedModel
    answers: tuple[ShownAnswer, ...]
    sets: tuple[ShownSet, ...]

    @property
    def false_positive_rate(self) -> float:
        """The rate of every answer."""
        return self.answers[0].verdict.false_positive_rate

    @property
    def found(self) -> int:
        """How many pictures were found or recognised at that rate."""
        return sum(answer.verdict.outcome == "member" for answer in self.answers)

    @property
    def by_chance(self) -> float:
        """How many would be on average if all were strangers."""
        return self.false_positive_rate * len(self.answers)

    def discoveries(self, false_discovery_rate: float) -> int:
        """Return how many are discoveries."""
        return sum(answer.is_discovery(false_discovery_rate) for answer in self.answers)


def shown_set(
    evidence: EvidenceKind,
    samples: int,
    outcome: Outcome,
    p_value: float,
    false_positive_rate: float,
) -> ShownSet:
    """Return what a test of a whole set says."""
    words = SET_WORDS[evidence] if outcome == "member" else NO_SET_EVIDENCE
    headline = words.format(formatting.integer(samples))
    return ShownSet(
        headline, evidence, outcome, p_value, false_positive_rate, SET_RESTS_ON[evidence]
    )


def kind_words(verdict: MembershipVerdict) -> str:
    """Name the kind of evidence that a verdict rests on."""
    if verdict.evidence == "calibrated" and verdict.code_index is not None:
        return BLIND_WORDS
    return KIND_WORDS[verdict.evidence]


def short_answer(verdict: MembershipVerdict) -> str:
    """Return the answer in a word or two: only a picture's own code finds that very picture."""
    if verdict.outcome == "not_shown":
        return NOT_SHOWN
    return FOUND if verdict.evidence == "declared" else RECOGNISED


def answer(verdict: MembershipVerdict) -> Conclusion:
    """Return the answer in one headline and one sentence."""
    strangers = of_strangers(verdict)
    rate = formatting.nominal_percent(verdict.false_positive_rate)
    if verdict.outcome == "not_shown":
        return Conclusion(
            "reserved",
            f"{NOT_SHOWN}: no evidence that the model was told of this picture",
            f"At the chosen rate of {rate} there is no evidence. Of strangers, {strangers} would "
            "answer like this picture, or more strongly, by chance alone.",
        )
    if verdict.evidence == "declared":
        return Conclusion(
            "good",
            f"{FOUND}: the model answers with this picture's own code",
            f"Of pictures that the model was never told of, {strangers} would answer with their "
            f"own code so clearly by chance, whatever they show. The chosen rate is {rate}.",
        )
    return Conclusion(
        "good",
        f"{RECOGNISED}: the model answers as for a picture it was told of, or one very like it",
        f"Of strangers drawn like the model's own samples, {strangers} would be recognised so "
        f"clearly by chance. The chosen rate is {rate}.",
    )


def of_strangers(verdict: MembershipVerdict) -> str:
    """Return a p-value as a share of strangers.

    A bound on codes holds for every session: `at most 1 in 200`. A rank in C holds on average over
    the sets that could have been drawn as C. What one C says of its own session is a share with an
    interval: `about 1 in 1,000 (exact 95 % interval: up to 1 in 271)`.
    """
    if verdict.evidence == "declared":
        return _share(verdict.p_value, "at most")
    size = verdict.calibration_size
    at_least = max(round(verdict.p_value * (size + 1)) - 1, 0)
    _, high = exact_interval(at_least, size)
    return (
        f"{_share(verdict.p_value, 'about')} (exact 95{formatting.NO_BREAK_SPACE}% interval: "
        f"{_share(high, 'up to')})"
    )


def _share(value: float, how: str) -> str:
    if value > 0.5:
        return f"{how} {math.ceil(100 * value)}{formatting.NO_BREAK_SPACE}%"
    return f"{how} 1 in {int(1 / value):,}" if value > 1e-9 else "fewer than 1 in a billion"


def match_words(match: tuple[int, CohortName] | None) -> str:
    """Say whether a picture is in the developer's list; `match` is its index and cohort there."""
    if match is None:
        return NO_MATCH
    index, cohort = match
    return MATCH_WORDS[cohort].format(formatting.integer(index))


def limits(verdict: MembershipVerdict) -> tuple[Statement, ...]:
    """Return what a verdict does not say."""
    statements = []
    if verdict.outcome == "member" and verdict.evidence == "calibrated":
        statements.append(
            Statement(
                "It counts only for pictures of the same kind as the model's own samples.",
                "The rate is that of strangers drawn like those. A picture of another kind, say a "
                "photograph where the model knows drawings, or one that had to be resized much, "
                "can score high for that reason alone.",
            )
        )
    if verdict.outcome == "not_shown":
        statements.append(
            Statement(
                "It does not say that the picture was not used.",
                "The part of the model that answers knows what it was told, and nothing else. A "
                "picture that was used in silence looks like a stranger; and some that were told "
                "are not recognised.",
            )
        )
    else:
        statements.append(
            Statement(
                "It is not certain.",
                f"Of strangers, up to {formatting.nominal_percent(verdict.false_positive_rate)} "
                "get this answer by chance, on average. Which share of all such answers is false "
                "depends on how many strangers are asked about.",
            )
        )
    if verdict.outcome == "member" and verdict.evidence == "calibrated":
        statements.append(
            Statement(
                "It does not say that it is this very file.",
                "An altered copy, or a picture that closely resembles a member, can be recognised, "
                "too.",
            )
        )
    if verdict.outcome == "member":
        statements.append(
            Statement(
                "It does not say how the picture came there,",
                "or whether that was lawful. It says that the model was told of it as a member.",
            )
        )
    statements.append(
        Statement(
            "It speaks of this one model only.",
            "Other models, and other trainings of the same developer, have to be asked themselves.",
        )
    )
    statements.append(_level(verdict.level))
    return tuple(statements)


def limits_of_all(batches: Sequence[ShownBatch]) -> tuple[Statement, ...]:
    """Return what none of several answers says, each point once; those of every answer last."""
    said = [limits(answer.verdict) for batch in batches for answer in batch.answers]
    own = [item for items in said for item in items[:-COMMON_LIMITS]]
    common = [item for items in said for item in items[-COMMON_LIMITS:]]
    return tuple(dict.fromkeys([*own, *common]))


def _level(level: AssuranceLevel) -> Statement:
    if level is AssuranceLevel.L0:
        return Statement(
            "The record of the training does not hold (level L0).",
            "Do not rely on this answer: nothing shows that the model is the one that was trained.",
        )
    return Statement(
        f"It is as good as the record of the training, level {level.name}.",
        f"{level.name} means: {level.meaning}.",
    )
