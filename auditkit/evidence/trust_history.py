"""All versions of a trust root: which one was in force when, and whose signatures count when.

Modelled on the root role of The Update Framework (TUF specification, section 5.3). Forward, each
version is authenticated by signatures of the root keys of the version before; backward, by the
digest of its predecessor that each version names. So any one version that is trusted
authenticates all others.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from typing import TypeVar

from auditkit.evidence import dsse, notes, statements
from auditkit.evidence.canonical import sha256_hex
from auditkit.evidence.errors import (
    EvidenceError,
    RevokedKeyError,
    ThresholdError,
    TrustRootError,
    TrustRootForkError,
    TrustRootGapError,
    TrustRootNotInForceError,
    TrustRootOrderError,
    TrustRootRollbackError,
    TrustRootVersionError,
)
from auditkit.evidence.keys import PublicKey
from auditkit.evidence.trust import (
    check_not_expired,
    check_signed_by,
    read_trust_root,
    role_keys,
    role_threshold,
    trust_root_payload,
)
from schemas.base import Schema
from schemas.trust import RoleName, TrustRoot

COSIGNER_SUFFIX = "/cosigner"  # name of the auditor's cosignature key: `<origin><suffix>`

S = TypeVar("S", bound=Schema)


@dataclass(frozen=True)
class TrustVersion:
    """One version: what it says, and the envelope that it came in."""

    root: TrustRoot
    envelope: dsse.Envelope | None = None
    """None: the caller trusts this version as it is, whoever signed it."""

    @property
    def digest(self) -> str:
        """SHA-256 of the DSSE payload: what the next version names, and people compare."""
        envelope = self.envelope
        return sha256_hex(trust_root_payload(self.root) if envelope is None else envelope.payload)


@dataclass(frozen=True)
class TrustHistory:
    """Consecutive versions of one auditor's trust root, oldest first; at least one.

    Make one with `of`, `open` and `joined`, which check that each version follows from the other.
    """

    versions: tuple[TrustVersion, ...]

    @classmethod
    def of(cls, trusted: "TrustRoot | TrustHistory") -> "TrustHistory":
        """Return the history of one version that was opened already, or the given history."""
        return trusted if isinstance(trusted, TrustHistory) else cls((TrustVersion(trusted),))

    @classmethod
    def open(cls, trusted: bytes, others: Sequence[bytes] = ()) -> "TrustHistory":
        """Read one version that the caller trusts, and others that must prove themselves by it.

        Nothing is said about expiry, since past versions have expired: see `check_current`.

        Args:
            trusted: DSSE envelope of any version, received from the auditor out of band.
            others: DSSE envelopes of other versions, earlier or later ones, in ascending order.

        Raises:
            TrustRootFormatError, TrustRootSignatureError: one of them is no trust root, or not
                signed by its own root role; also as `joined`.
        """
        envelope, root = read_trust_root(trusted)
        return cls((TrustVersion(root, envelope),)).joined(others)

    def joined(self, others: Sequence[bytes]) -> "TrustHistory":
        """Return this history with more versions.

        Args:
            others: DSSE envelopes, in ascending order; versions known already are welcome.

        Raises:
            TrustRootFormatError: one of them is no trust root.
            TrustRootSignatureError: too few of the root keys of a version, or of the version
                before it, have signed it.
            TrustRootForkError: a version differs from the known one, or from the one that its
                successor names.
            TrustRootGapError: a version between others is missing.
            TrustRootOrderError: they are not in ascending order, or their dates are not.
            TrustRootVersionError: one of them is another auditor's.
        """
        opened = [TrustVersion(root, envelope) for envelope, root in map(read_trust_root, others)]
        for older, newer in pairwise(opened):
            if older.root.version >= newer.root.version:
                _check_same_version(older, newer)
                raise TrustRootOrderError(
                    f"version {newer.root.version} of the trust root stands behind version "
                    f"{older.root.version}; give them in ascending order, each once"
                )
        versions = {version.root.version: version for version in self.versions}
        for version in opened:
            known = versions.get(version.root.version, version)
            _check_same_version(known, version)
            # What is only known by its content is from now on known by its bytes as well.
            versions[version.root.version] = version if known.envelope is None else known
        ascending = tuple(versions[number] for number in sorted(versions))
        for older, newer in pairwise(ascending):
            _check_follows(older, newer)
        return TrustHistory(ascending)

    def updated(self, others: Sequence[bytes], now: datetime) -> "TrustHistory":
        """Return this history with newer versions: what a client does that keeps one up to date.

        Raises:
            TrustRootRollbackError: the newest version offered is older than the newest known one.
            TrustRootExpiredError: the newest version has expired at `now`.
            TrustRootError: as `joined`.
        """
        newest = max((read_trust_root(data)[1].version for data in others), default=0)
        if newest < self.current.version:
            raise TrustRootRollbackError(
                f"version {newest} of the trust root was offered, version {self.current.version} "
                "is known already; an older one is never taken, and whoever offers it may hide a "
                "revocation"
            )
        joined = self.joined(others)
        joined.check_current(now)
        return joined

    @property
    def current(self) -> TrustRoot:
        """The newest version."""
        return self.versions[-1].root

    @property
    def auditor(self) -> str:
        """Name of the authority, as the newest version has it."""
        return self.current.auditor

    @property
    def origin(self) -> str:
        """Name of the auditor's server, the same in all versions."""
        return self.current.origin

    @cached_property
    def revoked_session_keys(self) -> frozenset[str]:
        """The session keys that any version has revoked; what they signed is void."""
        return frozenset(
            key for version in self.versions for key in version.root.revoked_session_keys
        )

    @cached_property
    def compromised(self) -> dict[str, datetime]:
        """The keys of roles that any version has revoked, and from when on they count for nothing.

        If versions differ, the earliest time counts.
        """
        found: dict[str, datetime] = {}
        for version in self.versions:
            for key in version.root.revoked_keys:
                found[key.keyid] = min(key.compromised_at, found.get(key.keyid, key.compromised_at))
        return found

    def at(self, time: datetime) -> TrustRoot:
        """Return the version that was in force at a time.

        A version is in force from the whole second of its issue, since cosignatures tell the time
        in whole seconds, until the next one is issued or it expires.

        Raises:
            TrustRootNotInForceError: the first known version was issued later.
            TrustRootExpiredError: the version of that time had expired.
        """
        issued = [
            version.root
            for version in self.versions
            if _whole_second(version.root.issued_at) <= _whole_second(time)
        ]
        if not issued:
            first = self.versions[0].root
            raise TrustRootNotInForceError(
                f"version {first.version} of the trust root, the first that is known, was issued "
                f"at {first.issued_at.isoformat()}; found was the time {time.isoformat()}, for "
                "which no earlier version is at hand"
            )
        check_not_expired(issued[-1], time)
        return issued[-1]

    def check_current(self, now: datetime) -> None:
        """Check that the newest version may still be used.

        Raises:
            TrustRootExpiredError: it has expired at `now`; the auditor must issue a newer one.
        """
        check_not_expired(self.current, now)

    def keys_at(
        self, role: RoleName, time: datetime, known_by: datetime | None = None
    ) -> dict[str, PublicKey]:
        """Return the keys whose signatures count for a document of a role.

        Args:
            role: in which they act.
            time: when the document says that it was signed.
            known_by: by when something that these keys did not sign shows that it existed: a
                cosignature or an entry of the registry. A key that was revoked later counts only
                if that was before it was compromised, since its thief can date documents back.

        Raises:
            TrustRootNotInForceError, TrustRootExpiredError: as `at`.
            TrustRoleMissingError: the version in force gives no key for the role.
        """
        return {
            keyid: key
            for keyid, key in role_keys(self.at(time), role).items()
            if not self._is_void(keyid, time, known_by)
        }

    def all_keys(self, role: RoleName) -> dict[str, PublicKey]:
        """Return every key that has ever held a role, by identifier."""
        return {
            keyid: key
            for version in self.versions
            if role in version.root.roles
            for keyid, key in role_keys(version.root, role).items()
        }

    def verify_statement(
        self,
        role: RoleName,
        envelope: dsse.Envelope,
        predicate_type: str,
        model: type[S],
        *,
        dated: Callable[[S], datetime],
        known_by: datetime | None = None,
    ) -> S:
        """Return a statement's predicate, signed as the version in force at its date demands.

        Args:
            role: who must have signed.
            envelope: the signed document.
            predicate_type: URI of what it must be.
            model: the type of its predicate.
            dated: gives the time that the document itself tells.
            known_by: see `keys_at`.

        Raises:
            RevokedKeyError: keys that were revoked have signed, and too few others.
            ThresholdError: fewer keys have signed than the role demands; keys that were rotated
                out before the date, or rotated in after it, do not count.
            TrustRootNotInForceError, TrustRootExpiredError, TrustRoleMissingError: as `keys_at`.
            PayloadTypeError, StatementError: it is another statement than expected.
        """
        predicate = statements.parse(envelope.payload, predicate_type, model)
        time = dated(predicate)
        root = self.at(time)
        threshold = role_threshold(root, role)
        try:
            dsse.verify(envelope, self.keys_at(role, time, known_by), threshold)
        except ThresholdError as error:
            _explain_threshold(root, role, envelope, time, error)
        return predicate

    def cosigner_keys(self) -> tuple[notes.VerifierKey, ...]:
        """Return every cosignature key that the auditor has ever had (C2SP tlog-cosignature)."""
        name = self.origin + COSIGNER_SUFFIX
        return tuple(
            notes.VerifierKey.cosignature(name, key) for key in self.all_keys("cosigner").values()
        )

    def counted(
        self, role: RoleName, signatures: Mapping[PublicKey, datetime]
    ) -> tuple[frozenset[PublicKey], int]:
        """Judge the dated signatures of a checkpoint, each by the version in force at its time.

        Args:
            role: in which the keys act.
            signatures: keys whose signatures were verified, and the times that these carry.

        Returns:
            The keys that count, all under one version, and how many the role then demands.

        Raises:
            TrustRootNotInForceError, TrustRootExpiredError: as `at`, when no signature counts.
            TrustRoleMissingError: no version of those times gives a key for the role.
        """
        signers: dict[int, set[PublicKey]] = {}
        thresholds: dict[int, int] = {}
        problem: EvidenceError | None = None
        for key, time in signatures.items():
            try:
                root = self.at(time)
                thresholds[root.version] = role_threshold(root, role)
                if key in self.keys_at(role, time, known_by=time).values():
                    signers.setdefault(root.version, set()).add(key)
            except (TrustRootError, TrustRootNotInForceError) as error:
                problem = error
        if not thresholds:
            if problem is not None:
                raise problem
            return frozenset(), role_threshold(self.current, role)
        best = max(thresholds, key=lambda version: len(signers.get(version, ())))
        return frozenset(signers.get(best, ())), thresholds[best]

    def _is_void(self, keyid: str, time: datetime, known_by: datetime | None) -> bool:
        since = self.compromised.get(keyid)
        return since is not None and (time >= since or known_by is None or known_by >= since)


def _check_same_version(known: TrustVersion, found: TrustVersion) -> None:
    if known.root.version == found.root.version and known.root != found.root:
        raise TrustRootForkError(
            f"two different documents are version {known.root.version} of the trust root: "
            f"{known.digest} and {found.digest}; ask the auditor which fingerprint is right, and "
            "how the other came to be signed"
        )


def _check_follows(older: TrustVersion, newer: TrustVersion) -> None:
    before, after = older.root, newer.root
    if after.origin != before.origin:
        raise TrustRootVersionError(
            f"expected version {after.version} of the trust root of {before.origin}, found one of "
            f"{after.origin}; it is another auditor's"
        )
    if after.version != before.version + 1:
        raise TrustRootGapError(
            f"version {after.version} of the trust root follows version {before.version}, those "
            "between are missing; `auditkit trust update` fetches them"
        )
    if newer.envelope is not None:
        check_signed_by(newer.envelope, before)
    if after.previous != older.digest:
        raise TrustRootForkError(
            f"version {after.version} of the trust root names {after.previous} as the version "
            f"before it, found was {older.digest}; one of them is of another history"
        )
    if _whole_second(after.issued_at) <= _whole_second(before.issued_at):
        raise TrustRootOrderError(
            f"version {after.version} of the trust root is dated {after.issued_at.isoformat()}, "
            f"expected was a time after {before.issued_at.isoformat()}, the date of version "
            f"{before.version}"
        )


def _explain_threshold(
    root: TrustRoot,
    role: RoleName,
    envelope: dsse.Envelope,
    time: datetime,
    error: ThresholdError,
) -> None:
    """Raise the error that says why too few signatures count."""
    version = f"trust root version {root.version}, in force at {time.isoformat()}"
    try:
        dsse.verify(envelope, role_keys(root, role), role_threshold(root, role))
    except ThresholdError:
        raise ThresholdError(f"role {role} of {version}: {error}") from error
    raise RevokedKeyError(
        f"a document of role {role}, dated {time.isoformat()}, is signed by a key that was "
        "revoked, and nothing shows that it existed before the key was compromised; ask the "
        "auditor to sign it anew"
    ) from error


def _whole_second(time: datetime) -> int:
    return math.floor(time.timestamp())
