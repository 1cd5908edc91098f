"""One cell of the paper's tables in our protocol: an architecture, a setup and a data set.

Two trainings from one nonce make a cell: M jointly with T (Active MINT), and M alone, which is the
control of the audited accuracy and what passive MINT reads. Thresholds come from C alone, and the
silent and told-only samples show what T does not see.
"""

import hashlib
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

import torch
from pydantic import Field

from auditkit.data.fit import check_pool
from auditkit.data.pools import DataSource, Selection, open_pool
from auditkit.data.source import Kind, Part
from auditkit.evidence import canonical
from auditkit.evidence.policy import split_sizes
from auditkit.mint.metrics import balanced_accuracy
from auditkit.mint.passive import PassiveConfig
from auditkit.studies.comparison import (
    ALONE,
    MethodFigures,
    Scored,
    Variant,
    joint_methods,
    measure,
    passive_methods,
)
from auditkit.studies.early_stopping import StoppingRule
from auditkit.studies.factor_cells import data_digest
from auditkit.studies.presets import Cell, Preset, Setup, known_data_set, preset
from auditkit.studies.presets import DataSet as PublishedSet
from auditkit.studies.trial import Device, Trial, train_trial
from schemas import SplitFractions, SplitSizes, TapConfig, TrainingConfig
from schemas.base import Count, FiniteFloat, Fraction, Schema, Sha256
from schemas.training import Width

ScaleName = Literal["tiny", "cpu", "gpu"]
Role = Literal["joint", "alone"]
Positive = Annotated[int, Field(ge=1)]

NONCE_DOMAIN = b"auditkit/cells/v1\0"
ACTIVE = "active"
# M alone is the same whatever T would have read. Passive MINT reads it where the paper compares
# the two, which is also where the paper recommends to read.
PASSIVE_SETUP: Setup = "entry"
# T takes no part in training M alone; this is the least that can be built.
LEAST_WIDTH = 1

LAYOUTS: Mapping[str, Kind] = MappingProxyType(
    {
        "MNIST": "mnist",
        "CIFAR-10": "cifar10",
        "GTSRB": "gtsrb",
        "Tiny ImageNet": "tiny_imagenet",
        "CASIA WebFace": "faces",
    }
)
# Sets whose own layout has no folder `train`, so that an image folder cannot be taken for it.
ALSO_IMAGE_FOLDERS = ("MNIST", "CIFAR-10", "GTSRB")


class Scale(Schema):
    """How much of the paper's configuration a machine is asked to do."""

    name: ScaleName
    sizes: SplitSizes | None = Field(description="of the cohorts; None: the whole set, in shares")
    fresh: Positive | None = Field(description="samples of the test part; None: all")
    epochs: Positive = Field(description="at most; fewer where the paper's own are")
    batch_size: Positive = Field(description="samples of D per step, and as many of E")
    learning_rate: FiniteFloat = Field(gt=0.0)
    width: Width = Field(description="channels of T's convolutions")
    passive: PassiveConfig
    precision: Literal["float32", "bfloat16"]
    threads: Positive
    device: Device


SCALES: Mapping[ScaleName, Scale] = MappingProxyType(
    {
        # Seconds; shows that everything works, and nothing else. C reaches 5 % and no less.
        "tiny": Scale(
            name="tiny",
            sizes=SplitSizes(told=8, silent=2, told_only=2, external=8, calibration=19),
            fresh=8,
            epochs=1,
            batch_size=10,
            learning_rate=1e-3,
            width=8,
            passive=PassiveConfig(hidden=(8,), channels=8, epochs=1, batch_size=4),
            precision="float32",
            threads=1,
            device="cpu",
        ),
        # C reaches 0.1 %. A hundredth of the paper's steps need a larger rate than its 1e-4.
        "cpu": Scale(
            name="cpu",
            sizes=SplitSizes(
                told=1_800, silent=200, told_only=200, external=2_000, calibration=1_000
            ),
            fresh=2_000,
            epochs=6,
            batch_size=64,
            learning_rate=1e-3,
            width=64,
            passive=PassiveConfig(channels=32, epochs=5),
            precision="bfloat16",
            threads=1,
            device="cpu",
        ),
        # T's second convolution costs the square of its width: a quarter of the authors' 2,048
        # and a fifth to two fifths of the paper's epochs keep the largest set within minutes.
        # The rate grows with the batch (Goyal et al., 2017).
        "gpu": Scale(
            name="gpu",
            sizes=None,
            fresh=None,
            epochs=20,
            batch_size=256,
            learning_rate=4e-4,
            width=512,
            passive=PassiveConfig(batch_size=256),
            precision="bfloat16",
            threads=8,
            device="cuda",
        ),
    }
)


class CellSettings(Schema):
    """Everything that one training of a cell depends on, but the software and the pixels."""

    schema_version: Literal[1] = 1
    role: Role
    pool: DataSource
    test: DataSource
    sizes: SplitSizes | SplitFractions
    training: TrainingConfig = Field(description="the number of classes is the data's own")
    stopping: StoppingRule
    passive: PassiveConfig
    device: Device
    seed: Count = 0

    @property
    def title(self) -> str:
        """A name for files and progress."""
        return f"{self.training.name}_seed{self.seed}"

    @property
    def nonce(self) -> bytes:
        """32 bytes that all cells of one seed share: M alone and M+ start from equal weights."""
        return hashlib.sha256(NONCE_DOMAIN + str(self.seed).encode()).digest()

    @property
    def digest(self) -> str:
        """What a kept result is bound to."""
        return canonical.sha256_hex(canonical.to_bytes(self))

    def alone(self) -> "CellSettings":
        """Return the training of M alone, the same for all setups of an architecture and a set."""
        training = self.training
        architecture, _, rest = training.name.partition("_")
        mint = training.mint.model_copy(
            update={"mint_weight": 0.0, "channels": LEAST_WIDTH, "hidden": ()}
        )
        changes = {
            "name": f"{architecture}_{ALONE}_{rest.partition('_')[2]}",
            "taps": TapConfig(setup=PASSIVE_SETUP),
            "mint": mint,
            "external_batch_size": 0,
        }
        return self.model_copy(
            update={"role": "alone", "training": training.model_copy(update=changes)}
        )


class CellMethod(Schema):
    """One method on one cell."""

    figures: MethodFigures
    balanced_accuracy: Fraction = Field(
        description="of told against fresh samples, at the 5 % threshold calibrated on C"
    )


class CellResult(Schema):
    """What one training of a cell showed."""

    schema_version: Literal[1] = 1
    digest: Sha256 = Field(description="of the settings")
    data: Sha256 = Field(description="of every pixel and label")
    environment: str
    sizes: SplitSizes
    epochs: Positive = Field(description="done; fewer than configured where training stopped early")
    device_peak_bytes: Count = Field(description="memory of the accelerator; 0 without one")
    methods: tuple[CellMethod, ...]

    def method(self, name: str) -> CellMethod | None:
        """Return what one method showed, if it suits the architecture."""
        return next((entry for entry in self.methods if entry.figures.method == name), None)


def cell_settings(cell: Cell, folder: Path, scale: Scale, seed: int = 0) -> CellSettings:
    """Return the joint training of a cell; `alone()` of it is the other one.

    Args:
        cell: which one.
        folder: where its data set is, as released; MNIST, CIFAR-10 and GTSRB may also be an image
            folder, `train/<class>/` and `test/<class>/`.
        scale: how much of it.
        seed: of everything random.

    Raises:
        UnknownArchitectureError, UnknownPresetError: the paper has no such cell.
    """
    found, data = (
        preset(cell.architecture, cell.setup, cell.data_set),
        known_data_set(cell.data_set),
    )
    return CellSettings(
        role="joint",
        pool=_source(data, folder, "train", scale.sizes.pool if scale.sizes else None),
        test=_source(data, folder, "test", scale.fresh),
        sizes=scale.sizes or found.split,
        training=_scaled(found, scale),
        stopping=found.stopping,
        passive=scale.passive,
        device=scale.device,
        seed=seed,
    )


def measure_cell(settings: CellSettings) -> CellResult:
    """Train as the settings say, in this process, and measure every method.

    Raises:
        DataError: the data cannot be read, do not suit the model, or are too few.
        MintError: the model cannot be built, or its training diverges.
        DeviceMissingError: there is no such accelerator.
    """
    pool, test = open_pool(settings.pool, Path()), open_pool(settings.test, Path())
    config = _for_classes(settings.training, len(pool.class_names))
    check_pool("test set", test, config.model)
    sizes = settings.sizes
    if isinstance(sizes, SplitFractions):
        sizes = split_sizes(sizes, pool.size)
    trial = train_trial(
        config,
        pool,
        test,
        sizes,
        settings.nonce,
        stopping=settings.stopping,
        device=settings.device,
    )
    return CellResult(
        digest=settings.digest,
        data=data_digest(pool, test),
        environment=_environment(settings),
        sizes=sizes,
        epochs=trial.epochs,
        device_peak_bytes=_device_peak_bytes(settings.device),
        methods=tuple(_measured(trial, settings)),
    )


def _source(data: PublishedSet, folder: Path, part: Part, limit: int | None) -> DataSource:
    kind = LAYOUTS[data.name]
    if data.name in ALSO_IMAGE_FOLDERS and (folder / "train").is_dir():
        kind = "image_folder"
    return DataSource(
        kind=kind,
        path=str(folder.resolve()),
        part=part,
        height=data.side,
        width=data.side,
        channels=data.channels,
        resize=True,
        selection=Selection(limit=limit),
    )


def _scaled(found: Preset, scale: Scale) -> TrainingConfig:
    config = found.config
    return config.model_copy(
        update={
            "mint": config.mint.model_copy(update={"channels": scale.width}),
            "optimiser": config.optimiser.model_copy(update={"learning_rate": scale.learning_rate}),
            "epochs": min(scale.epochs, config.epochs),
            "batch_size": scale.batch_size,
            "external_batch_size": scale.batch_size,
            "precision": scale.precision,
            "threads": scale.threads,
        }
    )


def _for_classes(config: TrainingConfig, classes: int) -> TrainingConfig:
    model = config.model.model_copy(update={"classes": classes})
    return config.model_copy(update={"model": model})


def _measured(trial: Trial, settings: CellSettings) -> Iterator[CellMethod]:
    for scored, figures in measure(
        _methods(trial, settings), trial, _name(settings), settings.seed
    ):
        cohorts = scored.cohorts
        yield CellMethod(
            figures=figures,
            balanced_accuracy=balanced_accuracy(
                cohorts["told"], cohorts["test"], cohorts["calibration"]
            ),
        )


def _methods(trial: Trial, settings: CellSettings) -> Iterator[Scored]:
    if settings.role == "alone":
        return passive_methods(trial, settings.passive, None, settings.seed)
    config = settings.training
    variant = Variant(
        name=ACTIVE,
        title="Active MINT",
        mint=config.mint,
        external_batch_size=config.external_batch_size,
    )
    return joint_methods(trial, variant)


def _name(settings: CellSettings) -> str:
    return ALONE if settings.role == "alone" else ACTIVE


def _environment(settings: CellSettings) -> str:
    device = (
        torch.cuda.get_device_name()
        if settings.device == "cuda"
        else f"{settings.training.threads} thread(s)"
    )
    return (
        f"{platform.system()} {platform.machine()}, {device}, Python {platform.python_version()}, "
        f"torch {version('torch')}, timm {version('timm')}, auditkit {version('auditkit')}"
    )


def _device_peak_bytes(device: Device) -> int:
    return torch.cuda.max_memory_allocated() if device == "cuda" else 0
