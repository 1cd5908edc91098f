"""The file that `cosign download signature` writes, and what resembles it."""

import base64
import json
from pathlib import Path

import pytest

from containers.signature_file import ImageSignatureFileError, read_image_signature

PAYLOAD = '{"critical":{"type":"cosign container image signature"}}'


def downloaded(**changes: object) -> str:
    fields = {
        "Base64Signature": "MEUCIQ==",
        "Payload": base64.b64encode(PAYLOAD.encode()).decode(),
        "Cert": None,
        "Chain": None,
        "Bundle": None,
    }
    return json.dumps({**fields, **changes})


def test_the_first_signature_is_taken_with_the_manifest(tmp_path: Path) -> None:
    path = tmp_path / "signature.json"
    path.write_text(downloaded() + "\n" + downloaded(Base64Signature="other") + "\n")
    found = read_image_signature(path, b'{"schemaVersion":2}')
    assert found.payload == PAYLOAD
    assert found.signature == "MEUCIQ=="
    assert found.manifest == '{"schemaVersion":2}'


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not JSON",
        "[]",
        "{}",
        downloaded(Payload="no base64!"),
        downloaded(Payload=base64.b64encode(b"\xff").decode()),
        downloaded(Base64Signature=None),
        downloaded(Base64Signature="A" * 20_000),
    ],
)
def test_anything_else_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "signature.json"
    path.write_text(content)
    with pytest.raises(ImageSignatureFileError, match="cosign download signature"):
        read_image_signature(path, b"{}")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ImageSignatureFileError, match=r"cannot read .*No such file"):
        read_image_signature(tmp_path / "missing", b"{}")
