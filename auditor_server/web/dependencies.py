"""What page handlers are given: who is signed in, and forms that came from our own pages."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit

from fastapi import Depends, Query, Request
from starlette.concurrency import run_in_threadpool

from auditor_server import observing
from auditor_server.access.principals import EXAMINERS, Principal, Role
from auditor_server.api.dependencies import AuditorServer, body_up_to
from auditor_server.errors import (
    CsrfError,
    InvalidDocumentError,
    NotAllowedError,
    NotSignedInError,
    OutOfScopeError,
)
from auditor_server.settings import ServerSettings
from auditor_server.web.sign_ins import READERS, check_form, current

Form = dict[str, str]
FORM_TOKEN = "form_token"  # noqa: S105 - the name of a field
MOST_FIELDS = 16
# A token and an address.
MOST_SIGN_IN_BYTES = 16 * 1024
PAGE_SIZE = 25
PageNumber = Annotated[int, Query(ge=1, le=10**9, alias="page")]


def _signed_in(request: Request) -> Principal:
    sign_in = current(request)
    if sign_in is None:
        raise NotSignedInError("sign in to see this page")
    observing.note_principal(request, sign_in.principal.name)
    request.app.state.call_rates.take(sign_in.principal.name)
    return sign_in.principal


SignedIn = Annotated[Principal, Depends(_signed_in)]


def _allowed(*roles: Role, one_session: bool = True) -> Callable[[Principal], Principal]:
    """As for the API's routes: the roles, and whether a token for one session will do."""

    def check(principal: SignedIn) -> Principal:
        if principal.role not in roles:
            raise NotAllowedError(
                f"this page is for the role {' or '.join(roles)}, yours is {principal.role}"
            )
        if principal.session_id is not None and not one_session:
            raise OutOfScopeError(
                f"your token is good for session {principal.session_id} only, this page concerns "
                "more"
            )
        return principal

    return check


SignedInReader = Annotated[Principal, Depends(_allowed(*READERS))]
SignedInExaminer = Annotated[Principal, Depends(_allowed(*EXAMINERS))]
SignedInOrderer = Annotated[Principal, Depends(_allowed("auditor", one_session=False))]


def _form(
    limit: Callable[[ServerSettings], int],
) -> Callable[..., Coroutine[Any, Any, Form]]:
    """Return a dependency that reads a form which one of our own pages has sent."""

    async def read(request: Request, body: Annotated[bytes, Depends(body_up_to(limit))]) -> Form:
        check_origin(request)
        try:
            fields = dict(
                parse_qsl(
                    body.decode(),
                    keep_blank_values=True,
                    strict_parsing=bool(body),
                    max_num_fields=MOST_FIELDS,
                )
            )
        except ValueError as error:
            raise InvalidDocumentError(f"not a readable form: {error}") from error
        if await run_in_threadpool(current, request) is not None:
            check_form(request, fields.get(FORM_TOKEN))
        return fields

    return read


def check_origin(request: Request) -> None:
    """Refuse what another site made the browser send, also before anybody is signed in."""
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    own = (
        site == "same-origin"
        if site is not None
        else origin is not None and urlsplit(origin).netloc == request.headers.get("Host")
    )
    if not own:
        raise CsrfError("forms are taken from this server's own pages only")


SmallForm = Annotated[Form, Depends(_form(lambda _: MOST_SIGN_IN_BYTES))]
# Each byte of the text may take three in a form.
OrderForm = Annotated[Form, Depends(_form(lambda settings: 3 * settings.most_order_bytes))]

__all__ = [
    "AuditorServer",
    "OrderForm",
    "SignedIn",
    "SignedInExaminer",
    "SignedInOrderer",
    "SignedInReader",
    "SmallForm",
]
