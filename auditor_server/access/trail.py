"""The audit trail: who looked at what, and asked what, and why.

A question whether somebody's picture was used is itself personal data. So it says what it is for,
and the trail never holds a picture: of each file it has the SHA-256, keyed with a secret that lies
outside the database. Who has a picture, and the secret, can find out who asked about it.
"""

import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime, timedelta

from auditor_server.access.principals import Principal
from auditor_server.context import Auditor
from auditor_server.store import TrailRow
from schemas.wire import TrailAction, TrailEntry, TrailPage

DIGEST_BYTES = 32
MOST_ENTRIES_PER_PAGE = 200


def record(
    auditor: Auditor,
    principal: Principal,
    action: TrailAction,
    session_id: str | None = None,
    *,
    purpose: str | None = None,
    pictures: Sequence[bytes] = (),
) -> None:
    """Write an entry, which is kept when this returns, and forget those that are too old."""
    key = auditor.home.trail_key() if pictures else b""
    auditor.store.trail.add(
        TrailRow(
            at=auditor.now(),
            principal=principal.name,
            role=principal.role,
            organisation=principal.organisation,
            action=action,
            session_id=session_id,
            purpose=purpose,
            pictures=len(pictures),
            digests=b"".join(keyed_digest(key, picture) for picture in pictures),
        ),
        _kept_since(auditor),
    )


def keyed_digest(key: bytes, picture: bytes) -> bytes:
    """Return what the trail keeps of a picture's file: HMAC-SHA256 of its SHA-256."""
    return hmac.digest(key, hashlib.sha256(picture).digest(), "sha256")


def page(
    auditor: Auditor,
    principal: Principal,
    before: int | None = None,
    session_id: str | None = None,
    most: int = MOST_ENTRIES_PER_PAGE,
) -> TrailPage:
    """Return a page of the trail, newest first. Reading the first page is itself in the trail."""
    if before is None:
        record(auditor, principal, "trail", session_id)
    rows = auditor.store.trail.page(_kept_since(auditor), before, session_id, most)
    return TrailPage(
        entries=tuple(_entry(row) for row in rows),
        before=rows[-1].number if len(rows) == most else None,
    )


def prune(auditor: Auditor) -> int:
    """Forget what is older than the settings say, and return how many entries that were."""
    return auditor.store.trail.prune(_kept_since(auditor))


def _kept_since(auditor: Auditor) -> datetime:
    return auditor.now() - timedelta(days=auditor.settings.trail_days)


def _entry(row: TrailRow) -> TrailEntry:
    starts = range(0, len(row.digests), DIGEST_BYTES)
    return TrailEntry(
        number=row.number,
        at=row.at,
        principal=row.principal,
        role=row.role,
        organisation=row.organisation,
        action=row.action,
        session_id=row.session_id,
        purpose=row.purpose,
        pictures=row.pictures,
        picture_digests=tuple(row.digests[start : start + DIGEST_BYTES].hex() for start in starts),
    )
