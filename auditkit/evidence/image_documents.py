"""The JSON documents of a container image, as far as evidence rests on what they say.

Sources: OCI Image Format Specification 1.1 (`config.md`, `manifest.md`), and the "simple signing"
document of the containers/image project (`containers-signature(5)`), in the form that cosign signs.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from auditkit.evidence import canonical
from auditkit.evidence.errors import CanonicalFormError, ImageDocumentError

DIGEST_PREFIX = "sha256:"
MAX_DOCUMENT_BYTES = 4_000_000
"""Largest document read; a configuration or a manifest takes a few thousand bytes."""

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
D = TypeVar("D", bound="ImageDocument")


class ImageDocument(BaseModel):
    """An object of another party's format: fields that we do not need are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _is_spelt_exactly(cls, value: Any) -> Any:  # noqa: ANN401 - any JSON value
        # Engines written in Go read `entrypoint` as `Entrypoint`, the last one winning; a second
        # spelling would let an engine run something else than we have read.
        if isinstance(value, dict):
            known = {field.alias or name for name, field in cls.model_fields.items()}
            folded = {name.casefold() for name in known}
            for key in value:
                if key not in known and key.casefold() in folded:
                    raise ValueError(f"the field {key[:80]!r} differs from a known one in case")
        return value


class RunSettings(ImageDocument):
    """What a container of the image runs, unless it is told otherwise (OCI `config.md`)."""

    entrypoint: list[str] | None = Field(default=None, alias="Entrypoint")
    command: list[str] | None = Field(default=None, alias="Cmd")
    environment: list[str] | None = Field(default=None, alias="Env")
    working_directory: str | None = Field(default=None, alias="WorkingDir")


class RootFileSystem(ImageDocument):
    """The layers of an image, by the SHA-256 of their uncompressed bytes, lowest first."""

    type: Literal["layers"]
    diff_ids: list[Digest] | None


class ImageConfig(ImageDocument):
    """The configuration of an image (OCI `config.md`)."""

    rootfs: RootFileSystem
    config: RunSettings | None = None

    @property
    def settings(self) -> RunSettings:
        """What a container of the image runs; nothing of it need be set."""
        return self.config or RunSettings()

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The layers' SHA-256 alone."""
        return tuple(hex_digest(digest) for digest in self.rootfs.diff_ids or ())


class Descriptor(ImageDocument):
    """A reference to another document by its digest (OCI `descriptor.md`)."""

    digest: Digest


class Manifest(ImageDocument):
    """One image (OCI `manifest.md`); what makes an index of it is refused."""

    schema_version: Literal[2] = Field(alias="schemaVersion")
    config: Descriptor
    manifests: None = None


class SignedImage(ImageDocument):
    """Which image a simple-signing document is about."""

    manifest_digest: Digest = Field(alias="docker-manifest-digest")


class SignedFacts(ImageDocument):
    """The part of a simple-signing document that every reader must understand."""

    image: SignedImage
    type: str


class SimpleSigning(ImageDocument):
    """What a signature on an image signs (`containers-signature(5)`)."""

    critical: SignedFacts


def read(text: str, model: type[D], what: str) -> D:
    """Read one document.

    Raises:
        ImageDocumentError: it is not strict JSON (RFC 7493), or not the document it should be.
    """
    data = text.encode()
    try:
        canonical.parse(data, MAX_DOCUMENT_BYTES)  # refuses what readers could understand in 2 ways
        return model.model_validate_json(data)
    except CanonicalFormError as error:
        raise ImageDocumentError(f"{what}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        raise ImageDocumentError(
            f"{what} is not what it should be, {place}: {first['msg']}"
        ) from error


def hex_digest(digest: str) -> str:
    """Return the SHA-256 of `sha256:<64 hexadecimal digits>` alone."""
    return digest.removeprefix(DIGEST_PREFIX)
