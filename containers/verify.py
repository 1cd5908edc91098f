"""Is this image one that the auditor allows?"""

from collections.abc import Iterable

from auditkit.evidence.policy import ImageNotAllowedError
from schemas import ImageIdentity


def verify_image(identity: ImageIdentity, allowed: Iterable[str]) -> None:
    """Check that an image is on an order's list of images.

    Args:
        identity: recomputed from the saved image with `identity.identify`.
        allowed: `AuditOrder.images`: configuration digests in lower-case hexadecimal.

    Raises:
        ImageNotAllowedError: the image's configuration digest is not on the list.
    """
    images = tuple(allowed)
    if identity.config_digest not in images:
        listed = ", ".join(images) if images else "no image at all"
        raise ImageNotAllowedError(
            f"expected one of the {len(images)} allowed images ({listed}), found "
            f"{identity.config_digest}; run an image that is on the list, or send the auditor this "
            "identity and ask for a new order"
        )
