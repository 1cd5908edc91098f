"""Handing over a model whose T was held here all along: the server has all but the description."""

from collections.abc import Iterable

from auditor_server.context import Auditor
from auditor_server.custody_files import final_of
from auditor_server.documents import parse
from auditor_server.errors import HeldExchangesError
from auditor_server.records import split_lines
from auditor_server.store import SessionRow
from schemas import (
    AnyRecord,
    ResumeRecord,
    SealRecord,
    SessionRequest,
    StateRecord,
    StepRecord,
    parse_record,
)

Digests = tuple[str | None, str | None]


def is_held(session: SessionRow) -> bool:
    """Tell whether the auditor holds T of a session."""
    return parse(SessionRequest, session.request).config.mint.custody == "auditor"


def check_exchanges(auditor: Auditor, session: SessionRow, seal: SealRecord) -> None:
    """Check that a sealed log says of every exchange what took place here.

    Whoever carries the messages may change an answer; then M was trained with another gradient than
    T gave, and the log of an honest agent tells.

    Raises:
        HeldExchangesError: it names other digests, or another model than was put together here.

    """
    lines = split_lines(auditor.store.segments(session.id))
    steps, states = _declared(map(parse_record, lines))
    rows = auditor.store.custody.steps(session.id)
    _compare(
        "activations and gradient",
        steps,
        {row.step: (row.received, row.sent) for row in rows},
    )
    kept = {row.step: (row.state_digest, row.weights_digest) for row in rows if row.step in states}
    _compare("the state of T", {step: states[step] for step in states if step > 0}, kept)
    final = final_of(auditor, session.id, seal.step)
    if final is None:
        raise HeldExchangesError(
            f"the log of session {session.id} is sealed at step {seal.step}, and M+ was not put "
            "together there; the agent must hand over the weights of M before it seals"
        )
    for what, found, expected in (
        ("M+", seal.weights_digest, final.weights_digest),
        ("M", seal.audited_weights_digest, final.audited_weights_digest),
        ("T", seal.mint_weights_digest, final.mint_weights_digest),
        ("the scores", seal.scores_digest, final.scores_digest),
    ):
        if found != expected:
            raise HeldExchangesError(
                f"the log was sealed with digest {found} of {what}, the auditor's server has put "
                f"together {expected}; open a new session"
            )


def _declared(records: Iterable[AnyRecord]) -> tuple[dict[int, Digests], dict[int, Digests]]:
    """Return what a log says of the steps and states that its last model rests on."""
    steps: dict[int, Digests] = {}
    states: dict[int, Digests] = {}
    for record in records:
        if isinstance(record, StepRecord):
            steps[record.step] = (record.activations, record.gradient)
        elif isinstance(record, StateRecord):
            states[record.step] = (record.mint_state_digest, record.mint_weights_digest)
        elif isinstance(record, ResumeRecord):
            steps = {step: found for step, found in steps.items() if step <= record.step}
            states = {step: found for step, found in states.items() if step <= record.step}
    return steps, states


def _compare(what: str, found: dict[int, Digests], expected: dict[int, Digests]) -> None:
    different = sorted(
        step for step in found.keys() | expected.keys() if found.get(step) != expected.get(step)
    )
    if different:
        step = different[0]
        raise HeldExchangesError(
            f"step {step}: the log names {found.get(step)} as {what}, the auditor's server has "
            f"exchanged {expected.get(step)}; {len(different)} steps differ, so what was trained "
            "is not what is logged"
        )
