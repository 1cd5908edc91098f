"""The next version of a trust root: other keys, other dates, revocations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from auditkit.evidence.keys import PublicKey
from auditkit.evidence.trust_history import TrustHistory
from schemas import RevokedKey, Role, RoleName, TrustRoot

# The next version takes over at a whole second that has not begun: cosignatures tell whole seconds,
# and what was signed a moment ago must stay signed by a key in force.
LEAST_NOTICE = timedelta(seconds=1)


@dataclass(frozen=True)
class Changes:
    """What the next version changes; everything else stays.

    Attributes:
        new_keys: for each role here, the only key from now on (not for `root`).
        add_root: further root keys.
        remove_root: identifiers of root keys that leave.
        root_threshold: how many root keys must sign; None: as before.
        revoked_session_keys: public keys, in hexadecimal form.
        revoked_keys: identifiers of keys of roles, and from when on they are compromised.
    """

    new_keys: Mapping[RoleName, PublicKey] = field(default_factory=dict)
    add_root: Sequence[PublicKey] = ()
    remove_root: Sequence[str] = ()
    root_threshold: int | None = None
    revoked_session_keys: Sequence[str] = ()
    revoked_keys: Mapping[str, datetime] = field(default_factory=dict)


def next_version(
    history: TrustHistory, changes: Changes, *, starts: datetime, lifetime: timedelta
) -> TrustRoot:
    """Return the version that follows, unsigned.

    Args:
        history: all versions so far.
        changes: what becomes different.
        starts: when it takes over; a whole second.
        lifetime: until it expires.

    Raises:
        pydantic.ValidationError: the changes leave a role without keys, a threshold that can't be
            met, or a revoked key in a role.

    """
    before, digest = history.current, history.versions[-1].digest
    roles = before.roles | {
        role: Role(keyids=(key.keyid,)) for role, key in changes.new_keys.items()
    }
    old_root = before.roles["root"]
    leaving = {*changes.remove_root, *changes.revoked_keys}
    root_keyids = [keyid for keyid in old_root.keyids if keyid not in leaving]
    root_keyids += [key.keyid for key in changes.add_root if key.keyid not in root_keyids]
    roles["root"] = Role(
        keyids=tuple(root_keyids), threshold=changes.root_threshold or old_root.threshold
    )
    known = before.keys | {
        key.keyid: key.hex for key in (*changes.new_keys.values(), *changes.add_root)
    }
    serving = {keyid for role in roles.values() for keyid in role.keyids}
    revoked = {found.keyid: found for found in before.revoked_keys} | {
        keyid: RevokedKey(keyid=keyid, compromised_at=since)
        for keyid, since in changes.revoked_keys.items()
    }
    sessions = dict.fromkeys((*before.revoked_session_keys, *changes.revoked_session_keys))
    return TrustRoot(
        auditor=before.auditor,
        origin=before.origin,
        version=before.version + 1,
        previous=digest,
        issued_at=starts,
        expires_at=starts + lifetime,
        keys={keyid: key for keyid, key in known.items() if keyid in serving},
        roles=roles,
        revoked_session_keys=tuple(sessions),
        revoked_keys=tuple(revoked.values()),
    )


def earliest_start(now: datetime) -> datetime:
    """Return the first whole second at which a version that is made now may take over."""
    return (now + LEAST_NOTICE).replace(microsecond=0) + timedelta(seconds=1)
