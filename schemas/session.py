"""Opening a session and streaming its log."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from schemas.base import Count, Name, Schema, Sha256
from schemas.container import ContainerRun
from schemas.training import TrainingConfig

Ed25519PublicKey = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="32 bytes, hex")]
SampleKey = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="32 bytes, hex")]
X25519PublicKey = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="32 bytes, hex")]
Nonce = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="32 random bytes, hex")]


class SampleCommitment(Schema):
    """Merkle root over the keyed hashes of an ordered set of samples (see auditkit.data)."""

    root: Sha256
    size: Annotated[int, Field(ge=1)]


class Environment(Schema):
    """What decides whether a replay can be exact: the machine class of the training process."""

    python: str
    torch: str
    torchvision: str
    timm: str
    auditkit: str
    platform: str
    cpu_capability: str
    threads: int
    device: str


class Attestation(Schema):
    """A hardware quote. It counts only for whoever has a verifier of its kind, and believes it."""

    kind: Name
    evidence: str = Field(max_length=1_000_000, description="base64")


class SessionRequest(Schema):
    """The developer's request, fixed before the nonce exists. Its digest is bound by the grant."""

    schema_version: Literal[1] = 1
    order_digest: Sha256 = Field(description="SHA-256 of the order's DSSE payload")
    developer: str = Field(min_length=1, max_length=200)
    config: TrainingConfig
    code_digest: Sha256 = Field(description="digest of the training code as it was loaded")
    container: ContainerRun | None = Field(default=None, description="None: not run in a container")
    pool: SampleCommitment
    test: SampleCommitment = Field(description="fresh test samples, never part of the pool")
    session_key: Ed25519PublicKey
    environment: Environment
    attestation: Attestation | None = None
    requested_at: AwareDatetime

    @property
    def image_digest(self) -> str | None:
        """Which image the training runs in; None outside a container."""
        return None if self.container is None else self.container.image.config_digest


class SplitSizes(Schema):
    """How many samples of the pool fall into each cohort."""

    told: Annotated[int, Field(ge=1)] = Field(description="D, told to T")
    silent: Count
    told_only: Count
    external: Count
    calibration: Count

    @property
    def pool(self) -> int:
        """Size of the pool."""
        return self.told + self.silent + self.told_only + self.external + self.calibration


class SessionGrant(Schema):
    """The auditor's answer: a nonce from which all randomness follows, and the key's certificate.

    Signed by the `session` role as an in-toto statement; the signature certifies `session_key`
    for this session and time span only.
    """

    schema_version: Literal[1] = 1
    session_id: Name
    session_number: Annotated[int, Field(ge=1)] = Field(
        description="how many sessions this order has had, this one included"
    )
    origin: str = Field(description="C2SP checkpoint origin: `<server>/sessions/<session_id>`")
    request_digest: Sha256
    order_digest: Sha256
    nonce: Nonce
    split: SplitSizes
    session_key: Ed25519PublicKey
    valid_from: AwareDatetime
    valid_until: AwareDatetime
    code_commitment: Sha256 | None = Field(
        default=None, description="to the secret of the membership codes; None: trained without"
    )


class ContinuationRequest(Schema):
    """Asks to go on in a fresh container, whose session key is new: no key leaves its container."""

    schema_version: Literal[1] = 1
    session_id: Name
    grant_digest: Sha256 = Field(description="SHA-256 of the grant's DSSE payload")
    container: ContainerRun
    session_key: Ed25519PublicKey
    environment: Environment
    requested_at: AwareDatetime


class SessionContinuation(Schema):
    """The auditor's answer: from a size of the log on, another key signs its checkpoints.

    Signed by the `session` role as an in-toto statement. It gives no new nonce and no more time.
    """

    schema_version: Literal[1] = 1
    session_id: Name
    number: Annotated[int, Field(ge=1)] = Field(description="1 for the first of a session")
    request_digest: Sha256 = Field(description="SHA-256 of the continuation request")
    grant_digest: Sha256
    log_size: Count = Field(
        description="records that the auditor holds; checkpoints of a larger size are signed by "
        "the new key"
    )
    session_key: Ed25519PublicKey
    granted_at: AwareDatetime


class SampleOpening(Schema):
    """What shows that one image is a committed sample of the pool. It opens no other sample."""

    schema_version: Literal[1] = 1
    session_id: Name
    index: Count = Field(description="in the pool")
    key: SampleKey
    label: Count
    proof: tuple[Sha256, ...] = Field(max_length=64, description="RFC 6962 inclusion proof")


class CodesRequest(Schema):
    """Asks for the membership codes, encrypted to a key that only the asking process has.

    The session key in force signs it, in a DSSE envelope of its own payload type.
    """

    schema_version: Literal[1] = 1
    session_id: Name
    ephemeral_key: X25519PublicKey


class AppendRequest(Schema):
    """One flush: records in order, and a checkpoint signed by the session key that covers them."""

    first: Count = Field(description="sequence number of the first record")
    records: tuple[str, ...] = Field(description="the exact record bytes (RFC 8785 JSON) as text")
    checkpoint: str = Field(description="C2SP signed note")


class AppendReceipt(Schema):
    """The auditor's answer to a flush: the same checkpoint, now cosigned."""

    checkpoint: str = Field(description="C2SP signed note with session signature and cosignature")
