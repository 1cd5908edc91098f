"""Opening a supervised session: request, grant, and everything that follows from the nonce."""

import hashlib
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from auditkit.data.manifest import Manifest
from auditkit.data.pools import Pool
from auditkit.evidence import canonical, dsse, statements, trust
from auditkit.evidence.derivation import Schedule, derive_split
from auditkit.evidence.keys import SigningKey
from developer_agent.client import ServerClient
from developer_agent.environment import code_digest, describe_environment
from developer_agent.errors import AgentError
from developer_agent.run_folder import RunFolder
from schemas import AuditOrder, SessionGrant, SessionRequest, TrainingConfig, TrustRoot

TEST_KEY_LABEL = b"auditkit/test-manifest/v1\0"
MANIFEST_KEY_BYTES = 32


class GrantRefusedError(AgentError):
    """The grant is not for this request, so this run must not use it."""


class RunMismatchError(AgentError):
    """The run folder belongs to another configuration, data set or code version."""


@dataclass(frozen=True)
class Session:
    """An open session, with all that the agent needs to train under it."""

    folder: RunFolder
    trust_root: TrustRoot
    order: AuditOrder
    request: SessionRequest
    grant: SessionGrant
    grant_digest: str
    key: SigningKey
    pool: Pool
    test: Pool
    manifest: Manifest

    @property
    def config(self) -> TrainingConfig:
        """What is trained."""
        return self.request.config

    @property
    def nonce(self) -> bytes:
        """The auditor's 32 random bytes."""
        return bytes.fromhex(self.grant.nonce)

    @cached_property
    def schedule(self) -> Schedule:
        """Every batch of the training. Asked for in every step, and derived once."""
        return Schedule(
            nonce=self.nonce,
            split=derive_split(self.nonce, self.grant.split),
            batch_size=self.config.batch_size,
            external_batch_size=self.config.external_batch_size,
            epochs=self.config.epochs,
        )


def open_session(
    client: ServerClient,
    folder: RunFolder,
    *,
    trust_root_bytes: bytes,
    order_id: str,
    developer: str,
    config: TrainingConfig,
    pool: Pool,
    test: Pool,
    user_code: Iterable[Path] = (),
) -> Session:
    """Ask the auditor for a session and keep all its documents in the run folder.

    A request that was sent before and got no answer is sent again as it was, so that a lost
    answer costs no second session.

    Raises:
        ServerError: no answer, or a refusal with its reason.
        TrustRootError, EvidenceError: order or grant are not the auditor's.
        GrantRefusedError: the grant answers something else.
    """
    now = datetime.now(UTC)
    trust_root = trust.open_trust_root(trust_root_bytes, now)
    order_bytes = client.order(order_id)
    order_envelope = dsse.Envelope.from_bytes(order_bytes)
    trust.verify_statement(
        trust_root, "order", order_envelope, statements.ORDER_PREDICATE, AuditOrder
    )
    folder.trust_root.write(trust_root_bytes)
    folder.order.write(order_bytes)
    key, manifest_key = _secrets(folder)
    manifest, test_manifest = _manifests(pool, test, manifest_key)
    if not folder.request.exists():
        request = SessionRequest(
            order_digest=canonical.sha256_hex(order_envelope.payload),
            developer=developer,
            config=config,
            code_digest=code_digest(user_code),
            pool=manifest.commitment,
            test=test_manifest.commitment,
            session_key=key.public.hex,
            environment=describe_environment(config.threads),
            requested_at=now,
        )
        folder.request.write(canonical.to_bytes(request))
    request_bytes = folder.request.read()
    folder.grant.write(
        client.open_session(order_id, request_bytes, manifest.leaves, test_manifest.leaves)
    )
    return _checked_session(folder, config, (pool, test), (manifest, test_manifest), user_code)


def load_session(
    folder: RunFolder,
    config: TrainingConfig,
    pool: Pool,
    test: Pool,
    user_code: Iterable[Path] = (),
) -> Session:
    """Load the session of a run folder, to begin it or to resume it.

    Raises:
        RunFileMissingError: no session was opened there.
        RunMismatchError: configuration, data, code or environment are not those of the session.
        EvidenceError, GrantRefusedError: a document is not the auditor's.
    """
    manifests = _manifests(pool, test, folder.manifest_key.read())
    return _checked_session(folder, config, (pool, test), manifests, user_code)


def _checked_session(
    folder: RunFolder,
    config: TrainingConfig,
    data: tuple[Pool, Pool],
    manifests: tuple[Manifest, Manifest],
    user_code: Iterable[Path],
) -> Session:
    trust_root = trust.open_trust_root(folder.trust_root.read(), datetime.now(UTC))
    order = trust.verify_statement(
        trust_root,
        "order",
        dsse.Envelope.from_bytes(folder.order.read()),
        statements.ORDER_PREDICATE,
        AuditOrder,
    )
    grant_envelope = dsse.Envelope.from_bytes(folder.grant.read())
    grant = trust.verify_statement(
        trust_root, "session", grant_envelope, statements.GRANT_PREDICATE, SessionGrant
    )
    request_bytes = folder.request.read()
    request = SessionRequest.from_bytes(request_bytes)
    key = SigningKey.from_pem(folder.session_key.read())
    (pool, test), (manifest, test_manifest) = data, manifests
    if (grant.request_digest, grant.session_key) != (
        canonical.sha256_hex(request_bytes),
        key.public.hex,
    ):
        raise GrantRefusedError(
            "the server's grant is for another request or another key; do not train under it, "
            "and tell the auditor"
        )
    for what, found, expected in (
        ("the training configuration", config, request.config),
        ("the pool", manifest.commitment, request.pool),
        ("the test set", test_manifest.commitment, request.test),
        ("the training code", code_digest(user_code), request.code_digest),
        ("the environment", describe_environment(config.threads), request.environment),
    ):
        if found != expected:
            raise RunMismatchError(
                f"{what} differs from what session {grant.session_id} in {folder.path} was granted "
                "for; restore it to resume, or choose another output folder for a new session"
            )
    return Session(
        folder=folder,
        trust_root=trust_root,
        order=order,
        request=request,
        grant=grant,
        grant_digest=canonical.sha256_hex(grant_envelope.payload),
        key=key,
        pool=pool,
        test=test,
        manifest=manifest,
    )


def _secrets(folder: RunFolder) -> tuple[SigningKey, bytes]:
    make: tuple[tuple[str, Callable[[], bytes]], ...] = (
        ("session_key", lambda: SigningKey.generate().to_pem()),
        ("manifest_key", lambda: secrets.token_bytes(MANIFEST_KEY_BYTES)),
    )
    for name, new in make:
        file = getattr(folder, name)
        if not file.exists():
            file.write(new())
    return SigningKey.from_pem(folder.session_key.read()), folder.manifest_key.read()


def _manifests(pool: Pool, test: Pool, key: bytes) -> tuple[Manifest, Manifest]:
    # One key per manifest: equal samples in pool and test must not give equal leaves.
    test_key = hashlib.sha256(TEST_KEY_LABEL + key).digest()
    return Manifest(pool, key), Manifest(test, test_key)


def read_grant(folder: RunFolder) -> SessionGrant:
    """Return the grant of a run folder; it was verified when it came.

    Raises:
        RunFileMissingError: no session was opened there.
    """
    payload = dsse.Envelope.from_bytes(folder.grant.read()).payload
    return statements.parse(payload, statements.GRANT_PREDICATE, SessionGrant)
