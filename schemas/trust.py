"""The trust root: which keys speak for the auditor, in which role (TUF, section 2.1)."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, model_validator

from schemas.base import Schema, Sha256
from schemas.session import Ed25519PublicKey

RoleName = Literal["root", "order", "session", "cosigner", "verdict"]


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


class TrustRoot(Schema):
    """Handed to third parties once, out of band; everything else is verified from it."""

    schema_version: Literal[1] = 1
    auditor: str = Field(min_length=1, max_length=200)
    origin: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:-]{0,99}$", description="server name")
    version: Annotated[int, Field(ge=1)]
    issued_at: AwareDatetime
    expires_at: AwareDatetime
    keys: dict[Sha256, Ed25519PublicKey] = Field(description="keyid is SHA-256 of the key bytes")
    roles: dict[RoleName, Role]
    revoked_session_keys: tuple[Ed25519PublicKey, ...] = ()

    @model_validator(mode="after")
    def _roles_are_complete(self) -> "TrustRoot":
        missing = {"root", "order", "session", "cosigner", "verdict"} - set(self.roles)
        if missing:
            raise ValueError(f"roles without keys: {', '.join(sorted(missing))}")
        unknown = {k for role in self.roles.values() for k in role.keyids} - set(self.keys)
        if unknown:
            raise ValueError(f"roles name unknown keys: {', '.join(sorted(unknown))}")
        return self
