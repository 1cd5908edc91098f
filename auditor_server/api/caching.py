"""Documents that never change: who has one already is told so, and gets nothing again."""

from http import HTTPStatus
from typing import Annotated, Any, Final

from fastapi import Header, Response

from auditkit.evidence.canonical import sha256_hex
from auditor_server.api.answers import Responses

# May be kept by who asked, and is asked for again each time: a token may have been revoked.
PRIVATE: Final = "private, no-cache"
# Anyone may read it, and what is in force may change.
PUBLIC: Final = "public, no-cache"
# Anyone may read it, and it is the same for ever.
FOR_EVER: Final = "public, max-age=31536000, immutable"

MOST_TAGS_CHARACTERS = 10_000
IfNoneMatch = Annotated[
    str | None,
    Header(
        alias="If-None-Match",
        max_length=MOST_TAGS_CHARACTERS,
        description="entity tags that the caller has (RFC 9110, section 13.1.2)",
    ),
]

_HEADERS: dict[str, Any] = {
    "headers": {
        "ETag": {
            "description": "SHA-256 of what is answered, in quotation marks",
            "required": True,
            "schema": {"type": "string", "pattern": '^"[0-9a-f]{64}"$'},
        },
        "Cache-Control": {"required": True, "schema": {"type": "string"}},
    }
}


def tagged(responses: Responses) -> Responses:
    """Return the answers of a route whose document has a tag."""
    unchanged = {"description": "The caller has it already."} | _HEADERS
    return {
        status: answer | _HEADERS if status == HTTPStatus.OK else answer
        for status, answer in responses.items()
    } | {int(HTTPStatus.NOT_MODIFIED): unchanged}


def answer(data: bytes, media_type: str, known: str | None, cached: str) -> Response:
    """Return a document, or say that the caller has it.

    Args:
        data: the document.
        media_type: of it.
        known: value of the request's If-None-Match.
        cached: Cache-Control of the answer.
    """
    headers = headers_of(sha256_hex(data), cached)
    if is_known(headers["ETag"], known):
        return unchanged(headers)
    return Response(data, headers=headers, media_type=media_type)


def headers_of(digest: str, cached: str) -> dict[str, str]:
    """Return the headers of an answer with this SHA-256."""
    return {"ETag": f'"{digest}"', "Cache-Control": cached}


def is_known(tag: str, known: str | None) -> bool:
    """Tell whether If-None-Match names a tag, or any (weak comparison, as RFC 9110 has it)."""
    found = {one.strip().removeprefix("W/") for one in (known or "").split(",")}
    return bool(found & {tag, "*"})


def unchanged(headers: dict[str, str]) -> Response:
    """Return the answer to a caller who has the document."""
    return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
