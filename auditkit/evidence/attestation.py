"""The check `hardware-attested`: a quote of the hardware of a training, judged by plug-ins.

A trusted execution environment can sign what runs in it and bind 32 bytes of the program's choice
into that quote. What such a quote looks like, and whose keys vouch for it, differs between makers
and changes with every firmware, so no format is built in and none is trusted unasked: whoever
verifies says which verifiers to believe. Without one, an attestation is evidence that nobody here
could read, and it raises no level.

A verifier is any object with the method of `AttestationVerifier`. Packages offer one by name:

    [project.entry-points."auditkit.attestation"]
    example-tee = "example_package:verifier"
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Protocol

from auditkit.evidence.canonical import sha256_hex, to_bytes
from auditkit.evidence.document_checks import Documents
from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.findings import Result, Skipped
from schemas import Attestation, Environment, SessionRequest

ENTRY_POINTS = "auditkit.attestation"
"""Group of entry points under which installed packages offer verifiers."""


class AttestationError(EvidenceError):
    """A quote is not genuine, or is not about this session's key, image and request."""


class AttestationPluginError(Exception):
    """An installed verifier of attestations cannot be used."""


@dataclass(frozen=True)
class AttestedRun:
    """What a quote must be about, or it could be of any other program on the same hardware.

    Attributes:
        report_data: 32 bytes that the quote must carry: SHA-256 of the request in RFC 8785 form
            with its `attestation` set to null. It covers the session key, the image, the training
            code, the configuration and the samples.
        session_key: of the session, hexadecimal; it must have been made inside.
        image_digest: of the image whose measurement the quote must show; None outside a container.
        environment: of the training process.
    """

    report_data: bytes
    session_key: str
    image_digest: str | None
    environment: Environment


class AttestationVerifier(Protocol):
    """Judges the quotes of one kind of hardware."""

    def verify(self, attestation: Attestation, run: AttestedRun) -> str:
        """Return what was attested, for people.

        Args:
            attestation: as the developer sent it; nothing of it is verified yet.
            run: what it must be about.

        Raises:
            AttestationError: it is not genuine, out of date, or about something else.
        """
        ...


def attested_run(request: SessionRequest) -> AttestedRun:
    """Return what an attestation of a session must be about."""
    bare = request.model_copy(update={"attestation": None})
    return AttestedRun(
        report_data=bytes.fromhex(sha256_hex(to_bytes(bare))),
        session_key=request.session_key,
        image_digest=request.image_digest,
        environment=request.environment,
    )


def hardware_attested(documents: Documents, verifiers: Mapping[str, AttestationVerifier]) -> Result:
    """The hardware that the training ran on has signed for this very run.

    Args:
        documents: of the session.
        verifiers: the ones to believe, by the kind of attestation that each judges.

    Raises:
        AttestationError: the quote does not hold.
    """
    attestation = documents.request.attestation
    if attestation is None:
        return Skipped("the session carries no attestation of its hardware")
    verifier = verifiers.get(attestation.kind)
    if verifier is None:
        known = ", ".join(sorted(verifiers)) or "none"
        return Skipped(
            f"the session carries an attestation of kind {attestation.kind!r}, and there is no "
            f"verifier for it here (known: {known})"
        )
    if documents.continuations:
        return Skipped(
            "the session went on in a further container, of which the attestation says nothing"
        )
    return f"{attestation.kind}: {_judged(verifier, attestation, documents.request)}"


def _judged(
    verifier: AttestationVerifier, attestation: Attestation, request: SessionRequest
) -> str:
    try:
        return verifier.verify(attestation, attested_run(request))
    except AttestationError:
        raise
    except Exception as error:  # another party's code, at work on a third party's bytes
        raise AttestationError(
            f"the verifier for attestations of kind {attestation.kind!r} broke off: "
            f"{type(error).__name__}: {error}; a quote that cannot be judged does not hold"
        ) from error


def installed_verifiers() -> dict[str, AttestationVerifier]:
    """Return the verifiers that installed packages offer, by kind of attestation.

    For the edge of a program: whoever calls it believes every package that is installed.

    Raises:
        AttestationPluginError: a verifier cannot be loaded, or two packages offer the same kind.
    """
    found: dict[str, AttestationVerifier] = {}
    for point in entry_points(group=ENTRY_POINTS):
        if point.name in found:
            raise AttestationPluginError(
                f"two installed packages offer a verifier for attestations of kind "
                f"{point.name!r}; uninstall one of them"
            )
        try:
            found[point.name] = point.load()
        except Exception as error:
            raise AttestationPluginError(
                f"the verifier for attestations of kind {point.name!r} ({point.value}) cannot be "
                f"loaded: {error}; repair or uninstall its package"
            ) from error
    return found
