"""Admitting a membership query: whoever asks, through the API or on a page, comes through here."""

from collections.abc import Sequence

from auditor_server.access import trail
from auditor_server.access.principals import Principal
from auditor_server.context import Auditor
from auditor_server.errors import HeldQueryError, InvalidDocumentError, PurposeMissingError
from auditor_server.held_submissions import is_held
from auditor_server.orders import find_order, read_order
from auditor_server.store import SessionRow

MOST_PURPOSE_CHARACTERS = 1_000  # a sentence or two, and a file number


def admit(
    auditor: Auditor,
    principal: Principal,
    session: SessionRow,
    purpose: str | None,
    pictures: Sequence[bytes],
) -> str:
    """Put into the audit trail that somebody asks about pictures, before they are answered.

    Returns the purpose that is now in the trail.

    An auditor who states no purpose asks for the one that the signed order states.

    Args:
        auditor: the server.
        principal: who asks, in a role that may.
        session: whose model is asked, and which the principal sees.
        purpose: in the words of who asks.
        pictures: the files, as they were sent.

    Raises:
        HeldQueryError: the auditor holds T, and who asks is of another organisation.
        PurposeMissingError: there is no purpose, and who asks is no auditor.
        InvalidDocumentError: it is too long, or no plain text.

    """
    if is_held(session) and not principal.sees_all:
        raise HeldQueryError(
            "the auditor holds the MINT Model of this session, and a verdict tells its score; ask "
            "the auditor to ask"
        )
    stated = _checked(purpose)
    if not stated and principal.role == "auditor":
        stated = read_order(find_order(auditor, session.order_id)).purpose
    if not stated:
        raise PurposeMissingError(
            "a membership query must say what it is for, in the form's field `purpose` (`auditkit "
            "query --purpose`), for example the number of the complaint that it answers"
        )
    trail.record(auditor, principal, "query", session.id, purpose=stated, pictures=pictures)
    return stated


def _checked(purpose: str | None) -> str:
    stated = (purpose or "").strip()
    lines = stated.splitlines()
    if len(stated) > MOST_PURPOSE_CHARACTERS or not all(line.isprintable() for line in lines):
        raise InvalidDocumentError(
            f"expected a purpose of at most {MOST_PURPOSE_CHARACTERS} printable characters, found "
            f"{len(stated)} characters"
        )
    return stated
