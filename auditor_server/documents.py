"""Reading what others send: a schema or a typed error, nothing in between."""

import base64
import binascii
from typing import TypeVar

from pydantic import ValidationError

from auditkit.evidence import canonical, dsse, statements
from auditor_server.errors import InvalidDocumentError
from schemas import SessionGrant
from schemas.base import Schema

S = TypeVar("S", bound=Schema)


def explain(error: ValidationError) -> str:
    """Return the first problem of a validation error in one line, without the input itself."""
    problem = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    return f"{place}: {problem['msg']}" if place else problem["msg"]


def parse(model: type[S], data: bytes | str) -> S:
    """Parse a document.

    Raises:
        InvalidDocumentError: it is not JSON, or breaks the schema.

    """
    try:
        return model.from_bytes(data)
    except ValidationError as error:
        raise InvalidDocumentError(f"not a valid {model.__name__}: {explain(error)}") from error


def parse_canonical(model: type[S], data: bytes) -> S:
    """Parse a document whose digest counts, so only one byte form of it is accepted.

    Raises:
        InvalidDocumentError: it breaks the schema, or is not in RFC 8785 form.

    """
    document = parse(model, data)
    if canonical.to_bytes(document) != data:
        raise InvalidDocumentError(
            f"the {model.__name__} is not in RFC 8785 form; send the exact bytes that "
            "auditkit.evidence.canonical.to_bytes gives"
        )
    return document


def decode_base64(text: str, what: str) -> bytes:
    """Decode standard base64.

    Raises:
        InvalidDocumentError: it is not standard base64.

    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidDocumentError(f"{what}: expected standard base64, found: {error}") from error


def read_grant(envelope: bytes) -> tuple[SessionGrant, str]:
    """Return a grant that this server signed and stored itself, and its digest."""
    payload = dsse.Envelope.from_bytes(envelope).payload
    grant = statements.parse(payload, statements.GRANT_PREDICATE, SessionGrant)
    return grant, canonical.sha256_hex(payload)
