"""Opening single samples: what the developer hands out so that the auditor can ask for own codes.

An opening shows one sample's key, label and place in the committed tree. It opens that sample and
no other, and says nothing about which cohort the sample is in.
"""

import numpy as np

from auditkit.data.images import Pixels
from auditkit.data.manifest import Manifest
from auditkit.data.pools import Pool
from developer_agent.errors import AgentError
from developer_agent.run_folder import RunFolder
from developer_agent.session import RunMismatchError, read_grant
from schemas import SampleOpening, SessionRequest


class SampleNotInPoolError(AgentError):
    """No sample of the pool has exactly these pixels."""


def open_sample(folder: RunFolder, pool: Pool, index: int) -> SampleOpening:
    """Return the opening of one sample of a granted run.

    Args:
        folder: of the run.
        pool: the run's, read again.
        index: of the sample in the pool.

    Raises:
        RunFileMissingError: no session was opened there.
        RunMismatchError: the pool is not the one that the run has committed to.
        SampleIndexError: the pool has no such sample.
    """
    manifest = Manifest(pool, folder.manifest_key.read())
    request = SessionRequest.from_bytes(folder.request.read())
    if manifest.commitment != request.pool:
        raise RunMismatchError(
            f"the pool differs from what the run in {folder.path} has committed to; restore the "
            "data, nothing else can be opened"
        )
    opening = manifest.open(index)
    return SampleOpening(
        session_id=read_grant(folder).session_id,
        index=opening.index,
        key=opening.key.hex(),
        label=opening.label,
        proof=tuple(node.hex() for node in opening.proof),
    )


def find_sample(pool: Pool, image: Pixels) -> int:
    """Return the index of the first sample that has exactly these pixels.

    Args:
        pool: samples of one shape.
        image: (H, W, C).

    Raises:
        SampleNotInPoolError: there is none; a copy that differs in a single pixel is none.
    """
    same = (pool.images == image).all(axis=(1, 2, 3))
    if not same.any():
        raise SampleNotInPoolError(
            f"none of the pool's {len(pool.images)} samples has exactly these pixels; an altered "
            "copy cannot be opened, query it without an opening"
        )
    return int(np.argmax(same))
