"""Framing and signing of the exchanges with a server that holds the MINT Model T.

A message is a JSON document and a payload: 4 bytes (big-endian) length of the document, the
document, the payload. A request's document is a DSSE envelope that the session key has signed, and
it names the payload's SHA-256, so that neither can be exchanged for another one.
"""

from typing import TypeVar

from pydantic import ValidationError

from auditkit.evidence import dsse
from auditkit.evidence.canonical import sha256_hex, to_bytes
from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.keys import PublicKey, SigningKey
from schemas import MintExchangeRequest
from schemas.base import Schema

S = TypeVar("S", bound=Schema)

REQUEST_TYPE = "application/vnd.auditkit.mint-exchange+json"
"""What the session key signs in a request; no checkpoint or statement can be mistaken for it."""

LENGTH_BYTES = 4
MOST_DOCUMENT_BYTES = 2**20  # metrics of six cohorts are a few kilobytes


class ExchangeFormatError(EvidenceError):
    """A message of an exchange is not framed as it must be, or its document is not valid."""


class ExchangePayloadError(EvidenceError):
    """The payload is not the one that the signed request names."""


def write_message(document: bytes, payload: bytes = b"") -> bytes:
    """Return document and payload as one message."""
    return len(document).to_bytes(LENGTH_BYTES, "big") + document + payload


def read_message(message: bytes) -> tuple[bytes, bytes]:
    """Return document and payload of a message.

    Raises:
        ExchangeFormatError: it is cut short, or its document is far too long.
    """
    length = int.from_bytes(message[:LENGTH_BYTES], "big")
    end = LENGTH_BYTES + length
    if len(message) < LENGTH_BYTES or length > MOST_DOCUMENT_BYTES or len(message) < end:
        raise ExchangeFormatError(
            f"expected a message with a document of at most {MOST_DOCUMENT_BYTES} bytes, found "
            f"{len(message)} bytes that announce one of {length}; send the message again"
        )
    return message[LENGTH_BYTES:end], message[end:]


def write_request(request: MintExchangeRequest, payload: bytes, key: SigningKey) -> bytes:
    """Return a signed request with its payload."""
    envelope = dsse.sign(to_bytes(request), [key], REQUEST_TYPE)
    return write_message(envelope.to_bytes(), payload)


def open_request(envelope: dsse.Envelope, key: PublicKey) -> MintExchangeRequest:
    """Verify and read the document of a request.

    Raises:
        ThresholdError, PayloadTypeError: this key has not signed it, or not as such a request.
        ExchangeFormatError: it breaks the schema, or is not in RFC 8785 form.
    """
    document = dsse.verify(envelope, {key.keyid: key}, payload_type=REQUEST_TYPE)
    request = read_document(document, MintExchangeRequest)
    if to_bytes(request) != document:
        raise ExchangeFormatError("the request for an exchange is not in RFC 8785 form")
    return request


def check_payload(request: MintExchangeRequest, payload: bytes) -> None:
    """Check that a payload is the one that its request names.

    Raises:
        ExchangePayloadError: it is another one.
    """
    found = sha256_hex(payload)
    if found != request.payload:
        raise ExchangePayloadError(
            f"the signed request names a payload with digest {request.payload}, found {found}; "
            "it was changed on the way, send it again"
        )


def read_document(document: bytes, model: type[S]) -> S:
    """Parse the document of a message.

    Raises:
        ExchangeFormatError: it is no such document.
    """
    try:
        return model.from_bytes(document)
    except ValidationError as error:
        raise ExchangeFormatError(
            f"expected a {model.__name__}, found another document ({error.error_count()} fields "
            "differ); the other side runs another version"
        ) from error
