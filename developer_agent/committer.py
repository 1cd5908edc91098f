"""From what happened to the session's log: one signed and cosigned checkpoint after the other.

The spool holds what the training recorded. The log (`records.jsonl`, the leaves of the session's
Merkle tree) holds the same records in the same order, and in front of each segment but the first
the *receipt*: the digest of the note that the auditor cosigned for the segment before. A segment is
what lies between two checkpoints, so by construction it holds exactly one receipt, for the
checkpoint it starts at, and the seal, being recorded last, ends the last one. That holds for any
backlog after an outage, since a record gets its place in the log only when its segment is made.

One flush goes through these stages, each durable before the next, so a crash between any two is
repaired when the run folder is opened again:

1. spool synced, segment appended to the log and synced. *Crash: the log's tail is cut, and made
   again from the spool; nothing of it was signed.*
2. checkpoint signed and stored as pending. *Crash: the same bytes are sent again.*
3. sent; cosignature verified. *Crash: as 2; the server recognises what it has already.*
4. cosigned note appended to `checkpoints.jsonl` and synced. *Crash: the pending note is not newer
   than the last cosigned one, so it is dropped.*
5. pending note removed.

Without the session key, which is gone with its container, only stages 3 to 5 of a flush that was
signed before can be done; `continuation` then gets the run a new key.

The k-th cosigned checkpoint covers k - 1 receipts. Its size therefore says how many records of the
spool are acknowledged, and no other bookkeeping exists that could contradict it.

Others may write to the run folder; in a container that is everybody but this process. So nothing
is signed because it stands on the disk: what was recorded by this process, or was read when the
folder was opened and found under a signature, must still be the same (see `spool`), and roots
grow from hashes in memory.
"""

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Self

from auditkit.evidence import notes
from auditkit.evidence.canonical import sha256_hex, to_bytes
from auditkit.evidence.document_checks import cosignature_time
from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.keys import SigningKey
from auditkit.evidence.trust_history import TrustHistory
from developer_agent.client import ServerClient
from developer_agent.errors import (
    CommitterStoppedError,
    CosignatureError,
    LogDamagedError,
    SessionKeyGoneError,
    SessionKeyMismatchError,
)
from developer_agent.recorder import is_receipt
from developer_agent.run_folder import RunFolder
from developer_agent.session_keys import SessionKeys
from developer_agent.spool import Spool
from developer_agent.trust_following import newer_history, stored_history
from schemas import AppendRequest, ReceiptRecord, TrustRoot

# The server takes 10,000 records and 16 MiB of JSON per flush; quoting records at most doubles
# them, and a smaller flush is acknowledged sooner.
MOST_RECORDS_PER_FLUSH = 4_000
MOST_BYTES_PER_FLUSH = 4 * 2**20


@dataclass(frozen=True)
class CosignedCheckpoint:
    """What the auditor has acknowledged last."""

    size: int
    digest: str
    cosigned_at: datetime
    receipts: int
    """Receipts among the records that it covers: one per earlier checkpoint."""

    @property
    def recorded(self) -> int:
        """Records of the spool that it covers."""
        return self.size - self.receipts


@dataclass(frozen=True)
class _Cosigned:
    """How the two parties of a session's log sign its checkpoints."""

    keys: SessionKeys
    history: TrustHistory

    def open(self, note: bytes, signed: bytes, receipts: int) -> CosignedCheckpoint:
        """Verify that a note is the one that this session's agent signed, now cosigned.

        Raises:
            CosignatureError: it is not.
        """
        try:
            session = self.keys.verifier_key(_checkpoint(signed).size)
            verified = notes.verify(note, [session])
            cosigned_at = cosignature_time(self.history, note)
            checkpoint = notes.parse_checkpoint(verified.text)
        except EvidenceError as error:
            raise CosignatureError(
                f"the auditor's answer to a checkpoint does not verify: {error}. Check that the "
                "trust root is the auditor's current one"
            ) from error
        if verified.text != notes.parse(signed).text:
            raise CosignatureError(
                "the auditor's answer is for another checkpoint than the one that was sent; "
                "keep the run folder and tell the auditor"
            )
        return CosignedCheckpoint(
            size=checkpoint.size,
            digest=sha256_hex(note),
            cosigned_at=datetime.fromtimestamp(cosigned_at, UTC),
            receipts=receipts,
        )


class Committer:
    """Brings a run's records to the auditor, one segment per call of `commit_next`.

    One thread at a time may call `commit_next`; the properties and `stop` are free to all.
    """

    def __init__(
        self,
        folder: RunFolder,
        spool: Spool,
        client: ServerClient,
        *,
        keys: SessionKeys,
        signing_key: SigningKey | None,
        trust_root: TrustRoot,
    ) -> None:
        """Continue where the run folder stands; the caller holds its lock.

        Args:
            folder: the run.
            spool: what it has recorded.
            client: the auditor's server.
            keys: which keys the auditor has certified for this session.
            signing_key: the session key in force; None: only what is signed already can be sent.
            trust_root: verified already.

        Raises:
            SessionKeyMismatchError: `signing_key` is not the one that the auditor certified last.
            LogDamagedError: the files contradict what the auditor has cosigned.
        """
        if signing_key is not None and signing_key.public.hex != keys.current.hex:
            raise SessionKeyMismatchError(
                f"the auditor certified session key {keys.current.hex}, this run holds "
                f"{signing_key.public.hex}; the key belongs to another session"
            )
        self._spool = spool
        self._client = client
        self._grant = keys.grant
        self._signing_key = signing_key
        self._pending_file = folder.pending
        self._folder = folder
        self._cosigned = _Cosigned(keys, stored_history(folder, trust_root))
        self._lock = threading.Lock()
        self._stopped = False
        self._log = Spool.open(folder.records_path)
        self._checkpoints = Spool.open(folder.checkpoints_path)
        self._last: CosignedCheckpoint | None = None
        self._pending: bytes | None = None
        self._recover()

    @classmethod
    def open(
        cls,
        folder: RunFolder,
        spool: Spool,
        client: ServerClient,
        trust_root: TrustRoot,
        signing_key: SigningKey | None = None,
    ) -> Self:
        """As the constructor, with grant and continuations from the run folder.

        The session key is read from there as well if none is given and the run is not one of a
        container.

        Raises:
            RunFileMissingError: the run has no grant or no session key yet.
            EvidenceError: the grant or a continuation is not signed by the trust root's session
                role.
        """
        if signing_key is None and not folder.of_container:
            signing_key = SigningKey.from_pem(folder.session_key.read())
        keys = SessionKeys.read(folder, stored_history(folder, trust_root))
        return cls(folder, spool, client, keys=keys, signing_key=signing_key, trust_root=trust_root)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def last(self) -> CosignedCheckpoint | None:
        """The last cosigned checkpoint."""
        return self._last

    @property
    def size(self) -> int:
        """How many records of the log, receipts included, the auditor has cosigned."""
        return 0 if self._last is None else self._last.size

    @property
    def acknowledged(self) -> int:
        """How many records of the spool the auditor has cosigned."""
        return 0 if self._last is None else self._last.recorded

    @property
    def remaining(self) -> int:
        """How many records of the spool the auditor has not cosigned yet."""
        return len(self._spool) - self.acknowledged

    def commit_next(self) -> bool:
        """Bring one segment to the auditor, the interrupted one if there is one.

        Returns:
            False when there was nothing to send.

        Raises:
            ServerError: `temporary` says whether to call again; the same bytes are sent then.
            CosignatureError: the answer is not this checkpoint, cosigned.
            SessionKeyGoneError: there is something to sign, and no key to sign it with.
            LogDamagedError: somebody else has changed the spool or the log; nothing was signed.
            SpoolWriteError: the disk is full.
            CommitterStoppedError: `stop` was called; the answer, if one came, was dropped.
        """
        note = self._pending or self._prepare()
        if note is None:
            return False
        first = self.size
        lines = self._log.read(first, len(self._log) - first)
        request = AppendRequest(
            first=first,
            records=tuple(line.decode() for line in lines),
            checkpoint=note.decode(),
        )
        cosigned = self._client.append(self._grant.session_id, request).checkpoint.encode()
        checkpoint = self._open(cosigned, note)
        with self._lock:
            self._refuse_when_stopped()
            # An earlier call may have failed between appending the note and syncing it.
            self._checkpoints.truncate(checkpoint.receipts)
            self._checkpoints.append(json.dumps(cosigned.decode()).encode())
            self._checkpoints.sync()
            # Acknowledged from here on; a pending file that stays behind is older, and dropped.
            self._last = checkpoint
            self._pending = None
            self._pending_file.delete()
        return True

    def _open(self, cosigned: bytes, note: bytes) -> CosignedCheckpoint:
        receipts = 0 if self._last is None else self._last.receipts + 1
        try:
            return self._cosigned.open(cosigned, note, receipts)
        except CosignatureError:
            # The auditor may have new keys; only those that the known ones have signed count.
            history = newer_history(self._folder, self._client, self._cosigned.history)
            if history is None:
                raise
            self._cosigned = replace(self._cosigned, history=history)
        return self._cosigned.open(cosigned, note, receipts)

    def settle(self) -> None:
        """Send the flush that was signed before, if there is one; cut the log to what is cosigned.

        Raises:
            ServerError, CosignatureError, SpoolWriteError: as `commit_next`; calling again is safe.
        """
        if self._pending is not None:
            self.commit_next()
        self._log.truncate(self.size)

    def cosigned_records(self) -> Iterator[bytes]:
        """Iterate over the cosigned lines of the log without its receipts, after `settle`."""
        return (line for line in self._log.lines() if not is_receipt(line))

    def stop(self) -> None:
        """Drop the answer to a flush that is under way; it will be asked for again."""
        with self._lock:
            self._stopped = True

    def close(self) -> None:
        """Close the files; the spool stays open, it is the caller's."""
        self._log.close()
        self._checkpoints.close()

    def _refuse_when_stopped(self) -> None:
        if self._stopped:
            raise CommitterStoppedError("the upload was stopped; `auditkit sync` continues it")

    def _prepare(self) -> bytes | None:
        """Stages 1 and 2: make the next segment, sign its checkpoint, store it as pending."""
        self._refuse_when_stopped()
        waiting = min(self.remaining, MOST_RECORDS_PER_FLUSH)
        if not waiting:
            return None
        if self._signing_key is None:
            raise SessionKeyGoneError(
                "records wait to be signed, and the session key is gone: it was made in a "
                "container and never left it. Go on in a fresh container with `auditkit train "
                "--resume`; it does anew what the auditor does not have"
            )
        self._spool.sync()
        recorded = self._spool.read(self.acknowledged, waiting, MOST_BYTES_PER_FLUSH)
        self._log.truncate(self.size)
        self._log.extend(_segment(recorded, self._last))
        self._log.sync()
        size = len(self._log)
        text = notes.Checkpoint(self._grant.origin, size, self._log.root(size)).to_text()
        note = notes.sign(text, self._grant.origin, self._signing_key).to_bytes()
        self._pending_file.write(note)
        self._pending = note
        return note

    def _recover(self) -> None:
        try:
            if len(self._checkpoints):
                self._recover_acknowledged()
            if self._pending_file.exists():
                self._recover_pending()
            self._check_spool()
        except BaseException:
            self.close()
            raise

    def _recover_acknowledged(self) -> None:
        earlier = len(self._checkpoints) - 1
        note = json.loads(self._checkpoints.read(earlier, 1)[0]).encode()
        last = self._cosigned.open(note, note, receipts=earlier)
        self._check_root(note)
        # How many notes there are is not signed, and it says where in the spool the log goes on.
        found = sum(map(is_receipt, islice(self._log.lines(), last.size)))
        if found != earlier:
            raise LogDamagedError(
                f"{self._checkpoints.path} has {earlier} notes before the last one, the log has "
                f"receipts for {found}; restore the file, or start a new session"
            )
        self._last = last

    def _recover_pending(self) -> None:
        note = self._pending_file.read()
        size = _checkpoint(note).size
        if size <= self.size:
            self._pending_file.delete()
            return
        self._check_root(note)
        self._check_signed(note, size)
        self._log.truncate(size)
        self._pending = note

    def _check_signed(self, note: bytes, size: int) -> None:
        try:
            notes.verify(note, [self._cosigned.keys.verifier_key(size)])
        except EvidenceError as error:
            raise LogDamagedError(
                f"{self._pending_file.path} is not signed by this run's session key: {error}; "
                "restore the file, or delete it to go on from the last cosigned checkpoint"
            ) from error

    def _check_spool(self) -> None:
        # Without a key nothing is taken from the spool.
        if self._signing_key is not None and self.remaining < 0:
            raise LogDamagedError(
                f"{self._spool.path} has {len(self._spool)} records, the auditor has cosigned "
                f"{self.acknowledged}; restore the file, or start a new session"
            )

    def _check_root(self, note: bytes) -> None:
        checkpoint = _checkpoint(note)
        if checkpoint.size > len(self._log):
            raise LogDamagedError(
                f"{self._log.path} has {len(self._log)} records, a checkpoint covers "
                f"{checkpoint.size}; restore the file, or start a new session"
            )
        if self._log.root(checkpoint.size) != checkpoint.root:
            raise LogDamagedError(
                f"{self._log.path} was changed after its first {checkpoint.size} records were "
                "signed; restore the file, or start a new session"
            )


def _checkpoint(note: bytes) -> notes.Checkpoint:
    return notes.parse_checkpoint(notes.parse(note).text)


def _segment(recorded: Sequence[bytes], last: CosignedCheckpoint | None) -> list[bytes]:
    """Canonical lines of the next segment: the receipt for the last checkpoint, then the records.

    A receipt carries the time of the record that it stands in front of, so that the log's times
    never run backwards, even when an outage has left records older than the receipt. The time that
    counts, the auditor's, is in the cosignature.
    """
    documents = [json.loads(line) for line in recorded]
    sequence = 0 if last is None else last.size
    lines = []
    if last is not None:
        receipt = ReceiptRecord(
            sequence=sequence,
            time_ms=documents[0]["time_ms"],
            checkpoint_size=last.size,
            checkpoint_digest=last.digest,
        )
        lines.append(to_bytes(receipt))
        sequence += 1
    lines.extend(
        to_bytes({**document, "sequence": number})
        for number, document in enumerate(documents, start=sequence)
    )
    return lines
