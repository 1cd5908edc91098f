"""What can go wrong in a study, one type per rule."""


class StudyError(Exception):
    """Base of all errors of `auditkit.studies`."""


class ExposureError(StudyError):
    """Samples cannot be shown as often as was asked for."""


class StudyDataError(StudyError):
    """The data do not suit the study: too few samples, or an unknown layout."""


class CellFileError(StudyError):
    """A kept result of a study is damaged or is not one."""


class TooFewSeedsError(StudyError):
    """There are too few seeds for an interval."""


class StoppingRuleError(StudyError):
    """An early stopping rule that could never or would always stop."""


class HoldOutError(StudyError):
    """A part of D and E cannot be set apart as asked."""


class UnknownPresetError(StudyError):
    """No experiment, data set or cell of the paper has that name."""


class NoCodesError(StudyError):
    """A measurement of membership codes was asked of a MINT Model that says none."""


class UnknownAlterationError(StudyError):
    """No alteration of images has that name."""


class ReferencesError(StudyError):
    """There are too few samples to train reference models on."""


class UnknownMethodError(StudyError):
    """A comparison has no part of that name."""


class PartKilledError(StudyError):
    """The process of one training was killed."""


class DeviceMissingError(StudyError):
    """There is no accelerator of the kind that was asked for."""
