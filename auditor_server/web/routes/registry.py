"""The registry as pages: public, as the registry is."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from auditkit.evidence import merkle, notes
from auditkit.evidence.proofs import LogProof
from auditor_server import registry
from auditor_server.context import Auditor
from auditor_server.web.dependencies import PAGE_SIZE, AuditorServer, PageNumber
from auditor_server.web.paging import Paging
from auditor_server.web.rendering import address, download, page
from auditor_server.witnesses import with_lines
from schemas import RegistryEntry
from schemas.base import Count, Sha256

router = APIRouter(include_in_schema=False, prefix="/registry")


@router.get("")
def registry_page(
    request: Request,
    auditor: AuditorServer,
    number: PageNumber = 1,
    find: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """List the entries, newest first; or go to the one that is looked for."""
    if find is not None and (wanted := find.strip().lower()):
        place = wanted if wanted.isdecimal() and len(wanted) < 16 else f"hash/{wanted}"
        return RedirectResponse(address(f"/registry/{place}"), 303)
    head = registry.head(auditor)
    size = notes.parse_checkpoint(notes.parse(head).text).size
    paging = Paging(number, PAGE_SIZE, size)
    start, end = max(0, size - paging.last), max(0, size - paging.first)
    leaves = registry.entries(auditor, start, end).leaves
    return page(
        request,
        "registry",
        entries=[
            (index, RegistryEntry.from_bytes(leaf)) for index, leaf in enumerate(leaves, start)
        ][::-1],
        paging=paging,
        head=head.decode(),
    )


@router.get("/hash/{digest}")
def entry_by_digest(request: Request, auditor: AuditorServer, digest: Sha256) -> HTMLResponse:
    """Show the entry of a document, by its digest."""
    return _entry(request, auditor, None, digest)


@router.get("/{index}")
def entry_by_index(request: Request, auditor: AuditorServer, index: Count) -> HTMLResponse:
    """Show one entry, and the proof that it is in the registry."""
    return _entry(request, auditor, index, None)


@router.get("/{index}/proof")
def entry_proof(auditor: AuditorServer, index: Count) -> Response:
    """Return the proof as a file (C2SP tlog-proof)."""
    proof, _ = _prove(auditor, index, None)
    return download(proof.to_bytes(), f"registry-{index}.tlog-proof", "text/plain")


@router.get("/{index}/leaf")
def entry_leaf(auditor: AuditorServer, index: Count) -> Response:
    """Return the entry as it is hashed, byte for byte."""
    return download(registry.leaf(auditor, index), f"registry-{index}.json", "application/json")


def _entry(
    request: Request, auditor: Auditor, index: int | None, digest: str | None
) -> HTMLResponse:
    proof, leaf = _prove(auditor, index, digest)
    return page(
        request,
        "registry_entry",
        index=proof.index,
        entry=RegistryEntry.from_bytes(leaf),
        leaf=leaf.decode(),
        leaf_hash=merkle.leaf_hash(leaf).hex(),
        proof=proof,
    )


def _prove(auditor: Auditor, index: int | None, digest: str | None) -> tuple[LogProof, bytes]:
    if index is not None:
        registry.leaf(auditor, index)  # says so if there is none
    head = registry.head(auditor)
    size = notes.parse_checkpoint(notes.parse(head).text).size
    found = registry.inclusion(auditor, index, digest, size)
    hashes = tuple(bytes.fromhex(item) for item in found.proof)
    return LogProof(found.index, hashes, with_lines(auditor, head)), found.leaf.encode()
