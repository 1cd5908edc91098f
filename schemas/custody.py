"""What crosses the wire where the auditor's server holds the MINT Model T.

The agent asks, with a request that its session key signs and a payload whose digest the request
names; the server answers with one of the documents below, and with gradients where there are any.
"""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from schemas.base import Count, FiniteFloat, Fraction, Name, Schema, Sha256
from schemas.evaluation import CohortMetrics, CohortName

MOST_TAPS = 64
MOST_DIMENSIONS = 4
MOST_NUMBERS = 2**24  # of one sample, over all taps

Extent = Annotated[int, Field(ge=1, le=MOST_NUMBERS)]
Shape = Annotated[tuple[Extent, ...], Field(min_length=1, max_length=MOST_DIMENSIONS)]
ExchangeKind = Literal["begin", "step", "scores", "evaluation", "final"]


class MintExchangeRequest(Schema):
    """One exchange with the server that holds T; signed by the session key in a DSSE envelope.

    `begin`: training begins, or goes on, after `step` steps. The payload is a `TapShapes`.
    `step`: the activations of the rows that T sees in this step come, gradients go back.
    `scores`: activations of a part of a cohort, with M's own losses, for the evaluation after
    `step` steps. `evaluation`: all parts are sent; metrics go back. `final`: the weights of M come.
    """

    schema_version: Literal[1] = 1
    session_id: Name
    kind: ExchangeKind
    step: Count
    cohort: CohortName | None = Field(default=None, description="of `scores`")
    first: Count = Field(default=0, description="of `scores`: number of the part's first sample")
    payload: Sha256


class TapShapes(Schema):
    """Shapes of one sample's activations per tap, in running order, without the batch axis."""

    shapes: Annotated[tuple[Shape, ...], Field(min_length=1, max_length=MOST_TAPS)]

    @model_validator(mode="after")
    def _are_not_too_large(self) -> "TapShapes":
        if sum(math.prod(shape) for shape in self.shapes) > MOST_NUMBERS:
            raise ValueError(f"activations of more than {MOST_NUMBERS} numbers per sample")
        return self


class MintStanding(Schema):
    """Where T stands, at a step whose state is kept."""

    step: Count
    state_digest: Sha256 = Field(description="SHA-256 of T's state, which nobody else has")
    weights_digest: Sha256 = Field(description="SHA-256 of T's weights as safetensors")


class MintStepAnswer(Schema):
    """What T's holder says about one step; the gradients follow."""

    step: Annotated[int, Field(ge=1)]
    loss: FiniteFloat = Field(description="MINT loss of the step")
    accuracy: Fraction
    normaliser: FiniteFloat = Field(gt=0.0, description="MINT loss of the first step, as divisor")
    standing: MintStanding | None = Field(description="where the state after this step is kept")


class MintScoresAnswer(Schema):
    """A part of a cohort was scored. Nothing is said about the scores."""

    samples: Count


class MintEvaluation(Schema):
    """Metrics of all cohorts after a step; the scores stay with the auditor."""

    step: Count
    cohorts: tuple[CohortMetrics, ...]


class MintFinal(Schema):
    """M+ as the server has put it together from M and T: what the log is to be sealed with."""

    weights_digest: Sha256 = Field(description="of M+")
    audited_weights_digest: Sha256 = Field(description="of M alone, as it came")
    mint_weights_digest: Sha256 = Field(description="of T alone")
    scores_digest: Sha256
    mint_parameters: Count = Field(description="number of T's parameters")
