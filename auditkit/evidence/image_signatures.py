"""Signatures on container images in the form that cosign makes with a key (`cosign sign --key`).

cosign signs a "simple signing" document (`containers-signature(5)`) that names the digest of the
image's manifest. The manifest names the digest of the image's configuration, which is the image.
"""

from collections.abc import Callable, Sequence

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from auditkit.evidence import image_documents
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.encoding import from_base64
from auditkit.evidence.errors import EvidenceError, KeyFormatError, SignatureError, WeakKeyError
from auditkit.evidence.keys import PublicKey
from schemas import ImageIdentity, ImageSignature

SIGNATURE_TYPE = "cosign container image signature"
"""What cosign writes into every document that it signs for an image."""

Verify = Callable[[bytes, bytes], None]
"""Takes a signature and the signed bytes; raises InvalidSignature or SignatureError."""


class ImageSignatureError(EvidenceError):
    """An image is not signed by a key that the order trusts."""


class ImageKeyError(ImageSignatureError):
    """A key of the order is not one that cosign makes."""


class ImageSignerError(ImageSignatureError):
    """None of the order's keys has made the signature."""


class ImageSignatureTypeError(ImageSignatureError):
    """Something else than a container image was signed."""


class SignedManifestError(ImageSignatureError):
    """The manifest is not the one that was signed."""


class SignedConfigError(ImageSignatureError):
    """The signed manifest is of another image."""


class SignedIdentityError(ImageSignatureError):
    """The image's identity names another manifest than was signed."""


def verify_image_signature(
    keys: Sequence[str], image: ImageIdentity, signature: ImageSignature
) -> None:
    """Return when one of the keys has signed the image.

    Args:
        keys: PEM public keys (SubjectPublicKeyInfo): ECDSA on P-256, cosign's default, or Ed25519.
        image: identity of the image that runs.
        signature: the signature, the document that it signs, and the manifest that this names.

    Raises:
        ImageSignatureError: the subclass names the first rule that is broken.
        ImageDocumentError: the signed document or the manifest cannot be read.
    """
    _check_signer(keys, signature)
    signed = image_documents.read(
        signature.payload, image_documents.SimpleSigning, "what the signature signs"
    ).critical
    if signed.type != SIGNATURE_TYPE:
        raise ImageSignatureTypeError(
            f"the signature is a {signed.type[:80]!r}, expected was a {SIGNATURE_TYPE!r}; sign the "
            "image with `cosign sign --key`"
        )
    manifest_digest = sha256_hex(signature.manifest.encode())
    if manifest_digest != image_documents.hex_digest(signed.image.manifest_digest):
        raise SignedManifestError(
            f"the manifest hashes to {manifest_digest}, signed was "
            f"{signed.image.manifest_digest}; hand in the manifest that was signed, byte for byte"
        )
    manifest = image_documents.read(
        signature.manifest, image_documents.Manifest, "the image's manifest"
    )
    if image_documents.hex_digest(manifest.config.digest) != image.config_digest:
        raise SignedConfigError(
            f"the signed manifest is of image {manifest.config.digest}, this one is "
            f"{image.config_digest}; have this very image signed"
        )
    # A derived manifest was never pushed, so nobody can have signed it.
    if image.manifest_source == "archive" and image.manifest_digest != manifest_digest:
        raise SignedIdentityError(
            f"the image was saved with manifest {image.manifest_digest}, signed was "
            f"{manifest_digest}; sign the manifest of the archive that is run"
        )


def check_image_key(pem: str) -> None:
    """Check that a key could have signed an image, when an order is to list it.

    Raises:
        ImageKeyError: not a public key, or one of another kind.
    """
    _verifier(pem)


def _check_signer(keys: Sequence[str], signature: ImageSignature) -> None:
    checks = [_verifier(key) for key in keys]
    try:
        found = from_base64(signature.signature)
    except ValueError as error:
        raise ImageSignerError(f"the image's signature is {error}; hand it in as it is") from error
    if not any(_has_signed(verify, found, signature.payload.encode()) for verify in checks):
        raise ImageSignerError(
            f"none of the order's {len(keys)} keys has made the image's signature; have the image "
            "signed by the holder of one"
        )


def _has_signed(verify: Verify, signature: bytes, data: bytes) -> bool:
    try:
        verify(signature, data)
    except (InvalidSignature, SignatureError):
        return False
    return True


def _verifier(pem: str) -> Verify:
    """Return what verifies a signature by this key.

    Raises:
        ImageKeyError: not a public key, or one of another kind.
    """
    try:
        key = serialization.load_pem_public_key(pem.encode())
        if isinstance(key, Ed25519PublicKey):
            return PublicKey(key.public_bytes_raw()).verify
    except (ValueError, UnsupportedAlgorithm, KeyFormatError, WeakKeyError) as error:
        raise ImageKeyError(
            f"an image key of the order is unusable: {error}; ask the auditor for a new order"
        ) from error
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        elliptic = key
        return lambda signature, data: elliptic.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    raise ImageKeyError(
        "an image key of the order is neither ECDSA on P-256 nor Ed25519; ask the auditor for a "
        "new order"
    )
