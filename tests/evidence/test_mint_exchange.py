"""Messages to and from a server that holds T: whole and signed, or refused with a typed error."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditkit.evidence import dsse, mint_exchange
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.errors import ThresholdError
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.mint_exchange import ExchangeFormatError, ExchangePayloadError
from schemas import MintExchangeRequest, MintStanding

KEY, STRANGER = SigningKey.generate(), SigningKey.generate()
PAYLOAD = b"activations"
REQUEST = MintExchangeRequest(
    session_id="20260301-abcdef", kind="step", step=3, payload=sha256_hex(PAYLOAD)
)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_a_message_is_read_as_it_was_written(document: bytes, payload: bytes) -> None:
    message = mint_exchange.write_message(document, payload)
    assert mint_exchange.read_message(message) == (document, payload)


@given(st.binary(max_size=300))
def test_any_other_bytes_are_read_or_refused(message: bytes) -> None:
    try:
        document, payload = mint_exchange.read_message(message)
    except ExchangeFormatError:
        return
    assert mint_exchange.write_message(document, payload) == message


def test_a_request_is_opened_with_the_key_that_signed_it_and_no_other() -> None:
    document, payload = mint_exchange.read_message(
        mint_exchange.write_request(REQUEST, PAYLOAD, KEY)
    )
    envelope = dsse.Envelope.from_bytes(document)
    assert mint_exchange.open_request(envelope, KEY.public) == REQUEST
    mint_exchange.check_payload(REQUEST, payload)
    with pytest.raises(ThresholdError):
        mint_exchange.open_request(envelope, STRANGER.public)
    with pytest.raises(ExchangePayloadError, match="changed on the way"):
        mint_exchange.check_payload(REQUEST, payload + b"!")


@pytest.mark.parametrize(
    "document",
    [b"{}", b"[]", b"\xff", REQUEST.model_dump_json(indent=1).encode()],
    ids=["empty", "a list", "no text", "not canonical"],
)
def test_a_signed_document_of_another_form_is_refused(document: bytes) -> None:
    envelope = dsse.sign(document, [KEY], mint_exchange.REQUEST_TYPE)
    with pytest.raises(ExchangeFormatError):
        mint_exchange.open_request(envelope, KEY.public)


def test_an_answer_of_another_kind_is_refused() -> None:
    with pytest.raises(ExchangeFormatError, match="expected a MintStanding"):
        mint_exchange.read_document(REQUEST.model_dump_json().encode(), MintStanding)
