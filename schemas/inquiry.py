"""Inquiries: many pictures asked of many models at once, and how the answers read together."""

from typing import Annotated

from pydantic import AwareDatetime, Field

from schemas.base import Count, FiniteFloat, Fraction, Name, Rate, Schema
from schemas.evaluation import CohortName
from schemas.verdict import EvidenceKind, Outcome
from schemas.wire import SignedDocument

InquiryId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class Match(Schema):
    """The picture is a sample of the committed pool, byte for byte: its opening shows it."""

    index: Count
    cohort: CohortName


class Answer(Schema):
    """What one model answered about one picture; the verdict itself is signed, and elsewhere."""

    picture: Count
    verdict_id: Name
    adjusted_p_value: Fraction
    match: Match | None


class SetAnswer(Schema):
    """What the answers about all pictures of one kind of evidence show together."""

    evidence: EvidenceKind
    samples: Count
    statistic: FiniteFloat
    p_value: Fraction
    false_positive_rate: Rate
    outcome: Outcome


class ModelAnswers(Schema):
    """What one model answered."""

    session_id: Name
    answers: tuple[Answer, ...]
    sets: tuple[SetAnswer, ...]


class Inquiry(Schema):
    """What was asked at once, and how the answers read together. Not signed: the verdicts are."""

    id: InquiryId
    at: AwareDatetime
    purpose: str
    false_discovery_rate: Rate
    pictures: tuple[str, ...]
    models: tuple[ModelAnswers, ...]


class InquiryAnswer(Schema):
    """An inquiry, and the signed verdicts that it is about."""

    inquiry: Inquiry
    verdicts: tuple[SignedDocument, ...] = Field(description="each a signed MembershipVerdict")
