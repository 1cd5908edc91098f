"""Typed errors of the container engine: what it lacks, what it refuses, what it got wrong."""

from containers.errors import ContainerError


class EngineError(ContainerError):
    """The container engine refuses something; base of every error about it."""


class EngineMissingError(EngineError):
    """No container engine answers on this machine."""


class EngineRightsError(EngineError):
    """There is an engine, and this user may not talk to it."""


class RemoteEngineError(EngineError):
    """The engine is addressed over a network: folders of this machine cannot be mounted in it."""


class EngineLostError(EngineError):
    """The connection to the engine broke off: it was stopped, killed or restarted."""


class EngineAnswerError(EngineError):
    """The engine answers something that its interface does not allow."""


class RootlessLimitsError(EngineError):
    """The engine would accept limits on memory, processors and processes, and not enforce them."""


class GpuSupportError(EngineError):
    """GPUs are asked for, and the engine cannot pass any on."""


class ImageLoadError(EngineError):
    """The engine did not load an image."""


class StoredImageError(EngineError):
    """What the engine has on disk is not the image that it is said to be."""


class ContainerEndedError(EngineError):
    """The container has ended where it should be running."""
