"""Any classification data set of torchvision that already lies below a folder."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from auditkit.data.errors import PoolNotFoundError, UnknownDatasetError
from auditkit.data.layouts.listing import Listing
from auditkit.data.source import DataSource, Part


def listing(path: Path, source: DataSource) -> Listing:
    """List the data set that `source` names, by default its training part."""
    return listed(source.dataset or "", path, source.part or "train")


def listed(name: str, root: Path, part: Part) -> Listing:
    """List one part of a data set of torchvision.

    Raises:
        UnknownDatasetError, PoolNotFoundError.

    """
    samples = _opened(name, root, part)

    def sample(index: int) -> tuple[Image.Image, int]:
        picture, label = samples[index]
        if not isinstance(picture, Image.Image) or not isinstance(label, int | np.integer):
            raise UnknownDatasetError(
                f"{name}: expected pairs of an image and a class number, found "
                f"{type(picture).__name__} and {type(label).__name__}; export it as an image folder"
            )
        return picture, int(label)

    source = f"{name} in {root}"
    first, _ = sample(0)
    return Listing(
        name=source,
        size=len(samples),
        class_names=tuple(str(known) for known in getattr(samples, "classes", None) or ()),
        sample=sample,
        sample_name=lambda index: f"{source}, sample {index}",
        channels=1 if first.mode in {"1", "L"} else 3,
        concurrent=False,  # some keep a file or a database open
    )


def _opened(name: str, root: Path, part: Part) -> Any:  # noqa: ANN401
    import torchvision  # slow to load, and other layouts do without

    kind = getattr(torchvision.datasets, name, None)
    if not (inspect.isclass(kind) and issubclass(kind, torchvision.datasets.VisionDataset)):
        raise UnknownDatasetError(
            f"expected a data set of torchvision, found {name!r}; "
            "see torchvision.datasets for the names"
        )
    if not root.is_dir():
        raise PoolNotFoundError(
            f"{root}: expected a folder with {name}, found none; check the path"
        )
    build: Callable[..., Any] = kind
    try:
        return build(root=str(root), **_arguments(build, name, part))
    except (RuntimeError, OSError, ValueError) as error:
        raise PoolNotFoundError(
            f"{root}: expected {name} in the layout of torchvision, found none ({error}); "
            "put the files there; nothing is downloaded"
        ) from error


def _arguments(build: Callable[..., Any], name: str, part: Part) -> dict[str, Any]:
    parameters = inspect.signature(build).parameters
    arguments: dict[str, Any] = {"download": False} if "download" in parameters else {}
    if "train" in parameters:
        return arguments | {"train": part == "train"}
    if "split" in parameters:
        return arguments | {"split": part}
    raise UnknownDatasetError(
        f"{name}: expected a data set with a train and a test part, found none; "
        "export it as an image folder"
    )
