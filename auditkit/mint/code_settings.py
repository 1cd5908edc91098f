"""A rule that sets taps, head, width and weight of a T that says membership codes."""

import torch

from auditkit.mint.heads import LEAST_MAP_SIDE, strided_features
from auditkit.mint.models import outline
from auditkit.mint.taps import find_taps
from schemas import MintConfig, ModelConfig, TapConfig

# z of the answer that T aims at is 11 then, and a p-value of 10^-6 needs 5.3.
CODE_LENGTH = 256
# T gets this many weights for each number of the members' codes; with fewer, it learns them later.
WEIGHTS_PER_NUMBER = 4
LEAST_WIDTH = 1_024
WIDTH_STEP = 256
CHANNELS = 64
# The least that orders allow by default. With Adam, T learns as fast with any weight, and M keeps
# the accuracy that it has alone.
MINT_WEIGHT = 0.1


def code_settings(model: ModelConfig, members: int) -> tuple[TapConfig, MintConfig]:
    """Return taps and T that can hold the codes of so many members.

    T reads the maps of the first stage, where an image still differs from its look-alikes: by
    strided convolutions where they are spatial, else by a fully connected layer.

    Raises:
        MintError: the model cannot be built, or has no stages.
    """
    taps = TapConfig(setup="entry")
    with torch.device("meta"):
        shapes = find_taps(outline(model), taps, model).shapes
    spatial = all(len(shape) == 3 and min(shape[1:]) >= LEAST_MAP_SIDE for shape in shapes)
    features = sum(
        strided_features(shape, CHANNELS) if spatial else torch.Size(shape).numel()
        for shape in shapes
    )
    needed = WEIGHTS_PER_NUMBER * members * CODE_LENGTH / (features + CODE_LENGTH)
    return taps, MintConfig(
        evidence="codes",
        head="strided" if spatial else "fully_connected",
        channels=CHANNELS,
        hidden=(max(LEAST_WIDTH, WIDTH_STEP * -(-int(needed) // WIDTH_STEP)),),
        code_length=CODE_LENGTH,
        mint_weight=MINT_WEIGHT,
    )
