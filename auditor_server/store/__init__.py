"""What the server keeps: rows in a database, large files in a content-addressed folder."""

from auditor_server.store.blobs import BlobStore
from auditor_server.store.models import (
    ContinuationRow,
    OrderRow,
    SegmentRow,
    SessionRow,
    SubmissionRow,
    TokenRow,
    VerdictRow,
)
from auditor_server.store.store import Store

__all__ = [
    "BlobStore",
    "ContinuationRow",
    "OrderRow",
    "SegmentRow",
    "SessionRow",
    "Store",
    "SubmissionRow",
    "TokenRow",
    "VerdictRow",
]
