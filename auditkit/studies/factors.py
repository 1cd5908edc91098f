"""What makes members easy or hard to tell: exposure, batch size, dropout and loss.

After "A Comprehensive Analysis of Factors Impacting Membership Inference" (DeAlcala et al., CVPR
Workshops 2024): one factor is varied at a time, M is trained alone, and attacks that saw none of
its training are measured on members and strangers they were not fitted on. Every level is trained
with the same seeds, so that effects are differences within a seed.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from auditkit.data.pools import DataSource, Pool, Selection, open_pool
from auditkit.mint.passive import PassiveConfig
from auditkit.studies.errors import StudyDataError
from schemas import (
    MintConfig,
    ModelConfig,
    OptimiserConfig,
    SplitSizes,
    TapConfig,
    TrainingConfig,
)
from schemas.base import Count, FiniteFloat, Fraction, Schema
from schemas.training import Scalar, TaskLossConfig, TaskLossName

FactorName = Literal["exposure", "batch_size", "dropout", "loss"]
ScaleName = Literal["tiny", "cpu", "gpu"]
Positive = Annotated[int, Field(ge=1)]

FACTORS: tuple[FactorName, ...] = ("exposure", "batch_size", "dropout", "loss")
LOSS_TITLES: dict[TaskLossName, str] = {
    "softmax": "softmax",
    "arcface": "ArcFace",
    "cosface": "CosFace",
    "adaface": "AdaFace",
}
EVERY_MEMBER = "all"

# D, E and C are equally large: what fits, what calibrates and what is tested.
POOL_PARTS = 3
# Images below this side lose too much to a stem that halves them.
LEAST_STRIDED_SIDE = 28
DIGITS_POOL = 1_398  # of 1,797; the rest is fresh
NONCE_PREFIX = b"auditkit/study/factors/v1/"


class StudySettings(Schema):
    """Everything that a study's numbers depend on, but the data and the software."""

    schema_version: Literal[1] = 1
    scale: ScaleName
    architecture: str
    arguments: dict[str, Scalar | tuple[Scalar, ...]]
    optimiser: OptimiserConfig
    epochs: Positive = Field(description="shows of every sample, where exposure is equal")
    batch_size: Positive
    pool: Positive = Field(description="samples, a third each for D, E and C")
    test: Positive = Field(description="fresh samples that stand for strangers")
    seeds: Annotated[int, Field(ge=2)]
    exposures: tuple[Positive, ...] = Field(description="shows of each equal part of D")
    batch_sizes: tuple[Positive, ...]
    dropouts: tuple[Fraction, ...] = Field(description="of M, before its last layer")
    losses: tuple[TaskLossName, ...] = ("softmax", "arcface", "cosface", "adaface")
    margin_scale: FiniteFloat = Field(gt=0.0, description="factor of the cosines")
    passive: PassiveConfig = PassiveConfig()
    threads: Positive = 1  # more only pay on a machine that does nothing else
    precision: Literal["float32", "bfloat16"] = "float32"

    @property
    def sizes(self) -> SplitSizes:
        """D, E and C."""
        part = self.pool // POOL_PARTS
        rest = self.pool - (POOL_PARTS - 1) * part
        return SplitSizes(told=part, silent=0, told_only=0, external=part, calibration=rest)


ADAM = OptimiserConfig(name="adam", learning_rate=0.002)

# CosFace, Eq. 6: ten classes reach a probability of 0.9999 at a scale of about 10. The papers' 64
# belongs to ten thousand classes; with ten it would leave a loss of zero after few steps.
TEN_CLASS_SCALE = 16.0

SCALES: dict[ScaleName, StudySettings] = {
    "tiny": StudySettings(
        scale="tiny",
        architecture="resnet18d",
        arguments={"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16), "stem_width": 8},
        optimiser=ADAM,
        epochs=2,
        batch_size=16,
        pool=120,
        test=40,
        seeds=2,
        exposures=(1, 2, 3, 4),
        batch_sizes=(8, 16),
        dropouts=(0.0, 0.5),
        margin_scale=TEN_CLASS_SCALE,
        passive=PassiveConfig(hidden=(8,), epochs=2),
        threads=1,
    ),
    "cpu": StudySettings(
        scale="cpu",
        architecture="resnet18d",
        arguments={"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128), "stem_width": 16},
        optimiser=ADAM,
        epochs=15,
        batch_size=64,
        pool=4_800,
        test=3_000,
        seeds=5,
        exposures=(1, 10, 20, 30),
        batch_sizes=(16, 64, 256),
        dropouts=(0.0, 0.25, 0.5),
        margin_scale=TEN_CLASS_SCALE,
    ),
    "gpu": StudySettings(
        scale="gpu",
        architecture="resnet18",
        arguments={},
        optimiser=ADAM,
        epochs=15,
        batch_size=128,
        pool=37_500,
        test=10_000,
        seeds=10,
        exposures=(1, 10, 20, 30),
        batch_sizes=(32, 128, 512, 2048),
        dropouts=(0.0, 0.25, 0.5, 0.75),
        margin_scale=TEN_CLASS_SCALE,
        precision="bfloat16",
    ),
}


class Cell(Schema):
    """One training: the level of every factor, and the seed."""

    batch_size: Positive
    dropout: Fraction
    loss: TaskLossName
    exposures: tuple[Positive, ...] = Field(default=(), description="empty: all samples equally")
    seed: Count

    @property
    def title(self) -> str:
        """What people and file names call it."""
        shown = "-".join(f"x{count}" for count in self.exposures) or "equal"
        return f"{shown}_batch{self.batch_size}_dropout{self.dropout:g}_{self.loss}_seed{self.seed}"

    @property
    def nonce(self) -> bytes:
        """32 bytes that all trainings of one seed share: split, initial weights, order."""
        return hashlib.sha256(NONCE_PREFIX + str(self.seed).encode()).digest()


class Level(Schema):
    """One row of a factor's table: a cell for every seed, and the members that are looked at."""

    name: str
    cells: tuple[Cell, ...]
    group: str = EVERY_MEMBER


def levels(settings: StudySettings, factor: FactorName) -> tuple[Level, ...]:
    """Return the levels of one factor, the one that others are compared with first."""

    def over_seeds(**changes: object) -> tuple[Cell, ...]:
        base: dict[str, object] = {
            "batch_size": settings.batch_size,
            "dropout": 0.0,
            "loss": "softmax",
        }
        return tuple(
            Cell.model_validate(base | changes | {"seed": seed}) for seed in range(settings.seeds)
        )

    if factor == "exposure":
        cells = over_seeds(exposures=settings.exposures)
        return tuple(
            Level(name=name, cells=cells, group=name) for name in group_names(settings.exposures)
        )
    if factor == "batch_size":
        return tuple(
            Level(name=str(size), cells=over_seeds(batch_size=size))
            for size in settings.batch_sizes
        )
    if factor == "dropout":
        return tuple(
            Level(name=f"{rate:g}", cells=over_seeds(dropout=rate)) for rate in settings.dropouts
        )
    return tuple(
        Level(name=LOSS_TITLES[name], cells=over_seeds(loss=name)) for name in settings.losses
    )


def group_names(exposures: Sequence[int]) -> tuple[str, ...]:
    """Return what the groups of members are called that were shown so often."""
    return tuple(f"x{count}" for count in exposures)


def plan(settings: StudySettings, factors: Sequence[FactorName] = FACTORS) -> tuple[Cell, ...]:
    """Return every training that the factors need, each once, all cells of a seed together."""
    cells = {
        cell: None
        for factor in factors
        for level in levels(settings, factor)
        for cell in level.cells
    }
    return tuple(sorted(cells, key=lambda cell: cell.seed))


def open_data(folder: Path | None, settings: StudySettings) -> tuple[Pool, Pool, StudySettings]:
    """Open pool and fresh samples, both drawn from one source so that they are exchangeable.

    Args:
        folder: an image folder (`<class>/` or `train/<class>/`), or the folder in which
            torchvision keeps MNIST or CIFAR-10; None takes scikit-learn's handwritten digits.
        settings: how many samples are wanted.

    Returns:
        pool, fresh samples, and the settings with the sizes that the digits allow.

    Raises:
        StudyDataError: the folder has none of these layouts.
        DataError: the data cannot be read, or are too few.

    """
    source = _source(folder)
    if source.kind == "digits":
        pool_size = min(settings.pool, DIGITS_POOL)
        settings = settings.model_copy(
            update={"pool": pool_size, "test": min(settings.test, 1_797 - pool_size)}
        )

    def part(skip: int, limit: int) -> Pool:
        selection = Selection(skip=skip, limit=limit)
        return open_pool(source.model_copy(update={"selection": selection}), Path())

    return part(0, settings.pool), part(settings.pool, settings.test), settings


def training_config(cell: Cell, settings: StudySettings, pool: Pool) -> TrainingConfig:
    """Return the training of M alone that a cell stands for."""
    height, width, channels = pool.shape
    model = {
        "architecture": settings.architecture,
        "arguments": settings.arguments | {"drop_rate": cell.dropout},
        "classes": len(pool.class_names),
        "channels": channels,
        "height": height,
        "width": width,
        "stem_stride": 2 if min(height, width) >= LEAST_STRIDED_SIDE else 1,
        "stem_pool": False,
        "task_loss": TaskLossConfig(name=cell.loss, scale=settings.margin_scale),
    }
    return TrainingConfig(
        name="factors",
        model=ModelConfig.model_validate(model),
        taps=TapConfig(setup="output"),
        mint=MintConfig(head="fully_connected", hidden=(1,), mint_weight=0.0),
        optimiser=settings.optimiser,
        epochs=max(cell.exposures, default=settings.epochs),
        batch_size=cell.batch_size,
        external_batch_size=0,
        precision=settings.precision,
        threads=settings.threads,
    )


def _source(folder: Path | None) -> DataSource:
    if folder is None:
        return DataSource(kind="digits")
    if (folder / "MNIST" / "raw").is_dir():
        return DataSource(kind="torchvision", dataset="MNIST", path=str(folder), part="train")
    if (folder / "cifar-10-batches-py").is_dir():
        return DataSource(kind="torchvision", dataset="CIFAR10", path=str(folder), part="train")
    if (folder / "train").is_dir():
        return DataSource(kind="image_folder", path=str(folder), part="train")
    if folder.is_dir() and any(entry.is_dir() for entry in folder.iterdir()):
        return DataSource(kind="image_folder", path=str(folder))
    raise StudyDataError(
        f"{folder}: expected an image folder (<class>/ or train/<class>/), or a folder with "
        "torchvision's MNIST/raw or cifar-10-batches-py, found none of these; check the path"
    )
