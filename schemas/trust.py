"""The trust root: which keys speak for the auditor, in which role (TUF, section 2.1)."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, model_validator

from schemas.base import Schema, Sha256
from schemas.session import Ed25519PublicKey

RoleName = Literal["root", "order", "session", "cosigner", "verdict", "registry", "replay"]

# Trust roots made before there was a registry or a replay have no keys for them, and stay good.
NECESSARY_ROLES: frozenset[RoleName] = frozenset(
    {"root", "order", "session", "cosigner", "verdict"}
)


class Role(Schema):
    """Keys that may act in a role, and how many different ones must sign."""

    keyids: tuple[Sha256, ...] = Field(min_length=1)
    threshold: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _threshold_can_be_met(self) -> "Role":
        if len(set(self.keyids)) != len(self.keyids):
            raise ValueError("a key is listed twice in one role")
        if self.threshold > len(self.keyids):
            raise ValueError("the threshold is larger than the number of keys")
        return self


class RevokedKey(Schema):
    """A key of a role that somebody else may have had from a certain time on."""

    keyid: Sha256
    compromised_at: AwareDatetime = Field(description="what it signed from then on is void")


class TrustRoot(Schema):
    """Handed to third parties once, out of band; everything else is verified from it."""

    schema_version: Literal[1] = 1
    auditor: str = Field(min_length=1, max_length=200)
    origin: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:-]{0,99}$", description="server name")
    version: Annotated[int, Field(ge=1)]
    previous: Sha256 | None = Field(
        default=None, description="SHA-256 of the DSSE payload of the version before"
    )
    issued_at: AwareDatetime = Field(description="when it takes over from the version before")
    expires_at: AwareDatetime
    keys: dict[Sha256, Ed25519PublicKey] = Field(description="keyid is SHA-256 of the key bytes")
    roles: dict[RoleName, Role]
    revoked_session_keys: tuple[Ed25519PublicKey, ...] = ()
    revoked_keys: tuple[RevokedKey, ...] = Field(
        default=(), description="keys of roles, of this version or of an earlier one"
    )

    @model_validator(mode="after")
    def _roles_are_complete(self) -> "TrustRoot":
        missing = NECESSARY_ROLES - set(self.roles)
        if missing:
            raise ValueError(f"roles without keys: {', '.join(sorted(missing))}")
        serving = {keyid for role in self.roles.values() for keyid in role.keyids}
        unknown = serving - set(self.keys)
        if unknown:
            raise ValueError(f"roles name unknown keys: {', '.join(sorted(unknown))}")
        revoked = {found.keyid for found in self.revoked_keys}
        if len(revoked) != len(self.revoked_keys):
            raise ValueError("a key is revoked twice")
        if revoked & serving:
            raise ValueError(f"revoked keys hold a role: {', '.join(sorted(revoked & serving))}")
        return self

    @model_validator(mode="after")
    def _first_has_no_predecessor(self) -> "TrustRoot":
        if self.version == 1 and self.previous is not None:
            raise ValueError("version 1 has no version before it")
        return self
