"""What independent witnesses add to a session: nobody else can be shown another log.

N of the M witnesses that the order names must have cosigned the end of the log. N is a majority, so
of two logs under one origin at most one has enough honest witnesses.
"""

from collections import deque
from collections.abc import Collection
from datetime import UTC, datetime

from auditkit.evidence import notes
from auditkit.evidence.document_checks import CheckpointMissingError, Documents
from auditkit.evidence.errors import EvidenceError, SignatureError, UnsignedNoteError
from auditkit.evidence.findings import Result, Skipped
from auditkit.evidence.log_checks import CLOCK_TOLERANCE_SECONDS
from auditkit.evidence.witnessing import open_policy


class WitnessQuorumError(EvidenceError):
    """Fewer witnesses than ordered have cosigned the final checkpoint."""


class WitnessTimeError(EvidenceError):
    """A witness's cosignature was made at a time at which it cannot have been made."""


def checkpoints_witnessed(documents: Documents, now: datetime) -> Result:
    """Enough of the order's witnesses cosigned the final checkpoint, each at a possible time.

    Args:
        documents: of the session.
        now: time of verification; nothing can have been cosigned after it.
    """
    policy = documents.order.witnesses
    if policy is None:
        return Skipped(
            "the order names no witnesses: that the auditor shows everybody the same log rests on "
            "the auditor's word"
        )
    roots = [version.root for version in documents.history.versions]
    keys = open_policy(policy, {key for root in roots for key in root.keys.values()})
    bundle = documents.bundle
    final = deque(bundle.checkpoints, maxlen=1)
    if not final:
        raise CheckpointMissingError("the log has no checkpoint that a witness could have cosigned")
    earliest = _cosigned_from(documents) - CLOCK_TOLERANCE_SECONDS
    latest = now.timestamp() + CLOCK_TOLERANCE_SECONDS
    times = _times(final[0], keys)
    possible = {name: time for name, time in times.items() if earliest <= time <= latest}
    if len(possible) < policy.threshold <= len(times):
        name, time = next(item for item in times.items() if item[0] not in possible)
        raise WitnessTimeError(
            f"witness {name} claims to have cosigned the final checkpoint at second {time}; that "
            "is before the auditor did, or after this verification: its clock is wrong"
        )
    if len(possible) < policy.threshold:
        who = ", ".join(possible) or "none of them"
        raise WitnessQuorumError(
            f"{len(possible)} of the {len(keys)} ordered witnesses cosigned the final checkpoint "
            f"({who}), the order demands {policy.threshold}; if the others were only late, export "
            "the bundle again, otherwise ask them which log they have seen"
        )
    found = f"{len(possible)} of {len(keys)} witnesses: " + ", ".join(
        f"{name} at {datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M:%S} UTC"
        for name, time in possible.items()
    )
    if bundle.registry_checkpoint is None:
        return found
    # The registry grows all the time, so its newest checkpoint may still be on its way to them.
    registry = _times(bundle.registry_checkpoint, keys)
    return f"{found}; {len(registry)} of them the registry's checkpoint too"


def _cosigned_from(documents: Documents) -> float:
    """Return when the auditor cosigned the final checkpoint, or granted the session."""
    try:
        return documents.cosignature_times[-1]
    except EvidenceError:  # `checkpoints-cosigned` has said so
        return documents.grant.valid_from.timestamp()


def _times(note_bytes: bytes, keys: Collection[notes.VerifierKey]) -> dict[str, int]:
    """Return which witnesses have cosigned a checkpoint, and when, in the policy's order.

    Raises:
        SignatureError: a line in a witness's name is not its signature over this checkpoint.
        NoteFormatError, CheckpointFormatError, CosignatureTimeError: not a cosigned checkpoint.
    """
    try:
        verified = notes.verify(note_bytes, keys)
    except UnsignedNoteError:
        return {}
    except SignatureError as error:
        raise SignatureError(
            f"{error}; a cosignature speaks for one checkpoint of one log and for no other"
        ) from error
    signed = {key: found for key in keys if (found := verified.signed_by(key)) is not None}
    return {key.name: found.timestamp for key, found in signed.items() if found.timestamp}
