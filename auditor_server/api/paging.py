"""Lists, a page at a time: the header `Link` leads to the next one (RFC 8288)."""

import base64
import binascii
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Query, Request, Response

from auditor_server.api.answers import Responses
from auditor_server.errors import InvalidParameterError
from auditor_server.store import Place

ITEMS_PER_PAGE = 100
MOST_ITEMS_PER_PAGE = 500

MOST_CURSOR_CHARACTERS = 400
Cursor = Annotated[
    str | None,
    Query(
        pattern=r"^[A-Za-z0-9_-]+$",
        max_length=MOST_CURSOR_CHARACTERS,
        description="where the list goes on, as the header `Link` of the page before says",
    ),
]
ItemLimit = Annotated[
    int, Query(ge=1, le=MOST_ITEMS_PER_PAGE, description="items on a page, at most")
]
PAGED: Responses = {
    int(HTTPStatus.OK): {
        "headers": {
            "Link": {
                "description": '`<address>; rel="next"`, unless this is the last page',
                "schema": {"type": "string"},
            }
        }
    }
}


def link_next(request: Request, response: Response, **changed: Any) -> None:  # noqa: ANN401
    """Say where the list goes on: at the same address, with some parameters changed."""
    parameters = dict(request.query_params) | changed
    # Relative to the request, so that it holds behind a proxy with a path of its own.
    response.headers["Link"] = f'<?{urlencode(parameters)}>; rel="next"'


def to_cursor(place: Place) -> str:
    """Return a place in a list as text. It says nothing that the list does not."""
    text = f"{place.at.astimezone(UTC).isoformat()} {place.name}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def from_cursor(cursor: str | None) -> Place | None:
    """Return the place that a cursor is of; None: the beginning.

    Raises:
        InvalidParameterError: this server has made no such cursor.

    """
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        time, name = base64.b64decode(padded, b"-_", validate=True).decode().split(" ")
        at = datetime.fromisoformat(time).astimezone(UTC)
    except (binascii.Error, ValueError, OverflowError) as error:
        raise InvalidParameterError(
            "expected a cursor from the header `Link` of an earlier page; begin without one"
        ) from error
    return Place(at, name)
