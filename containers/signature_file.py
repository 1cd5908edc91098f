"""The file in which `cosign download signature` writes an image's signature."""

import base64
import binascii
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from containers.errors import ContainerError
from schemas import ImageSignature

MOST_BYTES = 1_000_000


class ImageSignatureFileError(ContainerError):
    """The file with the image's signature cannot be read."""


class _Downloaded(BaseModel):
    """One line of the file; cosign writes more fields than the two that a key's signature needs."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    signature: str = Field(alias="Base64Signature")
    payload: str = Field(alias="Payload", description="base64")


def read_image_signature(path: Path, manifest: bytes) -> ImageSignature:
    """Return the first signature of a file, together with the manifest that it is about.

    Raises:
        ImageSignatureFileError: the file cannot be read, or is not cosign's.
    """
    try:
        with path.open("rb") as file:
            lines = file.read(MOST_BYTES).splitlines()
        downloaded = _Downloaded.model_validate_json(lines[0] if lines else b"")
        return ImageSignature(
            manifest=manifest.decode(),
            payload=base64.b64decode(downloaded.payload, validate=True).decode(),
            signature=downloaded.signature,
        )
    except OSError as error:
        raise ImageSignatureFileError(
            f"cannot read the image's signature {path}: {error.strerror}; give the file that "
            "`cosign download signature IMAGE` wrote"
        ) from error
    except (ValidationError, binascii.Error, UnicodeDecodeError) as error:
        raise ImageSignatureFileError(
            f"{path} is not what `cosign download signature` writes, one JSON document in a line "
            "with Base64Signature and Payload"
        ) from error
