"""Replay: which stretches of a training the auditor drew, and what executing them again gave."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, model_validator

from schemas.base import Count, FiniteFloat, Fraction, Name, Schema, Sha256
from schemas.records import ExecutionMode
from schemas.session import Environment

MOST_DRAWN_SEGMENTS = 2_000  # of each kind; keeps a result within the size of a signed envelope
MOST_SEGMENTS_OF_A_DRAW = 2 * MOST_DRAWN_SEGMENTS + 1  # both kinds, and the last of the training

DrawSeed = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="32 random bytes, hex")]
Uniform = Annotated[int, Field(ge=1, le=MOST_DRAWN_SEGMENTS)]
Largest = Annotated[int, Field(ge=0, le=MOST_DRAWN_SEGMENTS)]
Distance = Annotated[FiniteFloat, Field(ge=0.0)]

SegmentOutcome = Literal["exact", "within_tolerance", "differs", "not_opened"]
PartOutcome = Literal["exact", "within_tolerance", "differs", "not_checked"]
ReplayGrade = Literal["strong", "weak"]


class ReplaySegment(Schema):
    """The steps from one committed state to the next one."""

    first_state_step: Count = Field(description="step after which the first state was saved")
    last_state_step: Count = Field(description="step after which the next state was saved")

    @model_validator(mode="after")
    def _goes_forward(self) -> "ReplaySegment":
        if self.last_state_step <= self.first_state_step:
            raise ValueError("a segment ends after it begins")
        return self

    @property
    def steps(self) -> int:
        """Number of optimisation steps in the segment."""
        return self.last_state_step - self.first_state_step


class DrawRequest(Schema):
    """Body of `POST /v1/sessions/{session_id}/draws`: how much the auditor wants executed again.

    The last segment of the training, which ends in the sealed weights, is in every draw.
    """

    uniform: Uniform = Field(description="segments drawn at random among all")
    largest: Largest = Field(
        default=0, description="further segments with the largest weight moves"
    )
    most_steps: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="refuse to draw if any segment has more steps: a replay by tolerance tells "
        "nothing about long ones",
    )


class ReplayDraw(Schema):
    """What the auditor drew after the seal. Anybody can repeat the draw from seed and log."""

    schema_version: Literal[1] = 1
    draw_id: Name
    number: Annotated[int, Field(ge=1)] = Field(
        description="1 for the first draw of a session; draws are never left out"
    )
    session_id: Name
    seal_digest: Sha256 = Field(description="SHA-256 of the line of the seal record")
    log_size: Count
    log_root: Sha256 = Field(description="Merkle root of the sealed log")
    seed: DrawSeed
    uniform: Uniform = Field(description="as asked for; all segments if there are fewer")
    largest: Largest
    most_steps: Annotated[int, Field(ge=1)] | None
    segments: tuple[ReplaySegment, ...] = Field(
        min_length=1,
        max_length=MOST_SEGMENTS_OF_A_DRAW,
        description="the uniform ones in the order of the draw, then the last one of the training, "
        "then the largest moves; none twice",
    )
    drawn_at: AwareDatetime


class SegmentResult(Schema):
    """What executing one segment again gave.

    `exact`: state file and weights are equal, bit by bit, to what the log commits to.
    `within_tolerance`: they differ by no more than honest noise does. `differs`: by more, or what
    was opened is not what was committed. `not_opened`: the developer did not hand it over.
    """

    segment: ReplaySegment
    outcome: SegmentOutcome
    start_digest: Sha256 | None = Field(
        description="SHA-256 of the state file that the execution began from; None: not opened"
    )
    end_digest: Sha256 | None = Field(
        description="SHA-256 of the state that the execution ended in; None: not executed"
    )
    distance: Distance | None = Field(
        default=None, description="from the committed end state, where the two are not equal"
    )
    tolerance: Distance | None = Field(
        default=None, description="largest distance that honest noise explains"
    )
    moved: Distance | None = Field(
        default=None, description="how far the execution moved the weights; compared with the log"
    )
    steps: Count = Field(description="steps that were executed")
    seconds: Annotated[FiniteFloat, Field(ge=0.0)]
    first_differing_step: int | None = Field(
        default=None, ge=1, description="where a bisected dispute ended"
    )


class PartResult(Schema):
    """What executing the initialisation, or the scoring of all cohorts, again gave."""

    outcome: PartOutcome
    digest: Sha256 | None = Field(
        description="SHA-256 of what the execution gave: the weights file, or the scores file "
        "with the sealed scores of the cohorts that were not opened"
    )
    distance: Distance | None = None
    tolerance: Distance | None = None


class ReplayResult(Schema):
    """What the auditor found when executing the drawn segments again."""

    schema_version: Literal[1] = 1
    session_id: Name
    draw_digest: Sha256 = Field(description="SHA-256 of the draw's DSSE payload")
    environment: Environment
    mode: ExecutionMode
    image_digest: Sha256 | None
    segments: tuple[SegmentResult, ...] = Field(max_length=MOST_SEGMENTS_OF_A_DRAW)
    initialisation: PartResult
    scores: PartResult
    grade: ReplayGrade
    started_at: AwareDatetime
    finished_at: AwareDatetime


class EscapeProbability(Schema):
    """How probable it is that a forgery of this extent lies in no segment that was drawn.

    One that touches the last segment never escapes, so this is about forgeries that leave it alone.
    """

    extent: Fraction = Field(description="share of what `of` names")
    of: Literal["segments", "steps"]
    forged_segments: Count
    escape: Fraction = Field(description="exact: drawn without replacement")
    bound: Fraction = Field(description="the simpler (1 - share of forged segments)^drawn")

    @property
    def words(self) -> str:
        """How probably it escapes, and what it is; part of a sentence for people."""
        if self.of == "segments":
            extent = f"{100 * self.extent:.3g} % of the segments"
        else:
            extent = f"one step in {1 / self.extent:.0f}, spread evenly"
        return f"{100 * self.escape:.3g} % if it touches {extent}"


class DetectionProbability(Schema):
    """How sure a passed replay is, without which level L3 says nothing."""

    grade: ReplayGrade
    segments: Count = Field(description="in the whole training")
    uniform: Count = Field(description="drawn at random and executed again, over all draws")
    executed: Count = Field(description="different segments that were executed again")
    escapes: tuple[EscapeProbability, ...]

    @property
    def summary(self) -> str:
        """What was executed again and what that could have missed, in two sentences for people."""
        drawn = (
            f"{self.executed} of {self.segments} segments executed again, {self.uniform} drawn at "
            f"random, graded {self.grade}."
        )
        missed = ", ".join(escape.words for escape in self.escapes)
        return f"{drawn} A forgery escapes with a probability of {missed}."
