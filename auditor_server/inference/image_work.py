"""Decoding images that others have sent."""

from auditkit.data.errors import DataError
from auditkit.data.images import decode_image
from auditor_server.inference.messages import DecodeImage, Done, Work


class ImageWork:
    """The work of a worker that decodes images; nothing is kept between two of them."""

    refusals = DataError

    def do(self, work: Work, payload: bytes) -> tuple[Done, bytes]:
        """Decode one image to its pixels (H, W, C).

        Raises:
            UndecodableImageError, and its kinds; ImageSizeError: see `decode_image`.
            TypeError: other work than that.

        """
        if not isinstance(work, DecodeImage):
            raise TypeError(f"a worker that decodes images was asked to {work.kind}")
        pixels = decode_image(payload, *work.shape.as_tuple, resize=work.resize, name=work.name)
        return Done(shape=pixels.shape), pixels.tobytes()
