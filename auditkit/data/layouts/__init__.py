"""The layouts in which samples are kept, one module each."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from auditkit.data.layouts import (
    arrays,
    cifar10,
    digits,
    faces,
    gtsrb,
    image_folder,
    mnist,
    tiny_imagenet,
    vision_dataset,
)
from auditkit.data.layouts.listing import Listing
from auditkit.data.source import DataSource, Kind

LAYOUTS: Mapping[Kind, Callable[[Path, DataSource], Listing]] = MappingProxyType(
    {
        "digits": digits.listing,
        "image_folder": image_folder.listing,
        "torchvision": vision_dataset.listing,
        "arrays": arrays.listing,
        "mnist": mnist.listing,
        "cifar10": cifar10.listing,
        "gtsrb": gtsrb.listing,
        "tiny_imagenet": tiny_imagenet.listing,
        "faces": faces.listing,
    }
)
