"""What can go wrong in the science, one type per rule."""


class MintError(Exception):
    """Base of all errors of `auditkit.mint`."""


class UnknownArchitectureError(MintError):
    """The architecture's name is not known."""


class ModelArgumentError(MintError):
    """An argument of the architecture is reserved, unknown or does not fit."""


class ModelSizeError(MintError):
    """A model is too large to be built."""


class UnbuildableModelError(MintError, ValueError):
    """The initial weights of a model that cannot be built were asked for."""


class CustomModelError(MintError):
    """A custom architecture was named and no module was given, or the other way round."""


class ModelShapeError(MintError):
    """The Audited Model does not give one row of class scores per image."""


class ClassifierError(MintError):
    """A model does not end in one linear layer that could be replaced."""


class MarginLabelsError(MintError):
    """A loss with a margin was trained without the labels that the margin is for."""


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


class FalsePositiveRateError(MintError):
    """A false-positive rate is not between 0 and 1."""


class PValueError(MintError):
    """A number is no p-value: it is not above 0 and at most 1."""


class DuplicateSampleError(MintError):
    """A set holds a sample more than once, so that one sample would count for many."""


class SetShapeError(MintError):
    """A set's scores and identities do not belong together."""


class SetTooLargeError(MintError):
    """A set is to be drawn from a cohort that holds fewer samples."""


class TooFewDrawsError(MintError):
    """No p-value of the permutation test can be as small as the rate that was asked for."""


class EmptyCohortError(MintError):
    """A measurement was asked of a cohort without samples."""


class ScoresFileError(MintError):
    """The scores file is damaged or lacks a part."""


class PixelTypeError(MintError):
    """Images are not unsigned 8-bit pixels of the shape that was announced."""


class SingleClassError(MintError):
    """A MINT Model was to be fitted, or tested, without samples of both kinds."""


class FeatureShapeError(MintError):
    """Features are not of the shape that the MINT Model reads."""


class NonFiniteFeatureError(MintError):
    """A feature is infinite or not a number."""


class GradientLayerError(MintError):
    """A layer's gradients cannot be taken sample by sample."""


class GradientMemoryError(MintError):
    """The gradients of one sample do not fit in the memory that was allowed."""


class CodeShapeError(MintError):
    """Codes and outputs of T are not of one length, or not as many as they must be."""


class HeadElsewhereError(MintError):
    """T was asked in a process that does not hold it."""


class MapsFileError(MintError):
    """Packed activations or gradients are damaged, not finite, or not of this training."""


class HeldStateError(MintError):
    """A saved state of T is damaged or belongs to another training."""


class PartsError(MintError):
    """Weights of M and T cannot be put together to M+, or not be told apart."""
