"""Base64 (RFC 4648) without the freedom that lets two texts mean the same bytes."""

import base64


def from_base64(text: str, *, url_safe: bool = False) -> bytes:
    """Decode padded base64 in its one canonical spelling.

    Args:
        text: standard alphabet (RFC 4648, section 4), or URL-safe (section 5) when so told.
        url_safe: read `-` and `_` instead of `+` and `/`.

    Raises:
        ValueError: another alphabet, missing padding, white space, or spare bits that are not zero.
    """
    alternatives = b"-_" if url_safe else b"+/"
    try:
        data = base64.b64decode(text, altchars=alternatives, validate=True)
    except ValueError as error:
        raise ValueError(f"not base64: {error}") from error
    if base64.b64encode(data, altchars=alternatives).decode() != text:
        raise ValueError("not the canonical base64 spelling of its bytes")
    return data


def to_base64(data: bytes) -> str:
    """Encode with the standard alphabet and padding (RFC 4648, section 4)."""
    return base64.b64encode(data).decode("ascii")
