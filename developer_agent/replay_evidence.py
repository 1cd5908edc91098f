"""What a replay rests on: the verified evidence, the auditor's draw, and what was opened for it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from auditkit.evidence import canonical, dsse, notes, statements
from auditkit.evidence.bundle import Bundle
from auditkit.evidence.document_checks import open_documents
from auditkit.evidence.membership_codes import SessionCodes, check_secret
from auditkit.evidence.replay import CommittedState, SealedLog, SealedLogReader
from auditkit.evidence.replay_checks import OpenDraw, check_draw
from auditkit.evidence.trust_history import TrustHistory
from auditkit.evidence.verify import verify_bundle
from developer_agent.errors import AgentError
from developer_agent.granted import GrantedTraining
from developer_agent.segment_package import (
    CALIBRATION_NAME,
    CalibrationPackage,
    PackageMismatchError,
    SegmentPackage,
    Trace,
    package_path,
    read_package,
    read_trace,
    segment_name,
    shown_rows,
    trace_path,
)
from schemas import (
    ModelDescription,
    Normalisation,
    ReplayDraw,
    ReplaySegment,
    SessionGrant,
    SessionRequest,
    parse_record,
)


class ReplayError(AgentError):
    """A replay cannot be performed, or says nothing."""


class EvidenceFailedError(ReplayError):
    """The bundle does not verify, so there is nothing that a replay could be compared with."""


@dataclass(frozen=True, kw_only=True)
class ExecutableSession:
    """What the steps of a training follow from, its samples and states apart."""

    request: SessionRequest
    grant: SessionGrant
    normalisation: Normalisation
    weights: bytes
    """The sealed weights file of M+."""
    codes: SessionCodes | None

    @cached_property
    def session(self) -> GrantedTraining:
        """What a training loop may know."""
        return GrantedTraining(request=self.request, grant=self.grant)


@dataclass(frozen=True, kw_only=True)
class SealedSession(ExecutableSession):
    """What a replay is compared with: verified, and all from the auditor's own evidence."""

    log: SealedLog
    pool_leaves: bytes
    scores: bytes
    """The sealed scores file."""
    history: TrustHistory

    @cached_property
    def states(self) -> Mapping[int, CommittedState]:
        """The committed states by their steps."""
        return {state.step: state for state in self.log.states}


def open_session(
    bundle: Bundle, trusted: TrustHistory, code_secret: bytes | None, now: datetime
) -> SealedSession:
    """Verify a bundle, and return what a replay needs of it.

    Args:
        bundle: the evidence.
        trusted: the auditor's trust root.
        code_secret: of the membership codes, which only the auditor has.
        now: time of verification.

    Raises:
        EvidenceFailedError: a check failed, the outcome of earlier replays apart.
        LogNotSealedError, StateChainError: the log has no end, or no chain of states.
        CodeSecretError: the secret is not the one that the grant commits to.
    """
    report = verify_bundle(bundle, trusted, now=now, code_secret=code_secret)
    failed = [f for f in report.findings if f.outcome == "failed" and f.check != "replay"]
    if failed:
        raise EvidenceFailedError(
            f"the bundle does not verify: {failed[0].check}: {failed[0].detail}; there is nothing "
            "to compare a replay with"
        )
    documents = open_documents(bundle, trusted, code_secret)
    reader = SealedLogReader()
    for line in bundle.records:
        reader.observe(line, parse_record(line))
    *_, last = bundle.checkpoints
    log = reader.finish(
        documents.grant.session_id,
        notes.parse_checkpoint(notes.parse(last).text),
        documents.cosignature_times[-1],
    )
    if bundle.weights is None or bundle.description is None or bundle.scores is None:
        raise EvidenceFailedError(
            "the bundle holds no submitted model; a replay follows the submission"
        )
    description = ModelDescription.from_bytes(bundle.description)
    request, grant = documents.request, documents.grant
    session = GrantedTraining(request=request, grant=grant)
    codes = None
    if grant.code_commitment is not None and code_secret is not None:
        check_secret(code_secret, grant.code_commitment)
        codes = SessionCodes.derive(
            code_secret,
            bundle.pool_leaves,
            session.schedule.split,
            request.config.mint.code_length,
        )
    return SealedSession(
        request=request,
        grant=grant,
        log=log,
        pool_leaves=bundle.pool_leaves,
        normalisation=description.normalisation,
        weights=bundle.weights,
        scores=bundle.scores,
        codes=codes,
        history=documents.history,
    )


def open_draw(sealed: SealedSession, data: bytes) -> OpenDraw:
    """Return a draw that the auditor signed, and that follows from its seed.

    Raises:
        EnvelopeFormatError, ThresholdError, StatementError: it is not signed by the replay role.
        DrawMismatchError, DrawTooEarlyError: it is not a fair draw from this log.
    """
    envelope = dsse.Envelope.from_bytes(data)
    found = sealed.history.verify_statement(
        "replay",
        envelope,
        statements.REPLAY_DRAW_PREDICATE,
        ReplayDraw,
        dated=lambda draw: draw.drawn_at,
    )
    check_draw(sealed.log, found, found.number)
    return OpenDraw(found, canonical.sha256_hex(envelope.payload))


class PackageFiles(Mapping[ReplaySegment, SegmentPackage]):
    """Checked packages that stay on disk: read when asked for, since states can be large."""

    def __init__(self, paths: Mapping[ReplaySegment, Path]) -> None:
        self._paths = dict(paths)

    def __getitem__(self, segment: ReplaySegment) -> SegmentPackage:
        return read_package(self._paths[segment])

    def __contains__(self, segment: object) -> bool:
        return segment in self._paths

    def __iter__(self) -> Iterator[ReplaySegment]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


@dataclass(frozen=True)
class Opened:
    """What the developer opened for one draw, all of it checked against the log."""

    segments: Mapping[ReplaySegment, SegmentPackage]
    calibration: CalibrationPackage | None
    traces: Mapping[ReplaySegment, Trace]
    loop: str | None
    """The developer's own training loop."""


def open_packages(sealed: SealedSession, drawn: ReplayDraw, folder: Path) -> Opened:
    """Read and check every package of a draw that lies in a folder.

    Raises:
        PackageError: the subclass names what is not as the log commits to it.
        OSError: a file cannot be read.
    """
    paths: dict[ReplaySegment, Path] = {}
    loops: dict[str | None, None] = {}
    traces: dict[ReplaySegment, Trace] = {}
    for segment in dict.fromkeys(drawn.segments):
        path = package_path(folder, segment)
        if path.exists():
            package = read_package(path)
            if package.description.segment != segment:
                raise PackageMismatchError(
                    f"{path.name} opens {segment_name(package.description.segment)}"
                )
            check_package(sealed, package)
            paths[segment] = path
            loops[package.description.loop] = None
        if trace_path(folder, segment).exists():
            traces[segment] = read_trace(trace_path(folder, segment).read_bytes())
    calibration = None
    if (folder / CALIBRATION_NAME).exists():
        with (folder / CALIBRATION_NAME).open("rb") as file:
            calibration = CalibrationPackage.read_from(file)
        calibration.check(
            sealed.session.schedule.split.calibration,
            sealed.pool_leaves,
            session_id=sealed.grant.session_id,
        )
    if len(loops) > 1:
        first, second, *_ = loops
        raise PackageMismatchError(
            f"the packages name different training loops: {first} and {second}"
        )
    return Opened(PackageFiles(paths), calibration, traces, next(iter(loops), None))


def check_package(sealed: SealedSession, package: SegmentPackage) -> None:
    """Check a package against the log and the pool's leaves.

    Raises:
        PackageError: the subclass names what is not as the log commits to it.
    """
    package.check(
        {step: state.state_digest for step, state in sealed.states.items()},
        shown_rows(sealed.session.schedule, package.description.segment),
        sealed.pool_leaves,
        session_id=sealed.grant.session_id,
    )
