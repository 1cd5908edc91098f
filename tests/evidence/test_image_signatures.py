"""A signed image is let in by what cosign's own bytes say, and by nothing that resembles them."""

import base64
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from auditkit.evidence import image_signatures as signatures
from auditkit.evidence.errors import ImageDocumentError
from auditkit.evidence.image_signatures import verify_image_signature
from schemas import ImageIdentity, ImageSignature
from tests.evidence.contained import (
    config_text,
    identity,
    image_key,
    manifest_text,
    payload_text,
    pem,
    signed_image,
)

VECTORS = json.loads((Path(__file__).parent / "vectors" / "cosign.json").read_text())
KEY, FOREIGN = image_key("trusted"), image_key("foreign")
MANIFEST = manifest_text()
IMAGE, TRUSTED = identity(), (pem(KEY),)
OTHER_CONFIG = config_text({"Entrypoint": ["sh"]})
OTHER_MANIFEST = manifest_text(OTHER_CONFIG)


def changed(found: ImageSignature, /, **changes: str) -> ImageSignature:
    return found.model_copy(update=changes)


def test_an_image_that_a_trusted_key_has_signed_is_accepted() -> None:
    verify_image_signature([pem(KEY)], identity(), signed_image(KEY))


def test_one_of_several_keys_is_enough() -> None:
    verify_image_signature([pem(FOREIGN), pem(KEY)], identity(), signed_image(KEY))


def test_a_published_signature_of_cosign_is_read_up_to_the_manifest_that_it_names() -> None:
    found = VECTORS["accepted"]
    published = ImageSignature(
        manifest=MANIFEST, payload=found["payload"], signature=found["signature"]
    )
    with pytest.raises(signatures.SignedManifestError, match="f3cfc9d0dbf931d3"):
        verify_image_signature([found["key"]], identity(), published)
    with pytest.raises(signatures.ImageSignerError):
        verify_image_signature([VECTORS["foreign_key"]], identity(), published)
    edited = changed(published, payload=found["payload"].replace("busybox", "busyboy"))
    with pytest.raises(signatures.ImageSignerError):
        verify_image_signature([found["key"]], identity(), edited)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_the_bytes_of_openssl_are_accepted(tmp_path: Path) -> None:
    def openssl(*arguments: str) -> bytes:
        command = ["openssl", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout

    (tmp_path / "payload").write_text(payload_text(MANIFEST))
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "private.pem")
    public = openssl("ec", "-in", "private.pem", "-pubout").decode()
    made = openssl("dgst", "-sha256", "-sign", "private.pem", "payload")
    signature = ImageSignature(
        manifest=MANIFEST,
        payload=payload_text(MANIFEST),
        signature=base64.b64encode(made).decode(),
    )
    verify_image_signature([public], identity(), signature)


def test_an_ed25519_key_is_accepted() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    payload = payload_text(MANIFEST)
    signature = ImageSignature(
        manifest=MANIFEST,
        payload=payload,
        signature=base64.b64encode(key.sign(payload.encode())).decode(),
    )
    verify_image_signature([pem(key)], identity(), signature)
    with pytest.raises(signatures.ImageSignerError):
        verify_image_signature(
            [pem(key)], identity(), changed(signature, payload=payload.replace("null", "{}"))
        )


def test_a_derived_manifest_was_never_signed_and_need_not_agree() -> None:
    derived = {"manifest_source": "derived", "manifest_digest": "d1" * 32}
    verify_image_signature([pem(KEY)], identity(**derived), signed_image(KEY))


@dataclass(frozen=True)
class Refusal:
    error: type[Exception]
    signature: Callable[[], ImageSignature] = lambda: signed_image(KEY)
    keys: tuple[str, ...] = TRUSTED
    image: ImageIdentity = IMAGE


REFUSED = {
    "no key is trusted": Refusal(signatures.ImageSignerError, keys=()),
    "a foreign key": Refusal(signatures.ImageSignerError, lambda: signed_image(FOREIGN)),
    "a signature over another image": Refusal(
        signatures.SignedConfigError, lambda: signed_image(KEY, OTHER_MANIFEST)
    ),
    "a manifest that was not signed": Refusal(
        signatures.SignedManifestError, lambda: changed(signed_image(KEY), manifest=OTHER_MANIFEST)
    ),
    "white space around the signed document": Refusal(
        signatures.ImageSignerError,
        lambda: changed(signed_image(KEY), payload=payload_text(MANIFEST) + "\n"),
    ),
    "a signature for another purpose": Refusal(
        signatures.ImageSignatureTypeError,
        lambda: signed_image(KEY, payload=payload_text(MANIFEST, "atomic container signature")),
    ),
    "an image that was saved with another manifest": Refusal(
        signatures.SignedIdentityError, image=identity(manifest_digest="d1" * 32)
    ),
    "an image of another configuration": Refusal(
        signatures.SignedConfigError, image=identity(OTHER_CONFIG)
    ),
    "a signature that is no base64": Refusal(
        signatures.ImageSignerError, lambda: changed(signed_image(KEY), signature="MEUC!")
    ),
    "a signature in the second spelling of base64": Refusal(
        signatures.ImageSignerError,
        lambda: changed(signed_image(KEY), signature=signed_image(KEY).signature + "\n"),
    ),
    "a signature that is empty": Refusal(
        signatures.ImageSignerError, lambda: changed(signed_image(KEY), signature="")
    ),
    "a document that is no JSON": Refusal(
        ImageDocumentError, lambda: signed_image(KEY, payload="critical")
    ),
    "a document with two images": Refusal(
        ImageDocumentError,
        lambda: signed_image(
            KEY,
            payload=payload_text(MANIFEST).replace(
                '"image":', '"image":{"docker-manifest-digest":"sha256:00"},"image":'
            ),
        ),
    ),
    "a document with an image for readers that fold case": Refusal(
        ImageDocumentError,
        lambda: signed_image(
            KEY, payload=payload_text(MANIFEST).replace('"image":', '"Image":{},"image":')
        ),
    ),
    "a signed index of several images": Refusal(
        ImageDocumentError, lambda: signed_image(KEY, manifest_text(manifests=[]))
    ),
    "a signed manifest without configuration": Refusal(
        ImageDocumentError, lambda: signed_image(KEY, manifest_text(config=None))
    ),
    "a key that is none": Refusal(signatures.ImageKeyError, keys=("not a key",)),
    "a private key": Refusal(signatures.ImageKeyError, keys=("-----BEGIN PRIVATE KEY-----\n",)),
    "a key on another curve": Refusal(
        signatures.ImageKeyError, keys=(pem(ec.generate_private_key(ec.SECP384R1())),)
    ),
    "a key of another kind": Refusal(
        signatures.ImageKeyError,
        keys=(pem(rsa.generate_private_key(public_exponent=65537, key_size=2048)),),
    ),
    "an Ed25519 key of small order": Refusal(
        signatures.ImageKeyError,
        keys=(
            "-----BEGIN PUBLIC KEY-----\n"
            + base64.b64encode(bytes.fromhex("302a300506032b6570032100") + bytes(32)).decode()
            + "\n-----END PUBLIC KEY-----\n",
        ),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_anything_else_is_refused_with_its_own_error(name: str) -> None:
    refusal = REFUSED[name]
    with pytest.raises(refusal.error) as caught:
        verify_image_signature(refusal.keys, refusal.image, refusal.signature())
    assert type(caught.value) is refusal.error
    assert len(str(caught.value)) > 30


def test_every_error_is_in_the_table() -> None:
    errors = {refusal.error for refusal in REFUSED.values()}
    assert set(signatures.ImageSignatureError.__subclasses__()) <= errors


@given(st.binary(max_size=100))
def test_no_bytes_but_a_signature_are_one(data: bytes) -> None:
    signature = changed(signed_image(KEY), signature=base64.b64encode(data).decode())
    with pytest.raises(signatures.ImageSignerError):
        verify_image_signature([pem(KEY)], identity(), signature)
