"""Whether a server has what it has signed: its logs, its registry, its documents and its files.

What is stored is compared with what was signed, and both with what others hold. A database that was
set back as a whole agrees with itself: only a witness, or somebody who has kept a checkpoint, can
tell. Nothing is changed.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from auditkit.evidence import merkle, notes
from auditkit.evidence.document_checks import cosignature_time
from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.registry_head import open_head
from auditkit.evidence.trust_history import TrustHistory
from auditor_server import registry
from auditor_server.context import Auditor
from auditor_server.documents import read_grant
from auditor_server.errors import (
    BlobDamagedError,
    BlobMissingError,
    RegistryDamagedError,
    ServerError,
)
from auditor_server.session_keys import SessionKeys
from auditor_server.store import Registration, SegmentRow, SessionRow
from auditor_server.store.witnessings import SESSION_PREFIX
from auditor_server.witness_client import WitnessClient, WitnessingError
from auditor_server.witnessed_logs import REGISTRY_LOG, name_of
from auditor_server.witnesses import read_endpoints

RULES = {
    "log-complete": "a session has all of its records, from 0 to the size that its row tells",
    "records-as-signed": "records hash to the checkpoint that was signed over them",
    "checkpoint-within-log": "no checkpoint is over other records than those that it came with",
    "checkpoint-signed": "a checkpoint is signed by the session's key and cosigned by the auditor",
    "registry-as-signed": "the registry hashes to every head of it that was signed",
    "registry-head-signed": "a head of the registry is signed and cosigned by the auditor",
    "document-registered": "a stored document is the one that was registered",
    "document-stored": "a registered document is stored",
    "blob-present": "a file of a submission is there",
    "blob-as-named": "a file of a submission is the one that was submitted",
    "log-not-behind": "no log is shorter than others have seen it",
    "log-not-forked": "a log has no other history than others have seen",
}
# Sessions end long before; `stream_segments` ends where the segments do.
NO_END = 2**62


@dataclass(frozen=True)
class Fault:
    """Something that is not as it must be."""

    rule: str
    subject: str
    detail: str


@dataclass(frozen=True)
class Claim:
    """What somebody else has seen of a log.

    Attributes:
        log: its name, `registry` or `sessions/<id>`.
        size: of the tree.
        root: of the tree.
        who: has seen it.
    """

    log: str
    size: int
    root: bytes
    who: str


@dataclass
class Found:
    """What a check has come to.

    Attributes:
        faults: what is wrong.
        not_asked: witnesses that gave no answer, and why.
        checked: how many of what were looked at.
    """

    faults: list[Fault] = field(default_factory=list)
    not_asked: list[str] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, rule: str, subject: str, detail: object) -> None:
        """Note a fault."""
        self.faults.append(Fault(rule, subject, str(detail)))


def check(
    auditor: Auditor,
    *,
    known: Sequence[bytes] = (),
    on_session: Callable[[str], None] = lambda _: None,
) -> Found:
    """Check everything that the server has stored, and compare it with what others hold.

    Args:
        auditor: the server; it may be running.
        known: checkpoints that were kept elsewhere (signed notes), of sessions or of the registry.
        on_session: called before each session is read.

    Raises:
        EvidenceError: the trust root does not hold, or one of `known` is no checkpoint that the
            auditor has cosigned.

    """
    found, history = Found(), auditor.home.history()
    sessions = auditor.store.sessions()
    claims = defaultdict(list)
    kept = (_kept_claim(history, note) for note in known)
    asked = _asked_claims(auditor, [row.id for row in sessions], found)
    for claim in chain(kept, _stored_claims(auditor), asked):
        claims[claim.log].append(claim)
    for row in sessions:
        on_session(row.id)
        log = SESSION_PREFIX + row.id
        seen = claims.pop(log, [])
        _compare(seen, _check_session(auditor, history, row, {c.size for c in seen}, found), found)
    seen = claims.pop(REGISTRY_LOG, [])
    _compare(seen, _check_registry(auditor, history, {c.size for c in seen}, found), found)
    for unknown in claims.values():
        _compare(unknown, _Roots(0, {}), found)
    _check_documents(auditor, found)
    _check_blobs(auditor, found)
    return found


@dataclass(frozen=True)
class _Roots:
    """Size of a log, and the roots of some of its trees."""

    size: int
    roots: dict[int, bytes]


def _compare(claims: Sequence[Claim], log: _Roots, found: Found) -> None:
    for claim in claims:
        found.checked["checkpoints that others hold"] += 1
        if claim.size > log.size:
            found.add(
                "log-not-behind",
                claim.log,
                f"{claim.who} has seen it at size {claim.size}, {log.size} are stored: the "
                "database was set back. Do not serve it: a second history of this log would be "
                "signed. Restore a newer backup",
            )
        elif claim.root != log.roots.get(claim.size, claim.root):
            found.add(
                "log-not-forked",
                claim.log,
                f"{claim.who} has seen root {claim.root.hex()} at size {claim.size}, stored is "
                f"{log.roots[claim.size].hex()}",
            )


def _check_session(
    auditor: Auditor, history: TrustHistory, row: SessionRow, sizes: Collection[int], found: Found
) -> _Roots:
    """Read a log once, from its beginning; return its roots at the sizes that are asked for."""
    log = _Log(row, _keys(auditor, row, found), history, found)
    roots: dict[int, bytes] = {}
    for segment in auditor.store.stream_segments(row.id, NO_END):
        if not log.follows(segment):
            break
        for line in segment.records.splitlines():
            log.tree.append(merkle.leaf_hash(line))
            if log.tree.size in sizes:
                roots[log.tree.size] = log.tree.root()
        log.check_end(segment)
    if (row.size, row.frontier) != (log.tree.size, log.tree.to_bytes()):
        found.add(
            "log-complete",
            SESSION_PREFIX + row.id,
            f"its row tells of {row.size} records, {log.tree.size} are stored without a gap, or "
            "they are not those",
        )
    return _Roots(log.tree.size, roots)


def _keys(auditor: Auditor, row: SessionRow, found: Found) -> SessionKeys | None:
    try:
        return SessionKeys.read(auditor.store, row, read_grant(row.grant)[0])
    except (EvidenceError, ServerError, ValueError) as error:
        found.add("document-registered", SESSION_PREFIX + row.id, f"its grant: {error}")
        return None


@dataclass
class _Log:
    """A session's log as far as it was read."""

    row: SessionRow
    keys: SessionKeys | None
    history: TrustHistory
    found: Found
    tree: merkle.Frontier = field(default_factory=merkle.Frontier)

    def follows(self, segment: SegmentRow) -> bool:
        """Tell whether a segment begins where the last one has ended, and is whole."""
        if not isinstance(segment.records, bytes):  # SQLite keeps what it is given, of any type
            self._fault("log-complete", f"records from {segment.first} on are no bytes")
            return False
        count = len(segment.records.splitlines())
        if segment.first == self.tree.size and segment.count == count:
            return True
        self._fault(
            "log-complete",
            f"expected records from {self.tree.size} on, found {count} from {segment.first} on, "
            f"which the database says are {segment.count}",
        )
        return False

    def check_end(self, segment: SegmentRow) -> None:
        """Check the checkpoint over everything up to the end of a segment."""
        self.found.checked["checkpoints"] += 1
        self.found.checked["records"] += segment.count
        try:
            note = notes.parse(segment.checkpoint.encode())
            checkpoint = notes.parse_checkpoint(note.text)
            cosigned = None if segment.cosigned is None else notes.parse(segment.cosigned.encode())
        except EvidenceError as error:
            self._fault("checkpoint-signed", f"records up to {segment.end}: {error}")
            return
        if checkpoint.size != segment.end:
            self._fault(
                "checkpoint-within-log",
                f"the checkpoint with the records up to {segment.end} is of size {checkpoint.size}",
            )
        elif checkpoint.root != self.tree.root():
            self._fault(
                "records-as-signed",
                f"records {segment.first} to {segment.end - 1}, and those before, hash to "
                f"{self.tree.root().hex()}; signed is {checkpoint.root.hex()}",
            )
        self._check_signatures(segment, note, cosigned)

    def _check_signatures(
        self, segment: SegmentRow, note: notes.Note, cosigned: notes.Note | None
    ) -> None:
        try:
            if self.keys is not None:
                self.keys.verify(note.to_bytes(), segment.end)
            if cosigned is not None:
                cosignature_time(self.history, cosigned.to_bytes())
        except (EvidenceError, ServerError) as error:
            self._fault("checkpoint-signed", f"size {segment.end}: {error}")
        if cosigned is not None and cosigned.text != note.text:
            self._fault("checkpoint-signed", f"size {segment.end}: another text is cosigned")
        # The last one may wait for its cosignature; nothing goes on before it has one.
        if cosigned is None and segment.end < self.row.size:
            self._fault("checkpoint-signed", f"size {segment.end}: it is not cosigned")

    def _fault(self, rule: str, detail: str) -> None:
        self.found.add(rule, SESSION_PREFIX + self.row.id, detail)


def _check_registry(
    auditor: Auditor, history: TrustHistory, sizes: Collection[int], found: Found
) -> _Roots:
    roots: dict[int, bytes] = {}
    try:
        roots = registry.check_stored(auditor, sizes)
    except RegistryDamagedError as error:
        found.add("registry-as-signed", REGISTRY_LOG, error)
    for head in auditor.store.registry.heads():
        found.checked["heads of the registry"] += 1
        try:
            opened = open_head(head.note.encode(), history).checkpoint
        except EvidenceError as error:
            found.add("registry-head-signed", REGISTRY_LOG, f"size {head.size}: {error}")
            continue
        if (opened.size, opened.root) != (head.size, head.root):
            found.add(
                "registry-head-signed",
                REGISTRY_LOG,
                f"the head that is stored for size {head.size} is of size {opened.size}",
            )
    return _Roots(auditor.store.registry.size(), roots)


def _check_documents(auditor: Auditor, found: Found) -> None:
    """Compare stored documents and registered ones, both ways."""
    missing = auditor.store.registry.documents()
    for version in auditor.home.history().versions:
        missing.discard(Registration("trust-root", version.digest).document)
    for kind, subject, registration in auditor.store.registrations():
        found.checked["documents"] += 1
        if isinstance(registration, Exception):
            found.add("document-registered", subject, f"{kind}: not readable: {registration}")
        elif registration.document not in missing:
            found.add(
                "document-registered",
                subject,
                f"{kind} {registration.digest}: it is not in the registry; what was registered "
                "is another one",
            )
        else:
            missing.discard(registration.document)
    for document in sorted(missing):
        what, session_id, digest = document.split(":", 2)
        subject = SESSION_PREFIX + session_id if session_id else REGISTRY_LOG
        found.add("document-stored", subject, f"{what} {digest} is registered and not stored")


def _check_blobs(auditor: Auditor, found: Found) -> None:
    checked: dict[str, Fault | None] = {}
    for submission in auditor.store.submissions():
        subject = SESSION_PREFIX + submission.session_id
        for digest in submission.kept_digests:
            if digest not in checked:
                found.checked["files"] += 1
                checked[digest] = _blob_fault(auditor, subject, digest)
            fault = checked[digest]
            if fault is not None:
                found.add(fault.rule, subject, fault.detail)


def _blob_fault(auditor: Auditor, subject: str, digest: str) -> Fault | None:
    try:
        auditor.blobs.check(digest)
    except BlobMissingError as error:
        return Fault("blob-present", subject, str(error))
    except BlobDamagedError as error:
        return Fault("blob-as-named", subject, str(error))
    return None


def _kept_claim(history: TrustHistory, note: bytes) -> Claim:
    cosignature_time(history, note)
    checkpoint = notes.parse_checkpoint(notes.parse(note).text)
    log = name_of(checkpoint, history.origin)
    return Claim(log, checkpoint.size, checkpoint.root, "whoever kept a checkpoint of it")


def _stored_claims(auditor: Auditor) -> Iterator[Claim]:
    for row in auditor.store.witnessings.all():
        yield Claim(row.log, row.size, row.root, "a witness whose cosignature is stored")


def _asked_claims(auditor: Auditor, session_ids: Sequence[str], found: Found) -> Iterator[Claim]:
    origin = auditor.home.history().origin
    for endpoint in read_endpoints(auditor.home.path):
        client = WitnessClient(endpoint.url, notes.VerifierKey.parse(endpoint.key))
        try:
            for log in (REGISTRY_LOG, *(SESSION_PREFIX + each for each in session_ids)):
                checkpoint = client.latest(f"{origin}/{log}")
                if checkpoint is not None:
                    who = f"the witness {client.key.name}"
                    yield Claim(log, checkpoint.size, checkpoint.root, who)
        except WitnessingError as error:
            found.not_asked.append(str(error))
        finally:
            client.close()
