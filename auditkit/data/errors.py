"""What can be wrong with data, one type per rule."""


class DataError(Exception):
    """Base of all errors of `auditkit.data`."""


class PoolNotFoundError(DataError):
    """The path of a data set does not exist, or holds nothing that the loader knows."""


class UnknownDatasetError(DataError):
    """torchvision has no data set of that name, or not one of the kind that is needed."""


class ClassFoldersError(DataError):
    """An image folder has no class folders."""


class EmptyPoolError(DataError):
    """A data set has no samples, or fewer than were asked for."""


class SingleClassError(DataError):
    """All samples have one label: there is nothing to learn and nothing to audit."""


class LabelRangeError(DataError):
    """A label does not name one of the classes."""


class PixelTypeError(DataError):
    """Pixels are not unsigned 8-bit values of shape (N, H, W, C) with 1 or 3 channels."""


class UndecodableImageError(DataError):
    """Bytes are not a whole image, or one that is too large to be opened safely."""


class NotAnImageError(UndecodableImageError):
    """Bytes are something else than an image that can be read: an archive, a page, a program."""


class DamagedImageError(UndecodableImageError):
    """An image begins well and is cut off, or contradicts itself."""


class TooManyPixelsError(UndecodableImageError):
    """An image says of itself that it is larger than may be opened; it is not decoded."""


class ImageDepthError(UndecodableImageError):
    """An image has more than eight bits per value, which a conversion would clip."""


class ImageSizeError(DataError):
    """An image has another height, width or number of channels than expected."""


class ArraysFileError(DataError):
    """An .npz file is damaged, holds objects, or lacks an array."""


class ManifestKeyError(DataError):
    """The key of a manifest is not 32 bytes long."""


class SampleIndexError(DataError):
    """A sample index lies outside the manifest."""


class OpeningError(DataError):
    """An opening does not fit the image or the commitment."""


class TooManyDuplicatesError(DataError):
    """So many images are alike at the chosen similarity that it tells nothing apart."""


class BinaryFileError(DataError):
    """A binary file of samples is not in its layout: cut off, too long, or damaged."""


class PickleRefusedError(DataError):
    """A data set is there only as pickles, which are programs and never opened."""


class AnnotationError(DataError):
    """A file that says what the images show is missing, or cannot be read."""


class PoolTooLargeError(DataError):
    """The decoded images would not fit into the memory of this machine."""


class ArchiveError(DataError):
    """An uploaded archive of images can't be accepted."""


class ArchiveFormatError(ArchiveError):
    """The file is no ZIP archive, a damaged one, or one that takes a password."""


class ArchiveTooLargeError(ArchiveError):
    """An archive holds too many files, too many bytes, or far more bytes than it takes."""


class ArchiveNameError(ArchiveError):
    """A name in an archive leads out of it, or is there twice."""


class ArchiveEntryError(ArchiveError):
    """An archive of images holds something that is none."""


class NestedArchiveError(ArchiveEntryError):
    """An archive holds another archive."""
