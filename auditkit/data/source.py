"""Describing where samples come from, and which of them to take."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from auditkit.data.duplicates import NEAR_DUPLICATE_THRESHOLD
from auditkit.data.errors import EmptyPoolError
from schemas.base import Count, Fraction, Rate, Schema

Part = Literal["train", "test"]
Channels = Literal[1, 3]
Positive = Annotated[int, Field(ge=1)]
Kind = Literal[
    "digits",
    "image_folder",
    "torchvision",
    "arrays",
    "mnist",
    "cifar10",
    "gtsrb",
    "tiny_imagenet",
    "faces",
]

PARTS: tuple[Part, ...] = ("train", "test")

# Of each identity's images: a fifth, as in the usual splits of data sets without a test part.
HELD_OUT = 0.2


class Selection(Schema):
    """Which samples of a source to take: all in order, or a slice of a fixed-seed shuffle.

    Two selections with one seed and slices that do not overlap share no sample, so that pool and
    test can come from one source. Near-duplicates go before anything else: then such slices do not
    share a picture either, and nor do the cohorts that a pool is later divided into.
    """

    skip: Count = 0
    limit: Positive | None = None
    seed: Count = 0
    near_duplicates: Literal["keep", "drop"] = Field(
        default="keep", description="drop: of images that are all alike, only the first stays"
    )
    similarity: Fraction = Field(
        default=NEAR_DUPLICATE_THRESHOLD, description="from which two images are near-duplicates"
    )

    def indices(self, size: int, source: str) -> NDArray[np.int64]:
        """Return the positions to take out of `size`.

        Raises:
            EmptyPoolError: the source has fewer samples than that.

        """
        needed = self.skip + (self.limit or 1)
        if needed > size:
            raise EmptyPoolError(
                f"{source}: expected at least {needed} samples (skip {self.skip}, "
                f"limit {self.limit}), found {size}; lower them or add data"
            )
        if self.skip == 0 and self.limit is None:
            return np.arange(size, dtype=np.int64)
        stop = None if self.limit is None else self.skip + self.limit
        order = np.random.default_rng(self.seed).permutation(size)[self.skip : stop]
        return order.astype(np.int64)


class DataSource(Schema):
    """Where a pool or a test set comes from."""

    kind: Kind = Field(description="in which layout the samples are kept")
    path: str | None = Field(default=None, description="relative to the configuration file")
    dataset: str | None = Field(default=None, description="class in torchvision.datasets")
    part: Part | None = Field(default=None, description="which part of the source")
    height: Positive | None = Field(default=None, description="None: the images' own")
    width: Positive | None = Field(default=None, description="None: the images' own")
    channels: Channels | None = Field(default=None, description="None: 3, or the source's own")
    resize: bool = Field(default=False, description="resize images of another size")
    region_of_interest: bool = Field(
        default=False, description="gtsrb: cut each image to the sign, as its table says"
    )
    held_out: Rate = Field(
        default=HELD_OUT, description="faces: share of each identity that is the test part"
    )
    selection: Selection = Selection()

    @model_validator(mode="after")
    def _is_complete(self) -> "DataSource":
        if (self.kind == "digits") != (self.path is None):
            raise ValueError("`path` is given for every kind but digits")
        if (self.kind == "torchvision") != (self.dataset is not None):
            raise ValueError("`dataset` is given with kind = 'torchvision', and only then")
        if (self.height is None) != (self.width is None):
            raise ValueError("`height` and `width` are given together")
        if self.resize and self.height is None:
            raise ValueError("`resize` needs `height` and `width`")
        if self.region_of_interest and self.kind != "gtsrb":
            raise ValueError("`region_of_interest` is given with kind = 'gtsrb', and only then")
        if self.held_out != HELD_OUT and self.kind != "faces":
            raise ValueError("`held_out` is given with kind = 'faces', and only then")
        return self
