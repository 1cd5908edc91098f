"""What can go wrong in a membership inference attack, one type per rule."""

from auditkit.mint.errors import MintError


class AttackError(MintError):
    """Base of all errors of `auditkit.mint.attacks`."""


class AttackShapeError(AttackError):
    """Two arrays do not belong together, or one has another shape or type than was announced."""


class LabelRangeError(AttackError):
    """A label names no class."""


class NonFiniteLogitsError(AttackError):
    """A logit or loss is infinite or not a number."""


class AttackParameterError(AttackError):
    """A parameter of an attack lies outside its range."""


class TooFewReferencesError(AttackError):
    """There are fewer reference models than the attack can estimate anything from."""


class MissingReferenceError(AttackError):
    """A sample has no reference model of a kind (IN or OUT) that the attack needs."""


class IdenticalReferencesError(AttackError):
    """Reference models agree to the last bit, so that nothing can be said about their spread."""


class EmptySamplesError(AttackError):
    """There are no samples: none to test, or no population to compare with."""


class MissingInputError(AttackError):
    """An attack was asked for without an input that it needs."""
