"""What the server keeps: rows in a database, large files in a content-addressed folder."""

from auditor_server.store.blobs import BlobStore
from auditor_server.store.lists import Place
from auditor_server.store.models import (
    ContinuationRow,
    InquiryRow,
    OrderRow,
    OrganisationRow,
    RegistryHeadRow,
    ReplayRow,
    SegmentRow,
    SessionRow,
    SignInRow,
    SubmissionRow,
    TokenRow,
    TrailRow,
    UserRow,
    VerdictRow,
    VerificationRow,
    WitnessingRow,
)
from auditor_server.store.registrations import Registration
from auditor_server.store.store import Store

__all__ = [
    "BlobStore",
    "ContinuationRow",
    "InquiryRow",
    "OrderRow",
    "OrganisationRow",
    "Place",
    "Registration",
    "RegistryHeadRow",
    "ReplayRow",
    "SegmentRow",
    "SessionRow",
    "SignInRow",
    "Store",
    "SubmissionRow",
    "TokenRow",
    "TrailRow",
    "UserRow",
    "VerdictRow",
    "VerificationRow",
    "WitnessingRow",
]
