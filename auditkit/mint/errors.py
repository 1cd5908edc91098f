"""What can go wrong in the science, one type per rule."""


class MintError(Exception):
    """Base of all errors of `auditkit.mint`."""


class UnknownArchitectureError(MintError):
    """The architecture's name is not known."""


class ModelArgumentError(MintError):
    """An argument of the architecture is reserved, unknown or does not fit."""


class ModelSizeError(MintError):
    """A model is too large to be built."""


class CustomModelError(MintError):
    """A custom architecture was named and no module was given, or the other way round."""


class ModelShapeError(MintError):
    """The Audited Model does not give one row of class scores per image."""


class UnknownTapError(MintError):
    """A tap names a module that the model does not have, or stages that it does not declare."""


class TapPositionError(MintError):
    """A tap lies where the batch cannot be divided, runs twice, or does not run at all."""


class TapShapeError(MintError):
    """A tap's map does not suit the MINT Model that was chosen."""


class WeightsFileError(MintError):
    """The weights file is not a whole safetensors file."""


class PickleRefusedError(WeightsFileError):
    """The weights file is a pickle or an archive; such files can run code when they are opened."""


class WeightsMismatchError(MintError):
    """The weights file belongs to another model."""


class NonFiniteWeightsError(MintError):
    """A weight is infinite or not a number."""


class NonFiniteLossError(MintError):
    """A loss is infinite or not a number: the training has diverged."""


class NonFiniteScoreError(MintError):
    """A score is infinite or not a number, so that it has no rank."""


class CalibrationTooSmallError(MintError):
    """The calibration set cannot support the false-positive rate that was asked for."""


class EmptyCohortError(MintError):
    """A measurement was asked of a cohort without samples."""


class ScoresFileError(MintError):
    """The scores file is damaged or lacks a part."""


class PixelTypeError(MintError):
    """Images are not unsigned 8-bit pixels of the shape that was announced."""
