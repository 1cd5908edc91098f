"""The auditor's registry: one public, append-only log of every document of its audits.

One RFC 6962 tree for the whole server, under the origin `<origin>/registry`. A document and its
entry are stored in one transaction, so neither can be without the other. Heads are checkpoints
that the `registry` role signs and the cosigner cosigns. What was signed is stored before it is
answered, by size, so that no size can ever get a second root; and it is checked at every start.
"""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from auditkit.evidence import canonical, merkle, notes
from auditkit.evidence.bundle import Bundle
from auditkit.evidence.registry_checks import registered_documents
from auditkit.evidence.registry_head import registry_origin
from auditkit.evidence.subtrees import Span, consistency_path, inclusion_path
from auditor_server.context import Auditor
from auditor_server.errors import (
    HomeError,
    RegistryDamagedError,
    RegistryEntryNotFoundError,
    RegistryKeyMissingError,
    RegistryRangeError,
)
from auditor_server.store import Registration, RegistryHeadRow
from auditor_server.store.registry import Tree
from schemas import (
    ConsistencyProof,
    InclusionProof,
    RegisteredEntry,
    RegistryEntries,
    RegistryEntry,
    RegistryExcerpt,
    SealRecord,
)
from schemas.registry import EntryKind

# A head without new entries is cosigned again after this time, so that a monitor sees a live log.
HEAD_LIFETIME = timedelta(minutes=5)
MILLISECONDS = 1000
# One page of raw leaves; an entry takes about 300 bytes.
MOST_ENTRIES_PER_PAGE = 1_000
# Entries read at once when the whole registry is checked.
ENTRIES_PER_READ = 10_000


def register(auditor: Auditor, kind: EntryKind, digest: str, session_id: str | None = None) -> int:
    """Register one document and return the index of its entry; again changes nothing.

    Documents in the database are registered by the store itself, in the transaction that stores
    them; this is for those that lie elsewhere.
    """
    registration = Registration(kind, digest, session_id)
    size = auditor.store.registry.size()
    for row in auditor.store.registry.entries_of([registration.document], size):
        return row.position
    (index,) = auditor.store.registry.append([registration], auditor.now())
    return index


def head(auditor: Auditor) -> bytes:
    """Return the newest checkpoint of the registry, signed and cosigned (a C2SP note).

    Signed when entries have come since the last one, or when that one is older than
    `HEAD_LIFETIME`; stored before it is returned.

    Raises:
        RegistryKeyMissingError: the home has no key for the role.
        RegistryDamagedError: the stored tree contradicts a head that was signed before; nothing
            is signed then.

    """
    return auditor.store.registry.sign_head(
        lambda tree, newest: _head(auditor, tree, newest)
    ).note.encode()


def entries(auditor: Auditor, start: int, end: int | None) -> RegistryEntries:
    """Return a page of raw leaves: those from `start` to `end`, as many as a page holds.

    Raises:
        RegistryRangeError: `start` is beyond the registry, or not before `end`.

    """
    size = auditor.store.registry.size()
    last = size if end is None else min(end, size)
    if not 0 <= start <= last:
        raise RegistryRangeError(
            f"expected 0 <= start <= end, and start at most {size}, the size of the registry; "
            f"found start {start} and end {end}"
        )
    last = min(last, start + MOST_ENTRIES_PER_PAGE)
    rows = auditor.store.registry.entries(start, last)
    return RegistryEntries(start=start, size=size, leaves=tuple(row.leaf.decode() for row in rows))


def leaf(auditor: Auditor, index: int) -> bytes:
    """Return the exact bytes of one entry.

    Raises:
        RegistryEntryNotFoundError: the registry is not as large.

    """
    found = auditor.store.registry.entries(index, index + 1) if index < 2**63 else ()
    if not found:
        raise RegistryEntryNotFoundError(
            f"the registry has no entry {index}, its size is {auditor.store.registry.size()}"
        )
    return found[0].leaf


def inclusion(
    auditor: Auditor, index: int | None, digest: str | None, size: int | None
) -> InclusionProof:
    """Prove that an entry, named by its index or by its document's digest, is in the tree.

    Args:
        auditor: the server.
        index: of the entry; or
        digest: of a document, whose first entry is proven.
        size: of the tree; None: the size of the newest head.

    Raises:
        RegistryRangeError: neither or both are given, or there is no tree of this size, or the
            entry is not in it.
        RegistryEntryNotFoundError: no entry has this digest.

    """
    if (index is None) == (digest is None):
        raise RegistryRangeError("expected either index or digest of an entry, not both or neither")
    within = _size(auditor, size)
    if digest is not None:
        row = auditor.store.registry.entry_of(digest, within)
        if row is None:
            raise RegistryEntryNotFoundError(
                f"no entry among the first {within} has digest {digest}"
            )
        index = row.position
    elif index is None or not 0 <= index < within:
        raise RegistryRangeError(f"expected an index below {within}, found {index}")
    (proof,) = _proofs(auditor, [index], within)
    return InclusionProof(index=index, size=within, leaf=leaf(auditor, index).decode(), proof=proof)


def consistency(auditor: Auditor, old_size: int, new_size: int | None) -> ConsistencyProof:
    """Prove that the tree of `new_size` entries (None: the newest head's) begins with the older.

    Raises:
        RegistryRangeError: the sizes are in the wrong order, or beyond the registry.

    """
    newer = _size(auditor, new_size)
    if not 0 <= old_size <= newer:
        raise RegistryRangeError(f"expected 0 <= old <= new, found old {old_size} and new {newer}")
    hashes = auditor.store.registry.nodes(consistency_path(old_size, newer))
    return ConsistencyProof(
        old_size=old_size, new_size=newer, proof=tuple(item.hex() for item in hashes)
    )


def excerpt(auditor: Auditor, bundle: Bundle, seal: SealRecord | None) -> tuple[bytes, bytes]:
    """Return the excerpt (RFC 8785 JSON) for a bundle's documents, and the head it is proven under.

    The head is taken after the documents were read, so it covers them all.

    Raises:
        RegistryKeyMissingError, RegistryDamagedError: see `head`.

    """
    documents = registered_documents(bundle, seal)
    note = head(auditor)
    size = notes.parse_checkpoint(notes.parse(note).text).size
    rows = auditor.store.registry.entries_of(
        {
            Registration(document.kind, document.digest, document.session_id).document
            for document in documents
        },
        size,
    )
    proofs = _proofs(auditor, [row.position for row in rows], size)
    found = RegistryExcerpt(
        entries=tuple(
            RegisteredEntry(
                index=row.position, entry=RegistryEntry.from_bytes(row.leaf), proof=proof
            )
            for row, proof in zip(rows, proofs, strict=True)
        )
    )
    return canonical.to_bytes(found), note


def recover(auditor: Auditor) -> None:
    """Check the stored registry, and register what an older server stored without it.

    Raises:
        RegistryDamagedError: entries are missing or changed, or do not lead to the signed heads.

    """
    check_stored(auditor)
    for version in auditor.home.history().versions:
        register(auditor, "trust-root", version.digest)
    auditor.store.register_all(auditor.now())


def _head(auditor: Auditor, tree: Tree, newest: RegistryHeadRow | None) -> RegistryHeadRow:
    # No cosignature may be older than an entry below it, be the clock set back in between.
    seconds = max(int(auditor.now().timestamp()), tree.time_ms // MILLISECONDS)
    time = datetime.fromtimestamp(seconds, UTC)
    try:
        signer, cosigner = (auditor.signing_key(role, time) for role in ("registry", "cosigner"))
    except HomeError as error:
        raise RegistryKeyMissingError(
            f"no head of the registry can be signed: {error}; a home from before there was a "
            "registry gets its key with `auditkit trust rotate`"
        ) from error
    root = auditor.home.trust_root(time)
    checkpoint = notes.Checkpoint(registry_origin(root), tree.size, tree.root)
    signed = notes.sign(checkpoint.to_text(), checkpoint.origin, signer)
    if newest is not None:
        if newest.size > tree.size or (newest.size == tree.size and newest.root != tree.root):
            raise RegistryDamagedError(
                f"a head of size {newest.size} with root {newest.root.hex()} was signed, the "
                f"stored registry has size {tree.size} and root {tree.root.hex()}; nothing more "
                "is signed, restore the database"
            )
        # Ed25519 signs the same text with the same key in the same way, so this tells new keys.
        known = notes.parse(newest.note.encode()).signatures[0] == signed.signatures[0]
        if known and time - newest.cosigned_at < HEAD_LIFETIME:
            return newest
    note = notes.cosign(signed, auditor.cosigner_name(root), cosigner, seconds)
    return RegistryHeadRow(
        size=tree.size, root=tree.root, note=note.to_bytes().decode(), cosigned_at=time
    )


def check_stored(auditor: Auditor, sizes: Collection[int] = ()) -> dict[int, bytes]:
    """Recompute the whole tree and compare it with every head that was ever signed.

    Returns:
        The roots of the trees of `sizes`, those that are larger than the registry left out.

    Raises:
        RegistryDamagedError: see `recover`.

    """
    registry = auditor.store.registry
    # Heads first: another server may append and sign between the two.
    heads = registry.roots_of_heads()
    size = registry.size()
    frontier, roots = merkle.Frontier(), dict[int, bytes]()
    ends = {*heads, *sizes, *range(0, size, ENTRIES_PER_READ), size}
    bounds = sorted(end for end in ends if end <= size)
    for start, end in pairwise([0, *bounds]):
        frontier.extend(merkle.leaf_hash(row.leaf) for row in registry.entries(start, end))
        roots[end] = frontier.root()
        expected = heads.get(end, roots[end])
        if frontier.size != end or frontier.root() != expected:
            raise RegistryDamagedError(
                f"entries 0 to {end} of the registry are not those whose root was signed: expected "
                f"{expected.hex()}, found {frontier.root().hex()} over {frontier.size} entries; "
                "restore the database"
            )
    if any(signed > size for signed in heads):
        raise RegistryDamagedError(
            f"a head of size {max(heads)} was signed, {size} entries are stored; restore the "
            "database"
        )
    (kept,) = registry.nodes([Span(0, size)])
    if kept != frontier.root():
        raise RegistryDamagedError(
            f"the registry's entries hash to {frontier.root().hex()}, its stored nodes to "
            f"{kept.hex()}; restore the database"
        )
    return {each: roots[each] for each in sizes if each in roots}


def _proofs(auditor: Auditor, indices: list[int], size: int) -> list[tuple[str, ...]]:
    paths = [inclusion_path(index, size) for index in indices]
    roots = iter(auditor.store.registry.nodes(span for path in paths for span in path))
    return [tuple(next(roots).hex() for _ in path) for path in paths]


def _size(auditor: Auditor, asked: int | None) -> int:
    size = auditor.store.registry.size()
    if asked is None:
        newest = auditor.store.registry.newest_head()
        return newest.size if newest is not None else size
    if not 0 <= asked <= size:
        raise RegistryRangeError(f"expected a tree of at most {size} entries, found {asked}")
    return asked
