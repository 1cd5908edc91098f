"""Everything that the server's operations need, passed explicitly."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import BoundedSemaphore

from auditkit.evidence.keys import SigningKey
from auditkit.evidence.verify import COSIGNER_SUFFIX
from auditor_server.access.principals import Principal
from auditor_server.errors import HomeError, SessionNotFoundError
from auditor_server.home import Home, open_home
from auditor_server.inference.service import Inference
from auditor_server.metrics import Metrics
from auditor_server.settings import ServerSettings
from auditor_server.store import BlobStore, SessionRow, Store
from schemas import RoleName, TrustRoot
from schemas.wire import SessionState

# Without these the server could not take in a single session.
NECESSARY_KEYS: tuple[RoleName, ...] = ("session", "cosigner", "verdict")
# In each worker: 128 MiB of memory while they are hashed, and about 15 a second on four cores.
MOST_PASSWORDS_AT_ONCE = 4


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Auditor:
    """One auditor's server: its settings, home, database, and the keys that it signs with."""

    settings: ServerSettings
    home: Home
    store: Store
    blobs: BlobStore
    inference: Inference
    metrics: Metrics = field(default_factory=Metrics)
    now: Callable[[], datetime] = _utc_now
    password_checks: BoundedSemaphore = field(
        default_factory=lambda: BoundedSemaphore(MOST_PASSWORDS_AT_ONCE)
    )

    @classmethod
    def open(cls, settings: ServerSettings) -> "Auditor":
        """Open the home that the settings name.

        Raises:
            HomeError: there is none, a key that the server signs with is missing, or the
                database cannot be used.

        """
        home = open_home(settings.home)
        for role in NECESSARY_KEYS:
            home.signing_key(role)
        metrics = Metrics()
        blobs = home.open_blobs(settings.blobs_url)
        return cls(
            settings=settings,
            home=home,
            store=home.prepare_store(settings.database_url),
            blobs=blobs,
            inference=Inference(settings, blobs, metrics),
            metrics=metrics,
        )

    def trust_root(self) -> TrustRoot:
        """Return the version of the trust root that is in force now, read afresh.

        Raises:
            TrustRootError: it is damaged or expired.

        """
        return self.home.trust_root(self.now())

    def signing_key(self, role: RoleName, time: datetime | None = None) -> SigningKey:
        """Return the key that signs in a role, by the version of the trust root in force.

        Args:
            role: in which it acts.
            time: that the signed document tells; None: now.

        Raises:
            HomeError: the trust root names no key for the role, or it is not kept here.
            TrustRootError: no version is in force.

        """
        return self.home.signing_key(role, self.now() if time is None else time)

    @property
    def registry_key(self) -> SigningKey | None:
        """The key that signs heads of the registry; None: the home is older than the registry."""
        try:
            return self.signing_key("registry")
        except HomeError:
            return None  # whoever needs a head is told; everything else goes on

    def cosigner_name(self, root: TrustRoot) -> str:
        """Return the name under which this auditor cosigns checkpoints."""
        return f"{root.origin}{COSIGNER_SUFFIX}"

    def session(self, session_id: str, principal: Principal) -> SessionRow:
        """Return a session that the principal may see.

        Raises:
            SessionNotFoundError: there is none, it belongs to another organisation, or the token
                is for another one; the three are not told apart.

        """
        session = self.store.session(session_id)
        if session is None or not self._seen(session, principal):
            raise SessionNotFoundError(
                f"no session {session_id!r} is open to this token; `GET /v1/sessions` lists yours"
            )
        return session

    def sessions(self, principal: Principal) -> Sequence[SessionRow]:
        """Return the sessions that the principal may see, oldest first."""
        found = self.store.sessions(_whose(principal))
        return [row for row in found if principal.session_id in {None, row.id}]

    def count_sessions(self, principal: Principal, states: Collection[SessionState]) -> int:
        """Return how many of the sessions that the principal may see are in one of `states`."""
        return self.store.count_sessions(_whose(principal), principal.session_id, states)

    def newest_sessions(
        self, principal: Principal, states: Collection[SessionState], *, first: int, most: int
    ) -> Sequence[SessionRow]:
        """Return a page of the sessions that `count_sessions` counts, newest first."""
        return self.store.newest_sessions(
            _whose(principal), principal.session_id, states, first=first, most=most
        )

    def _seen(self, session: SessionRow, principal: Principal) -> bool:
        if principal.session_id not in {None, session.id}:
            return False
        return (
            principal.sees_all
            or session.owner == principal.name
            or self.store.opened_by(principal.organisation, session.id)
        )


def _whose(principal: Principal) -> str | None:
    """Return the organisation whose sessions the principal sees; None: those of all."""
    return None if principal.sees_all else principal.organisation
