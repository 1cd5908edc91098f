"""What a witness does with a checkpoint: check, store, and only then cosign."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from auditkit.evidence import notes
from auditkit.evidence.witnessing import (
    AddCheckpoint,
    LogState,
    check_extends,
    check_signed,
    cosignature_line,
)
from auditor_server.witness.home import WitnessHome


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Witness:
    """One witness at work."""

    home: WitnessHome
    now: Callable[[], datetime] = _utc_now

    def add_checkpoint(self, body: bytes) -> str:
        """Cosign a checkpoint that extends the last one of its log; return the signature line.

        The new state is on the disk before the cosignature leaves this method, and was locked from
        before it was read: whatever fails in between, no second history is ever cosigned. The times
        of a log's cosignatures never fall, even if the clock does.

        Raises:
            WitnessRequestError, OldSizeError: a malformed request.
            UnknownLogError: a log that is not followed here.
            UntrustedCheckpointError: not signed by a key that speaks for the log.
            StaleOldSizeError: it does not start where the last one ended.
            SplitViewError: the last size with another root.
            ConsistencyProofError: it is not proven to extend the last one.
            WitnessStateError: the state can't be kept.

        """
        request = AddCheckpoint.from_bytes(body)
        checkpoint = request.checkpoint
        trusted = self.home.trusted_keys(checkpoint.origin)
        check_signed(request, trusted)
        with self.home.state.locked(checkpoint.origin) as log:
            check_extends(request, log.state)
            time = max(int(self.now().timestamp()), log.state.time)
            line = cosignature_line(request.note, self.home.config.name, self.home.key, time)
            trusted_names = {(key.name, key.key_hash) for key in trusted}
            signed = notes.Note(
                request.note.text,
                tuple(s for s in request.note.signatures if (s.name, s.key_hash) in trusted_names),
            )
            state = LogState(checkpoint.size, checkpoint.root, time)
            log.store(state, signed.to_bytes() + line.encode())
        return line
