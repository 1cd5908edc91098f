"""The one byte form of a document (RFC 8785, JSON Canonicalization Scheme) and its digest."""

import hashlib
import json
from typing import Any, NoReturn

import rfc8785

from auditkit.evidence.errors import CanonicalFormError
from schemas.base import Schema

MAX_JSON_BYTES = 16_000_000
"""Largest JSON document read from another party; orders, grants and verdicts are far smaller."""

MAX_INTEGER = 2**53 - 1
"""Largest integer that every reader of JSON holds exactly (RFC 7493, section 2.2)."""


def to_bytes(document: Schema | Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Return the RFC 8785 form: the exact bytes that are signed, logged and stored.

    Args:
        document: a schema, or a JSON value made of dict, list, tuple, str, int, float, bool, None.

    Raises:
        CanonicalFormError: NaN or an infinity, an integer beyond 2^53 - 1, a lone surrogate, a key
            that is not text, nesting without end, or a type that JSON does not have.
    """
    value = document.as_json() if isinstance(document, Schema) else document
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise CanonicalFormError(f"the document has no RFC 8785 form: {error}") from error
    except RecursionError as error:
        raise CanonicalFormError("the document is nested too deeply for RFC 8785") from error


def parse(data: bytes, limit: int = MAX_JSON_BYTES) -> Any:  # noqa: ANN401 - any JSON value
    """Read JSON from another party as strictly as I-JSON (RFC 7493) demands.

    Two readers must never see different documents in the same bytes, so repeated member names, NaN,
    infinities, integers that no double holds, lone surrogates and byte order marks are refused.

    Args:
        data: UTF-8 text.
        limit: largest accepted length in bytes.

    Raises:
        CanonicalFormError: the bytes are too long, not JSON, or ambiguous.
    """
    if len(data) > limit:
        raise CanonicalFormError(f"expected at most {limit} bytes of JSON, found {len(data)}")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object_without_repeated_names,
            parse_constant=_refuse_constant,
            parse_int=_exact_number,
        )
    except (ValueError, RecursionError) as error:
        raise CanonicalFormError(f"the bytes are not a JSON document: {error}") from error
    to_bytes(value)  # refuses what JSON syntax allows and I-JSON does not
    return value


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of `data` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _object_without_repeated_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise CanonicalFormError("a JSON object names the same member twice (RFC 7493, 2.3)")
    return members


def _exact_number(text: str) -> int | float:
    """Read a number without fraction: RFC 8785 writes large doubles, say 1e17, like that too."""
    number = int(text)
    if abs(number) <= MAX_INTEGER:
        return number
    double = float(text)
    if to_bytes(double).decode() != text:
        raise CanonicalFormError(f"{text[:40]} is not exact as an IEEE 754 double (RFC 7493, 2.2)")
    return double


def _refuse_constant(constant: str) -> NoReturn:
    raise CanonicalFormError(f"{constant} is not a JSON number")
