"""What endpoints are given: the server, who is calling, and a body of limited size."""

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Any, cast

from fastapi import Depends, Path, Request, Security
from fastapi.security.http import HTTPBase
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.types import Message

from auditor_server import observing, tokens
from auditor_server.access.principals import EXAMINERS
from auditor_server.context import Auditor
from auditor_server.errors import (
    BodyTooLargeError,
    InvalidDocumentError,
    InvalidParameterError,
    MissingPartError,
    NotAllowedError,
    OutOfScopeError,
)
from auditor_server.settings import MEBIBYTE, ServerSettings
from auditor_server.tokens import Principal, TokenRole
from auditor_server.witnesses import Witnesses
from schemas.base import Name

Limit = Callable[[ServerSettings], int]
SessionId = Annotated[Name, Path(description="a session, as its grant names it")]
BEARER = HTTPBase(
    scheme="bearer",
    scheme_name="bearer",
    description="A token from the auditor (`auditkit access token create`). Its role says what it "
    "may do, its organisation whose sessions it sees.",
    auto_error=False,
)
# Boundaries, part headers and file names around the files themselves.
MULTIPART_OVERHEAD_BYTES = MEBIBYTE
MOST_SHOWN_CHARACTERS = 200


def _auditor(request: Request) -> Auditor:
    return cast("Auditor", request.app.state.auditor)


AuditorServer = Annotated[Auditor, Depends(_auditor)]


def known_parameters(request: Request) -> None:
    """Refuse a parameter that a route does not have: it may be a misspelled one that matters.

    Raises:
        InvalidParameterError: there is one.

    """
    known = sorted(field.alias for field in request.scope["route"].dependant.query_params)
    unknown = sorted(set(request.query_params) - set(known))
    if unknown:
        raise InvalidParameterError(
            f"expected no other parameters than {', '.join(known) or 'none'}, found "
            f"{', '.join(map(repr, unknown))[:MOST_SHOWN_CHARACTERS]}"
        )


def _witnesses(request: Request) -> Witnesses:
    return cast("Witnesses", request.app.state.witnesses)


AskedWitnesses = Annotated[Witnesses, Depends(_witnesses)]


def _authenticated(
    request: Request, auditor: AuditorServer, declared: Annotated[object, Security(BEARER)]
) -> Principal:
    del declared  # for the API's description; what is wrong with a token is told by its errors
    authorization = request.headers.get("Authorization")
    principal = tokens.authenticate(auditor.store, authorization, auditor.now())
    observing.note_principal(request, principal.name)
    request.app.state.call_rates.take(principal.name)
    return principal


def _allowed(*roles: TokenRole, one_session: bool = True) -> Callable[[Principal], Principal]:
    """Return a dependency that gives the principal.

    Args:
        *roles: that may do this.
        one_session: a token that is good for one session only may do it.
    """

    def check(principal: Annotated[Principal, Depends(_authenticated)]) -> Principal:
        if principal.role not in roles:
            raise NotAllowedError(
                f"this needs a token of the role {' or '.join(roles)}, yours is of the role "
                f"{principal.role}"
            )
        if principal.session_id is not None and not one_session:
            raise OutOfScopeError(
                f"your token is good for session {principal.session_id} only, this concerns more; "
                "ask the auditor for a token without that limit"
            )
        return principal

    return check


AuditorOnly = Annotated[Principal, Depends(_allowed("auditor"))]
Orderer = Annotated[Principal, Depends(_allowed("auditor", one_session=False))]
TrailReader = Annotated[Principal, Depends(_allowed("auditor", one_session=False))]
Opener = Annotated[Principal, Depends(_allowed("auditor", "developer", one_session=False))]
Trainer = Annotated[Principal, Depends(_allowed("auditor", "developer"))]
Examiner = Annotated[Principal, Depends(_allowed(*EXAMINERS))]
Inquirer = Annotated[Principal, Depends(_allowed(*EXAMINERS, one_session=False))]
Reader = Annotated[Principal, Depends(_allowed("auditor", "developer", "compliance-officer"))]
Anyone = Annotated[Principal, Depends(_allowed(*tokens.ROLES))]


def body_up_to(limit: Limit) -> Callable[[Request, Auditor], Coroutine[Any, Any, bytes]]:
    """Return a dependency that reads the whole body, and gives up as soon as it is too large."""

    async def read(request: Request, auditor: AuditorServer) -> bytes:
        limited = _limit_body(request, limit(auditor.settings))
        return await limited.body()

    return read


def form_up_to(
    limit: Limit, most_files: Limit, most_fields: int = 0
) -> Callable[..., AsyncIterator[FormData]]:
    """Return a dependency that spools a multipart form to disk, up to a total size."""

    async def read(request: Request, auditor: AuditorServer) -> AsyncIterator[FormData]:
        most_bytes = limit(auditor.settings) + MULTIPART_OVERHEAD_BYTES
        limited = _limit_body(request, most_bytes)
        try:
            form = await limited.form(
                max_files=most_files(auditor.settings), max_fields=most_fields
            )
        except (MultiPartException, HTTPException) as error:
            raise InvalidDocumentError(f"not a readable multipart form: {error}") from error
        try:
            yield form
        finally:
            await form.close()

    return read


def file_part(form: FormData, name: str) -> UploadFile:
    """Return the file that a form holds under `name`.

    Raises:
        MissingPartError: there is none.

    """
    part = form.get(name)
    if not isinstance(part, UploadFile):
        raise MissingPartError(
            f"expected a multipart form with the file {name!r}, found {sorted(form.keys())}"
        )
    return part


def _limit_body(request: Request, most_bytes: int) -> Request:
    """Return the request with a body that fails once more than `most_bytes` have arrived.

    A Content-Length beyond that is refused before anything is read. It may be absent or wrong, so
    what arrives is counted as well.
    """
    announced = request.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced) > most_bytes:
        raise _too_large(most_bytes)
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > most_bytes:
            raise _too_large(most_bytes)
        return message

    return Request(request.scope, receive)


def _too_large(most_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(
        f"expected a body of at most {most_bytes} bytes, found more; the server's settings name "
        "its limits"
    )
