"""Opening a supervised session: request, grant, and everything that follows from the nonce.

Outside a container the session key lies in the run folder, so that an upload can be finished later.
Inside one it exists in the memory of the process alone; `developer_agent.continuation` says how a
run goes on without it.
"""

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from auditkit.data.manifest import Manifest
from auditkit.data.pools import Pool
from auditkit.evidence import canonical, dsse, statements, trust
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.membership_codes import check_committed
from developer_agent.client import ServerClient
from developer_agent.environment import SourceFile, code_digest, describe_environment
from developer_agent.errors import AgentError
from developer_agent.granted import GrantedTraining
from developer_agent.patience import patiently
from developer_agent.recorder import Recorder
from developer_agent.run_folder import RunFolder
from schemas import (
    AuditOrder,
    ContainerRun,
    GrantRecord,
    SessionGrant,
    SessionRequest,
    TrainingConfig,
    TrustRoot,
)

TEST_KEY_LABEL = b"auditkit/test-manifest/v1\0"
MANIFEST_KEY_BYTES = 32


class GrantRefusedError(AgentError):
    """The grant is not for this request, so this run must not use it."""


class RunMismatchError(AgentError):
    """The run folder belongs to another configuration, data set or code version."""


@dataclass(frozen=True, kw_only=True)
class Session(GrantedTraining):
    """An open session, with all that the agent needs to train under it."""

    folder: RunFolder
    trust_root: TrustRoot
    order: AuditOrder
    grant_digest: str
    key: SigningKey | None
    """None: it is gone with the container that opened the session."""
    pool: Pool
    test: Pool
    manifest: Manifest


@dataclass(frozen=True)
class _Documents:
    """The documents of a session, each read once: what is checked is what is used."""

    trust_root: bytes
    order: bytes
    request: bytes
    grant: bytes


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
    user_code: Iterable[SourceFile] = (),
    container: ContainerRun | None = None,
) -> Session:
    """Ask the auditor for a session and keep all its documents in the run folder.

    A request that got no answer is sent again as it was, so that a lost answer costs no second
    session: at once, and by the next process too. In a container the next process asks anew:
    nobody has the key of the request before any more.

    Args:
        client: the auditor's server.
        folder: of the run; the caller holds its lock.
        trust_root_bytes: as the auditor handed it over.
        order_id: the order to train under.
        developer: must be the order's.
        config: what is trained.
        pool: all samples of the training.
        test: fresh samples.
        user_code: the developer's own source files.
        container: the one that this process runs in; the session key then stays in memory.

    Raises:
        ServerError: no answer for some 20 seconds, or a refusal with its reason.
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
    key = SigningKey.generate() if container is not None else _stored_key(folder)
    manifest, test_manifest = _manifests(pool, test, _manifest_key(folder))
    if container is not None or folder.of_container or not folder.request.exists():
        request = SessionRequest(
            order_digest=canonical.sha256_hex(order_envelope.payload),
            developer=developer,
            config=config,
            code_digest=code_digest(user_code),
            container=container,
            pool=manifest.commitment,
            test=test_manifest.commitment,
            session_key=key.public.hex,
            environment=describe_environment(config.threads),
            requested_at=now,
        )
        request_bytes = canonical.to_bytes(request)
        folder.request.write(request_bytes)
    else:
        request_bytes = folder.request.read()
    # In a container a lost answer is a lost session, since nobody else has its key.
    grant_bytes = patiently(
        lambda: client.open_session(order_id, request_bytes, manifest.leaves, test_manifest.leaves)
    )
    folder.grant.write(grant_bytes)
    return _checked_session(
        folder,
        _Documents(trust_root_bytes, order_bytes, request_bytes, grant_bytes),
        config,
        key,
        data=(pool, test),
        manifests=(manifest, test_manifest),
        user_code=user_code,
        container=container,
    )


def load_session(
    folder: RunFolder,
    config: TrainingConfig,
    pool: Pool,
    test: Pool,
    *,
    user_code: Iterable[SourceFile] = (),
    container: ContainerRun | None = None,
    trust_root_bytes: bytes | None = None,
) -> Session:
    """Load the session of a run folder, to begin it or to resume it.

    In a container the session comes without a key; `continuation.continue_session` gives it one.

    Args:
        folder: of the run; the caller holds its lock.
        config: what is trained.
        pool: all samples of the training.
        test: fresh samples.
        user_code: the developer's own source files.
        container: the one that this process runs in.
        trust_root_bytes: as given to this process from outside the run folder. In a container the
            folder's must be the same, since others can write there.

    Raises:
        RunFileMissingError: no session was opened there.
        RunMismatchError: trust root, order, configuration, data, code or environment are not those
            of the session.
        EvidenceError, GrantRefusedError: a document is not the auditor's.
    """
    manifests = _manifests(pool, test, folder.manifest_key.read())
    key = None if folder.of_container else SigningKey.from_pem(folder.session_key.read())
    documents = _Documents(
        folder.trust_root.read(), folder.order.read(), folder.request.read(), folder.grant.read()
    )
    given = documents.trust_root if trust_root_bytes is None else trust_root_bytes
    if container is not None and documents.trust_root != given:
        raise RunMismatchError(
            f"expected the trust root that this container was given, SHA-256 "
            f"{canonical.sha256_hex(given)}, found {canonical.sha256_hex(documents.trust_root)} in "
            f"{folder.trust_root.path}; restore the file to resume, or choose another output "
            "folder for a new session"
        )
    return _checked_session(
        folder,
        documents,
        config,
        key,
        data=(pool, test),
        manifests=manifests,
        user_code=user_code,
        container=container,
    )


def record_grant(recorder: Recorder, session: Session) -> None:
    """Write the first record of a session's log."""
    request = session.request
    recorder.record(
        GrantRecord,
        grant_digest=session.grant_digest,
        code_digest=request.code_digest,
        image_digest=request.image_digest,
        mode="process" if request.container is None else "container",
        environment=request.environment,
    )


def _checked_session(
    folder: RunFolder,
    documents: _Documents,
    config: TrainingConfig,
    key: SigningKey | None,
    *,
    data: tuple[Pool, Pool],
    manifests: tuple[Manifest, Manifest],
    user_code: Iterable[SourceFile],
    container: ContainerRun | None,
) -> Session:
    trust_root = trust.open_trust_root(documents.trust_root, datetime.now(UTC))
    order_envelope = dsse.Envelope.from_bytes(documents.order)
    order = trust.verify_statement(
        trust_root, "order", order_envelope, statements.ORDER_PREDICATE, AuditOrder
    )
    grant_envelope = dsse.Envelope.from_bytes(documents.grant)
    grant = trust.verify_statement(
        trust_root, "session", grant_envelope, statements.GRANT_PREDICATE, SessionGrant
    )
    request = SessionRequest.from_bytes(documents.request)
    (pool, test), (manifest, test_manifest) = data, manifests
    if (grant.request_digest, grant.session_key) != (
        canonical.sha256_hex(documents.request),
        request.session_key if key is None else key.public.hex,
    ):
        raise GrantRefusedError(
            "the server's grant is for another request or another key; do not train under it, "
            "and tell the auditor"
        )
    check_committed(request.config, grant)
    image_digest = None if container is None else container.image.config_digest
    for what, found, expected in (
        ("the order", canonical.sha256_hex(order_envelope.payload), request.order_digest),
        ("being in a container, or not,", container is not None, request.container is not None),
        ("the container's image", image_digest, request.image_digest),
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


def _stored_key(folder: RunFolder) -> SigningKey:
    if not folder.session_key.exists():
        folder.session_key.write(SigningKey.generate().to_pem())
    return SigningKey.from_pem(folder.session_key.read())


def _manifest_key(folder: RunFolder) -> bytes:
    if not folder.manifest_key.exists():
        folder.manifest_key.write(secrets.token_bytes(MANIFEST_KEY_BYTES))
    return folder.manifest_key.read()


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
