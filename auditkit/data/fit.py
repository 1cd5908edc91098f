"""Whether samples suit the model that is to be trained on them."""

from auditkit.data.errors import DataError
from auditkit.data.pools import Pool
from schemas import ModelConfig


class PoolShapeError(DataError):
    """A pool's images or classes are not those that the model's configuration names."""


def check_pool(what: str, pool: Pool, model: ModelConfig) -> None:
    """Check that a data set fits the model's configuration.

    Raises:
        PoolShapeError: size, channels or number of classes differ.
    """
    height, width, channels = pool.shape
    if (height, width, channels) != (model.height, model.width, model.channels):
        raise PoolShapeError(
            f"the {what} has images of {height} x {width} pixels and {channels} channels, the "
            f"model expects {model.height} x {model.width} and {model.channels}; change "
            "training.model, or let the data source resize"
        )
    if len(pool.class_names) != model.classes:
        raise PoolShapeError(
            f"the {what} has {len(pool.class_names)} classes, training.model.classes is "
            f"{model.classes}; set it to {len(pool.class_names)}"
        )
