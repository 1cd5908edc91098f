"""The auditor's registry: one public log of everything that it signed, took in or found out."""

from typing import Literal

from pydantic import Field, model_validator

from schemas.base import Count, Milliseconds, Name, Schema, Sha256

EntryKind = Literal[
    "trust-root",
    "order",
    "grant",
    "continuation",
    "seal",
    "submission",
    "verification",
    "verdict",
    "draw",
    "replay",
]

SESSIONLESS_KINDS: frozenset[EntryKind] = frozenset({"trust-root", "order"})
"""Documents that belong to no single session."""

MAX_PROOF_HASHES = 64
"""Longest inclusion proof: tree sizes have 63 binary digits."""


class RegistryEntry(Schema):
    """One leaf of the registry, in RFC 8785 form: that a document exists, and since when.

    Nothing but digests and names of sessions: the registry is public, the documents are not.
    """

    schema_version: Literal[1] = 1
    kind: EntryKind
    session_id: Name | None = None
    digest: Sha256 = Field(
        description="SHA-256 of a signed document's DSSE payload, of the seal's record line, or of "
        "the RFC 8785 form of a submission's SubmissionDigests"
    )
    time_ms: Milliseconds = Field(description="the auditor's clock; never before an earlier entry")
    log_size: Count | None = Field(default=None, description="of a sealed session's log")
    log_root: Sha256 | None = Field(default=None, description="of a sealed session's log")

    @model_validator(mode="after")
    def _says_what_its_kind_demands(self) -> "RegistryEntry":
        if (self.session_id is None) != (self.kind in SESSIONLESS_KINDS):
            raise ValueError(
                f"an entry of kind {self.kind} names a session where it must not, or "
                "none where it must"
            )
        sealed = self.kind == "seal"
        if (self.log_size is not None) != sealed or (self.log_root is not None) != sealed:
            raise ValueError("size and root of a session's log belong to its seal, and only there")
        return self


class SubmissionDigests(Schema):
    """What was submitted for a session; the registry holds the digest of this document."""

    schema_version: Literal[1] = 1
    session_id: Name
    weights_digest: Sha256
    description_digest: Sha256
    scores_digest: Sha256


class RegisteredEntry(Schema):
    """An entry, where it stands in the registry, and the proof (RFC 6962) that it does."""

    index: Count
    entry: RegistryEntry
    proof: tuple[Sha256, ...] = Field(max_length=MAX_PROOF_HASHES, description="nearest first")


class RegistryExcerpt(Schema):
    """The entries of one session's documents, each proven under one checkpoint of the registry."""

    schema_version: Literal[1] = 1
    entries: tuple[RegisteredEntry, ...]


class RegistryEntries(Schema):
    """A page of the registry, as raw leaves."""

    schema_version: Literal[1] = 1
    start: Count = Field(description="index of the first leaf")
    size: Count = Field(description="number of leaves in the registry")
    leaves: tuple[str, ...] = Field(description="the exact leaf bytes (RFC 8785 JSON) as text")


class InclusionProof(Schema):
    """That an entry is in the registry's tree of `size` leaves (RFC 6962, section 2.1.1)."""

    schema_version: Literal[1] = 1
    index: Count
    size: Count
    leaf: str = Field(description="the exact leaf bytes (RFC 8785 JSON) as text")
    proof: tuple[Sha256, ...] = Field(max_length=MAX_PROOF_HASHES, description="nearest first")


class ConsistencyProof(Schema):
    """That a newer tree begins with an older one (RFC 6962, section 2.1.2)."""

    schema_version: Literal[1] = 1
    old_size: Count
    new_size: Count
    proof: tuple[Sha256, ...] = Field(max_length=2 * MAX_PROOF_HASHES)


class MonitorMark(Schema):
    """How far a monitor has checked a registry: everything up to here, and nothing beyond."""

    schema_version: Literal[1] = 1
    checkpoint: str = Field(description="the head that was checked, as it was signed (C2SP note)")
    cosigned_at: Count = Field(description="Unix seconds")
    frontier: str = Field(
        pattern=r"^([0-9a-f]{2})+$", description="roots of the complete subtrees, in hex"
    )
    time_ms: Milliseconds = Field(description="of the last entry; 0: there is none")
    counts: dict[str, Count] | None = Field(
        default=None,
        description="how many entries there are of what a session has a limited number of, by "
        "`<kind>/<session>`; null: an older monitor did not count",
    )
