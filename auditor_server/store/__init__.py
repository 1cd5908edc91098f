"""What the server keeps: rows in a database, large files in a content-addressed folder."""

from auditor_server.store.blobs import BlobStore
from auditor_server.store.models import (
    ContinuationRow,
    OrderRow,
    RegistryHeadRow,
    ReplayRow,
    SegmentRow,
    SessionRow,
    SubmissionRow,
    TokenRow,
    VerdictRow,
    VerificationRow,
    WitnessingRow,
)
from auditor_server.store.registrations import Registration
from auditor_server.store.store import Store

__all__ = [
    "BlobStore",
    "ContinuationRow",
    "OrderRow",
    "Registration",
    "RegistryHeadRow",
    "ReplayRow",
    "SegmentRow",
    "SessionRow",
    "Store",
    "SubmissionRow",
    "TokenRow",
    "VerdictRow",
    "VerificationRow",
    "WitnessingRow",
]
