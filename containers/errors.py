"""Typed errors of the container image: one class per rule that can be violated."""


class ContainerError(Exception):
    """Base of every error of `containers`: the image, or the file it is saved in, does not hold."""


class MissingArchiveError(ContainerError):
    """There is no file where a saved image is expected."""


class ArchiveFormatError(ContainerError):
    """The file is not a saved image in one of the two layouts, or is damaged."""


class TruncatedArchiveError(ArchiveFormatError):
    """The archive, or a layer in it, ends too early."""


class UnsafeNameError(ArchiveFormatError):
    """A member's name leads out of the archive, or can be read in more than one way."""


class DuplicateMemberError(ArchiveFormatError):
    """Two members have the same name, so that two readers may see two images."""


class MemberKindError(ArchiveFormatError):
    """A member is a link, a device, sparse or of an unknown kind where bytes are expected."""


class DocumentFormatError(ArchiveFormatError):
    """A JSON document of the image is not strict JSON, or not the document it should be."""


class ArchiveSizeError(ContainerError):
    """Something in the archive is larger, or there is more of it, than a reader should accept."""


class ArchiveChangedError(ContainerError):
    """The archive was written to while it was read."""


class UnsupportedCompressionError(ContainerError):
    """A layer is compressed in a way that cannot be undone here."""


class MissingBlobError(ContainerError):
    """The archive names a part of the image that it does not contain."""


class BlobDigestError(ContainerError):
    """A part of the image does not hash to the digest that names it."""


class BlobSizeError(ContainerError):
    """A part of the image has another size than the document that names it says."""


class LayerDigestError(ContainerError):
    """An uncompressed layer does not hash to its place in the configuration's `rootfs.diff_ids`."""


class LayerCountError(ContainerError):
    """The image has more or fewer layers than its configuration says."""


class LayerFormatError(ContainerError):
    """The layers cannot be applied to each other."""


class NoImageError(ContainerError):
    """The archive contains no image."""


class AmbiguousImageError(ContainerError):
    """The archive contains several images, so its identity would be a matter of choice."""


class IdentityMismatchError(ContainerError):
    """The two layouts in one archive describe two images."""


class RecipeError(ContainerError):
    """A line of the recipe is not in the strict subset of the Dockerfile."""


class UnsafeSourceError(ContainerError):
    """A file for the image cannot be put there as it is: a link that leads out, a strange name."""


class SourceChangedError(ContainerError):
    """A file was written to while it was put into an image."""


class MissingSourceError(ContainerError):
    """A file that is to be put into an image is not there."""


class MmdebstrapMissingError(ContainerError):
    """The program that makes a root file system from Debian packages is not installed."""


class BaseBuildError(ContainerError):
    """The root file system could not be made."""


class BasePlatformError(ContainerError):
    """The base is for another platform than the packages that go on top of it."""


class BasePythonError(ContainerError):
    """The base has no Python that fits the packages, or it cannot be run here."""


class BasePullError(ContainerError):
    """The default base could not be fetched from its registry."""


class BytecodeError(ContainerError):
    """The image's Python could not compile the code of the image."""


class PipMissingError(ContainerError):
    """This Python has no pip."""


class WheelInstallError(ContainerError):
    """The pinned packages could not be fetched or installed."""


class QueryAnswerError(ContainerError):
    """A container that was asked about pictures has not answered, or not what was asked."""
