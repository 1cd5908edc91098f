"""What server and worker say to each other, beside raw bytes."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, lt=2**53)]

# A refusal is a sentence or two.
MOST_DETAIL_CHARACTERS = 4_000
# A Python traceback, for the server's own log.
MOST_TRACEBACK_CHARACTERS = 8_000


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ImageShape(_Message):
    """Height, width and channels of the pixels of one image."""

    height: Count
    width: Count
    channels: Count

    @property
    def as_tuple(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return (self.height, self.width, self.channels)

    @property
    def size(self) -> int:
        """How many bytes the pixels take."""
        return self.height * self.width * self.channels


class DecodeImage(_Message):
    """Decode the image file that is the payload; the reply's payload is its pixels (H, W, C)."""

    kind: Literal["decode-image"] = "decode-image"
    shape: ImageShape
    name: str = Field(max_length=MOST_DETAIL_CHARACTERS)
    resize: bool = False


class AskModel(_Message):
    """Run M+ on the pixels that are the payload; the reply's payload is T's output, float32."""

    kind: Literal["ask-model"] = "ask-model"
    weights_digest: Digest
    description_digest: Digest
    shape: ImageShape


class RebuildInitialWeights(_Message):
    """Build the model of the SessionRequest that is the payload; the reply tells the digest."""

    kind: Literal["rebuild-initial-weights"] = "rebuild-initial-weights"
    # Seeds have 64 bits: a JSON number would lose some of them elsewhere.
    seed: str = Field(pattern=r"^[0-9]{1,20}$")


Work = DecodeImage | AskModel | RebuildInitialWeights


class Request(_Message):
    """One piece of work."""

    work: Annotated[Work, Field(discriminator="kind")]
    seconds: float = Field(gt=0, description="processor time that the work may take")


class Ready(_Message):
    """The worker's first message."""

    kind: Literal["ready"] = "ready"
    network_closed: bool
    files_closed: bool


class Done(_Message):
    """The work is done; its result is the payload."""

    kind: Literal["done"] = "done"
    shape: Annotated[tuple[Count, ...], Field(max_length=3)] = ()


class Refused(_Message):
    """A rule is violated by what others sent: the name of its typed error, and the message."""

    kind: Literal["refused"] = "refused"
    error: str = Field(max_length=100)
    detail: str = Field(max_length=MOST_DETAIL_CHARACTERS)


class OutOfMemory(_Message):
    """The work needs more memory than the worker may have."""

    kind: Literal["out-of-memory"] = "out-of-memory"


class Failed(_Message):
    """Something happened that no rule foresees."""

    kind: Literal["failed"] = "failed"
    traceback: str = Field(max_length=MOST_TRACEBACK_CHARACTERS)


class Reply(_Message):
    """What became of the work."""

    outcome: Annotated[Ready | Done | Refused | OutOfMemory | Failed, Field(discriminator="kind")]
