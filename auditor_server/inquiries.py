"""Inquiries: many pictures, many models, one purpose; what the desk asks at once.

Every answer is a signed verdict, as of a single query. What is kept beside the verdicts, and goes
when the audit trail of that day goes: the names of the files, the purpose, and how the answers read
together. Pictures are never kept.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from auditkit.data.errors import OpeningError
from auditkit.evidence import dsse, statements
from auditkit.evidence.derivation import derive_split
from auditkit.mint.batches import items_of, judge
from auditkit.mint.calibration import check_rate
from auditor_server import queries
from auditor_server.access import questions
from auditor_server.access.principals import Principal
from auditor_server.context import Auditor
from auditor_server.documents import parse, read_grant
from auditor_server.errors import (
    InquiryNotFoundError,
    InvalidDocumentError,
    MissingPartError,
    OpeningSessionError,
    VerdictNotFoundError,
)
from auditor_server.explorer import cohort_of
from auditor_server.held_submissions import is_held
from auditor_server.loaded_models import ModelCache
from auditor_server.queries import Question
from auditor_server.store import InquiryRow, SessionRow, VerdictRow
from schemas import MembershipVerdict, SampleOpening
from schemas.inquiry import Answer, Inquiry, Match, ModelAnswers, SetAnswer

MOST_MODELS = 8
MOST_LISTED = 20
ID_RANDOM_BYTES = 8


@dataclass(frozen=True)
class Asked:
    """What somebody wants to know."""

    session_ids: tuple[str, ...]
    pictures: tuple[tuple[str, bytes], ...]
    openings: tuple[SampleOpening, ...]
    purpose: str | None
    false_positive_rate: float | None
    """None: that of each model's order."""
    false_discovery_rate: float
    resize: bool


@dataclass(frozen=True)
class SeenVerdict:
    """A verdict that a principal may see, with what they may see of its inquiry."""

    session: SessionRow
    verdict: MembershipVerdict
    envelope: bytes
    inquiry: Inquiry | None

    @property
    def answer(self) -> Answer | None:
        """What the inquiry keeps of the verdict."""
        of_all = self.inquiry.models if self.inquiry else ()
        found = (answer for model in of_all for answer in model.answers)
        return next((a for a in found if a.verdict_id == self.verdict.verdict_id), None)

    @property
    def picture(self) -> str | None:
        """The name of the file that was asked about."""
        if self.inquiry is None or self.answer is None:
            return None
        return self.inquiry.pictures[self.answer.picture]


def ask(auditor: Auditor, models: ModelCache, principal: Principal, asked: Asked) -> Inquiry:
    """Ask every model about every picture, sign a verdict for each, and keep how they belong.

    Nothing is answered before everything is known to be answerable: a picture that cannot be
    decoded, or a rate that one of the models can't give, leaves no verdict behind.

    Raises:
        MissingPartError: no model or no picture was chosen.
        InvalidDocumentError: too many models.
        SessionNotFoundError: the principal may not see a model.
        FalsePositiveRateError: a rate is no proportion.
        OpeningSessionError, OpeningError: an opening is for none of the models or pictures.
        ServerError, DataError, MintError: see `questions.admit`, `queries.ask`, `queries.answer`.

    """
    sessions = _sessions(auditor, principal, asked.session_ids)
    if not asked.pictures:
        raise MissingPartError("choose at least one picture, a folder, or a ZIP archive")
    check_rate(asked.false_discovery_rate)
    if asked.false_positive_rate is not None:
        check_rate(asked.false_positive_rate)
    files = [data for _, data in asked.pictures]
    purposes = [
        questions.admit(auditor, principal, session, asked.purpose, files) for session in sessions
    ]
    asked_of = {session.id for session in sessions}
    if any(opening.session_id not in asked_of for opening in asked.openings):
        raise OpeningSessionError(
            "an opening is of a model that was not chosen; choose it, or leave the opening out"
        )

    def prepare(session: SessionRow) -> tuple[Question, list[Match | None]]:
        rate = asked.false_positive_rate
        question = queries.ask(auditor, models, session, asked.pictures, rate, resize=asked.resize)
        opened, matches = _open(question, asked.openings)
        queries.check_answerable(opened)
        return opened, matches

    if len(sessions) > 1:
        for session in sessions:  # the pixels for several models might not fit into memory
            prepare(session)
    answered = tuple(_answer(auditor, *prepare(session)) for session in sessions)
    return _keep(
        auditor,
        principal,
        Inquiry(
            id=secrets.token_hex(ID_RANDOM_BYTES),
            at=auditor.now(),
            purpose=purposes[0],
            false_discovery_rate=asked.false_discovery_rate,
            pictures=tuple(name for name, _ in asked.pictures),
            models=answered,
        ),
    )


def find(auditor: Auditor, principal: Principal, inquiry_id: str) -> Inquiry:
    """Return an inquiry that the principal may see.

    Raises:
        InquiryNotFoundError: there is none any more, or it is another's; the two are not told
            apart.

    """
    row = auditor.store.inquiries.find(inquiry_id, _kept_since(auditor))
    inquiry = _seen(principal, row)
    if inquiry is None:
        raise InquiryNotFoundError(
            f"no inquiry {inquiry_id!r} is open to you; inquiries are forgotten with the audit "
            "trail, their verdicts stay"
        )
    return inquiry


def verdicts_of(auditor: Auditor, inquiry: Inquiry) -> dict[str, VerdictRow]:
    """Return the verdicts that answer an inquiry by their names, in the order of signing."""
    row = auditor.store.inquiries.find(inquiry.id, _kept_since(auditor))
    rows = auditor.store.verdicts_of_inquiry(row.number) if row else []
    return {found.verdict_id: found for found in rows}


def newest(auditor: Auditor, principal: Principal) -> list[Inquiry]:
    """Return the last inquiries that the principal may see, newest first."""
    everyone = principal.role == "auditor"
    rows = auditor.store.inquiries.newest(
        None if everyone else principal.organisation,
        principal.role if principal.role == "data-subject-desk" else None,
        _kept_since(auditor),
        MOST_LISTED,
    )
    return [found for row in rows if (found := _seen(principal, row)) is not None]


def find_verdict(
    auditor: Auditor, principal: Principal, session_id: str, verdict_id: str
) -> SeenVerdict:
    """Return a verdict that the principal may see.

    Auditors and compliance officers may see those of every session that they see, the desk for
    citizens those that it asked for itself, developers none.

    Raises:
        SessionNotFoundError: the principal may not see the session.
        VerdictNotFoundError: there is none, or not for this principal.

    """
    session = auditor.session(session_id, principal)
    row = auditor.store.verdict(verdict_id)
    found = row is not None and row.session_id == session.id
    since = _kept_since(auditor)
    asked = auditor.store.inquiries.answered_by(verdict_id, since) if found else None
    inquiry = _seen(principal, asked)
    hidden = not principal.sees_verdicts or (
        principal.role == "data-subject-desk" and inquiry is None
    )
    if row is None or not found or hidden or (is_held(session) and not principal.sees_all):
        raise VerdictNotFoundError(
            f"no verdict {verdict_id!r} about session {session.id} is open to you"
        )
    return SeenVerdict(session, read_verdict(row), row.envelope, inquiry)


def read_verdict(row: VerdictRow) -> MembershipVerdict:
    """Return what this server has signed and stored itself."""
    payload = dsse.Envelope.from_bytes(row.envelope).payload
    return statements.parse(payload, statements.VERDICT_PREDICATE, MembershipVerdict)


def prune(auditor: Auditor) -> None:
    """Forget the inquiries that are older than the audit trail."""
    auditor.store.inquiries.prune(_kept_since(auditor))


def _kept_since(auditor: Auditor) -> datetime:
    return auditor.now() - timedelta(days=auditor.settings.trail_days)


def _seen(principal: Principal, row: InquiryRow | None) -> Inquiry | None:
    """Return what a row holds, if the principal may see it."""
    if row is None or not principal.sees_verdicts:
        return None
    own = row.organisation == principal.organisation
    if principal.role != "auditor" and not own:
        return None
    if principal.role == "data-subject-desk" and row.role != principal.role:
        return None
    inquiry = parse(Inquiry, row.document)
    about = {model.session_id for model in inquiry.models}
    return inquiry if principal.session_id is None or about == {principal.session_id} else None


def _sessions(
    auditor: Auditor, principal: Principal, session_ids: Sequence[str]
) -> list[SessionRow]:
    chosen = dict.fromkeys(session_ids)
    if not chosen:
        raise MissingPartError("choose at least one model")
    if len(chosen) > MOST_MODELS:
        raise InvalidDocumentError(
            f"expected at most {MOST_MODELS} models at once, found {len(chosen)}; ask in parts"
        )
    return [auditor.session(session_id, principal) for session_id in chosen]


def _open(
    question: Question, openings: Sequence[SampleOpening]
) -> tuple[Question, list[Match | None]]:
    """Find out which picture each opening opens; a session without codes only matches."""
    found: list[SampleOpening | None] = [None] * len(question.pictures)
    for opening in openings:
        if opening.session_id == question.session.id:
            found[_place(question, opening, found)] = opening
    matches = [None if opening is None else _match(question.session, opening) for opening in found]
    return (queries.open_samples(question, found) if question.codes else question), matches


def _place(
    question: Question, opening: SampleOpening, taken: Sequence[SampleOpening | None]
) -> int:
    for place, picture in enumerate(question.pictures):
        if taken[place] is not None:
            continue
        try:
            queries.check_opening(question.session, opening, picture.pixels)
        except OpeningError:
            continue
        return place
    raise OpeningError(
        f"the opening of sample {opening.index} opens none of the pictures that no other opening "
        "opens; it opens the one that it was made for, if no pixel of it was changed"
    )


def _match(session: SessionRow, opening: SampleOpening) -> Match:
    grant, _ = read_grant(session.grant)
    split = derive_split(bytes.fromhex(grant.nonce), grant.split)
    return Match(index=opening.index, cohort=cohort_of(split, opening.index))


def _answer(auditor: Auditor, question: Question, matches: Sequence[Match | None]) -> ModelAnswers:
    verdicts = queries.answer(auditor, question).verdicts
    batch = judge(
        items_of(verdicts),
        question.loaded.calibration_scores,
        question.false_positive_rate,
    )
    return ModelAnswers(
        session_id=question.session.id,
        answers=tuple(
            Answer(picture=place, verdict_id=verdict.verdict_id, adjusted_p_value=p, match=match)
            for place, (verdict, p, match) in enumerate(
                zip(verdicts, batch.adjusted_p_values, matches, strict=True)
            )
        ),
        sets=tuple(
            SetAnswer(
                evidence=found.evidence,
                samples=found.samples,
                statistic=found.statistic,
                p_value=found.p_value,
                false_positive_rate=found.false_positive_rate,
                outcome=found.outcome,
            )
            for found in batch.sets
        ),
    )


def _keep(auditor: Auditor, principal: Principal, inquiry: Inquiry) -> Inquiry:
    auditor.store.inquiries.add(
        InquiryRow(
            id=inquiry.id,
            at=inquiry.at,
            role=principal.role,
            organisation=principal.organisation,
            document=inquiry.model_dump_json().encode(),
        ),
        [answer.verdict_id for model in inquiry.models for answer in model.answers],
        _kept_since(auditor),
    )
    return inquiry
