"""Going on in a fresh container, where the session key of the one before is gone.

What the auditor has cosigned is all that counts. The rest of the log lay on the developer's disk
without a signature, where anyone could have changed it, so it is dropped and done anew:

1. A flush that was signed before is sent once more as it is; this needs no key.
   *Crash: it is sent again, and the server recognises it.*
2. Log and spool are cut to what is cosigned; the spool is made anew from the log, from the very
   bytes whose root the auditor signed. *Crash: both are made again.*
3. A continuation request for a key that only this process has is stored, then sent.
   *Crash: the next process sends it again to learn the answer, whose key nobody has, and asks for
   a continuation of its own at the same size of the log.*
4. The answer is verified and stored. *Crash: as 3, without the sending.*
5. The continuation is recorded, and only then does training go on. Those before it at the same
   size have signed nothing, and the log does not name them.
   *Crash: the record is not cosigned, so 2 drops it; the next process records its own.*
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice

from auditkit.evidence.canonical import to_bytes
from auditkit.evidence.errors import ThresholdError, TrustRootExpiredError
from auditkit.evidence.keys import SigningKey
from developer_agent.client import ServerClient
from developer_agent.committer import Committer
from developer_agent.disk import sync_folder
from developer_agent.errors import (
    DiskWriteError,
    LogDamagedError,
    NotAuthorisedError,
    ServerRefusedError,
)
from developer_agent.recorder import Recorder, read_records
from developer_agent.run_folder import RunFolder
from developer_agent.session import Session, record_grant
from developer_agent.session_keys import SessionKeys
from developer_agent.spool import Spool
from developer_agent.trust_following import newer_history, stored_history
from schemas import ContainerRun, ContinuationRecord, ContinuationRequest

LINES_AT_ONCE = 4096  # bounds memory while the spool is made anew


def continue_session(
    session: Session, spool: Spool, client: ServerClient, container: ContainerRun
) -> Session:
    """Make a run ready to begin or go on in this container; the caller holds its lock.

    Args:
        session: as loaded from the run folder, without a key; or as opened by this process.
        spool: of the run; cut to what the auditor has cosigned, which is nothing in the latter
            case, whatever somebody has put there.
        client: the auditor's server.
        container: the one that this process runs in.

    Returns:
        The session with a key of this process; still without one if the cosigned log ends with
        the seal, after which there is nothing to sign.

    Raises:
        ServerError: no answer, or a refusal with its reason; calling again is safe.
        LogDamagedError: the files contradict what the auditor has cosigned or granted.
        CosignatureError, ContinuationRefusedError, EvidenceError: an answer is not the auditor's,
            or not for this run.
    """
    if session.key is not None:
        spool.truncate(0)
        return session
    with Committer.open(session.folder, spool, client, session.trust_root) as committer:
        committer.settle()
        size = committer.size
        _rebuild(spool, committer.cosigned_records())
    recorder = Recorder(spool)
    if recorder.sealed:
        return session
    keys = SessionKeys.read(session.folder, stored_history(session.folder, session.trust_root))
    _check_named(spool, keys.named(size))
    key = SigningKey.generate()
    keys = _with_own(session, keys, client, _request(session, container, key), size)
    if not len(spool):
        record_grant(recorder, session)
    recorder.record(ContinuationRecord, continuation_digest=keys.continuations[-1].digest)
    return replace(session, key=key)


def _rebuild(spool: Spool, lines: Iterable[bytes]) -> None:
    """Let the spool hold exactly these records of the log, numbered as a spool is."""
    spool.truncate(0)
    remaining = iter(lines)
    while some := list(islice(remaining, LINES_AT_ONCE)):
        spool.extend(
            [
                to_bytes({**json.loads(line), "sequence": number})
                for number, line in enumerate(some, start=len(spool))
            ]
        )
    spool.sync()


def _check_named(spool: Spool, expected: list[str]) -> None:
    """Check that the cosigned log names the continuations that the run folder has.

    Raises:
        LogDamagedError: it names others.
    """
    found = [
        record.continuation_digest
        for record in read_records(spool)
        if isinstance(record, ContinuationRecord)
    ]
    if found != expected:
        raise LogDamagedError(
            f"the log names {len(found)} continuations, and the run folder has other ones for it; "
            "restore its folder `continuations`, or start a new session"
        )


def _request(session: Session, container: ContainerRun, key: SigningKey) -> bytes:
    return to_bytes(
        ContinuationRequest(
            session_id=session.grant.session_id,
            grant_digest=session.grant_digest,
            container=container,
            session_key=key.public.hex,
            environment=session.request.environment,
            requested_at=datetime.now(UTC),
        )
    )


def _with_own(
    session: Session, keys: SessionKeys, client: ServerClient, request: bytes, size: int
) -> SessionKeys:
    """Ask for the continuation of this process, and first for one that an earlier one asked for."""
    folder = session.folder
    _make_continuations_folder(folder)
    if folder.continuation_request(keys.next_number).exists():
        keys = _ask(session, keys, client, size)
    folder.continuation_request(keys.next_number).write(request)
    return _ask(session, keys, client, size)


def _ask(session: Session, keys: SessionKeys, client: ServerClient, size: int) -> SessionKeys:
    """Send the stored request for the next continuation; verify and store the answer."""
    stored = session.folder.continuation_request(keys.next_number)
    request = stored.read()
    try:
        answer = client.continue_session(keys.grant.session_id, request)
    except ServerRefusedError as error:
        # What the server itself has judged and refused, it did not grant before either.
        judged = error.error_name and not isinstance(error, NotAuthorisedError)
        if judged and not error.temporary:
            stored.delete()
        raise
    history = stored_history(session.folder, session.trust_root)
    try:
        continued = keys.continued(answer, request, history)
    except (ThresholdError, TrustRootExpiredError):
        # The auditor may have new keys; only those that the known ones have signed count.
        longer = newer_history(session.folder, client, history)
        if longer is None:
            raise
        continued = keys.continued(answer, request, longer)
    granted = continued.continuations[-1].statement
    if granted.log_size != size:
        raise LogDamagedError(
            f"the auditor holds {granted.log_size} records of this session, the run folder has "
            f"{size} with a cosignature; restore the folder, or start a new session"
        )
    session.folder.continuation(keys.next_number).write(answer)
    return continued


def _make_continuations_folder(folder: RunFolder) -> None:
    try:
        folder.continuations.mkdir(exist_ok=True)
        sync_folder(folder.path)
    except OSError as error:
        raise DiskWriteError(
            f"cannot make the folder {folder.continuations}: {error.strerror}; check the disk and "
            "the run folder's permissions"
        ) from error
