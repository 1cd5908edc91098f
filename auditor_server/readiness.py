"""Whether the server can do its work now, for whoever sends it requests or starts it anew."""

import logging
import time
from collections.abc import Callable
from threading import Lock

from sqlalchemy.exc import SQLAlchemyError

from auditkit.evidence.errors import EvidenceError
from auditor_server.context import NECESSARY_KEYS, Auditor
from auditor_server.errors import NotReadyError, ServerError

# Whoever asks more often is told the same: each look writes a file and reads it back.
LOOK_SECONDS = 5.0

_LOG = logging.getLogger(__name__)


class Readiness:
    """What one worker has last found."""

    def __init__(self, auditor: Auditor) -> None:
        self._parts: dict[str, Callable[[], object]] = {
            "database": auditor.store.check_answers,
            "tables": auditor.store.check_tables,
            "blobs": auditor.blobs.probe,
            "keys": lambda: [auditor.signing_key(role) for role in NECESSARY_KEYS],
        }
        self._lock = Lock()
        self._looked_at = float("-inf")
        self._missing: tuple[str, ...] = ()

    def check(self) -> None:
        """Look, unless somebody has just done so.

        Raises:
            NotReadyError: a part is missing; why is in the log, since anyone may ask.

        """
        with self._lock:
            if time.monotonic() - self._looked_at >= LOOK_SECONDS:
                self._missing = tuple(name for name in self._parts if not self._works(name))
                self._looked_at = time.monotonic()
            missing = self._missing
        if missing:
            raise NotReadyError(f"not ready: {', '.join(missing)}; the server's log says why")

    def _works(self, name: str) -> bool:
        try:
            self._parts[name]()
        except (ServerError, EvidenceError, SQLAlchemyError, OSError) as error:
            _LOG.warning("not ready, %s: %s", name, error)
            return False
        return True
