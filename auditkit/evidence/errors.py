"""Typed errors of the evidence core: one class per rule that can be violated."""


class EvidenceError(Exception):
    """Base of every error of `auditkit.evidence`: the evidence, or its form, does not hold."""


class CanonicalFormError(EvidenceError):
    """A document has no RFC 8785 form, or the bytes are not strict JSON."""


class TreeIndexError(EvidenceError):
    """A leaf index or tree size lies outside the tree."""


class HashLengthError(EvidenceError):
    """A hash is not exactly 32 bytes long."""


class InclusionProofError(EvidenceError):
    """A leaf is not proven to be in the tree."""


class ConsistencyProofError(EvidenceError):
    """The newer tree is not proven to extend the older one."""


class FrontierFormatError(EvidenceError):
    """Stored bytes are not a frontier."""


class KeyFormatError(EvidenceError):
    """Bytes or text are not an Ed25519 key."""


class WeakKeyError(EvidenceError):
    """A public key has small order or a second encoding, so signatures under it prove nothing."""


class SignatureError(EvidenceError):
    """A signature does not verify."""


class NoteFormatError(EvidenceError):
    """Bytes are not a C2SP signed note."""


class CheckpointFormatError(EvidenceError):
    """A note's text is not a C2SP checkpoint."""


class VerifierKeyError(EvidenceError):
    """Text is not a C2SP verifier key of a supported type."""


class AmbiguousKeyError(EvidenceError):
    """Two different known keys share one name and key hash."""


class CosignatureTimeError(EvidenceError):
    """A cosignature's timestamp lies outside the range of the specification."""


class UnsignedNoteError(EvidenceError):
    """A note carries no signature by any known key."""


class EnvelopeFormatError(EvidenceError):
    """Bytes are not a DSSE envelope."""


class PayloadTypeError(EvidenceError):
    """An envelope holds another type of payload than the reader understands."""


class ThresholdError(EvidenceError):
    """Fewer different trusted keys signed than the threshold demands."""


class StatementError(EvidenceError):
    """A payload is not the expected in-toto statement."""


class ImageDocumentError(EvidenceError):
    """A text is not the document of a container image that it should be."""


class TrustRootError(EvidenceError):
    """Base of what can be wrong with a trust root."""


class TrustRootFormatError(TrustRootError):
    """The bytes are not a trust root, or its keys are not what their identifiers say."""


class TrustRootSignatureError(TrustRootError):
    """The trust root is not signed by enough keys of its root role."""


class TrustRootExpiredError(TrustRootError):
    """The trust root is no longer valid."""


class TrustRootVersionError(TrustRootError):
    """A version of the trust root is another auditor's."""


class TrustRootForkError(TrustRootError):
    """Two histories of one trust root: a version is not the one that is known or named."""


class TrustRootGapError(TrustRootError):
    """Versions of the trust root are missing between others."""


class TrustRootOrderError(TrustRootError):
    """Versions of the trust root are not in the order of their numbers and dates."""


class TrustRootRollbackError(TrustRootError):
    """An older version of the trust root was offered than the one that is known."""


class TrustRoleMissingError(TrustRootError):
    """The trust root gives no key for the role that a signature needs."""


class TrustRootNotInForceError(EvidenceError):
    """A document is older than every version of the trust root that is known."""


class RevokedKeyError(EvidenceError):
    """A signature counts for nothing because its key was revoked."""


class BundleError(EvidenceError):
    """Base of what can be wrong with an evidence bundle."""


class BundleFormatError(BundleError):
    """The file is not a ZIP archive of the exact form that bundles have."""


class BundleMemberError(BundleError):
    """A member is unknown, missing, repeated or out of order."""


class BundleSizeError(BundleError):
    """The bundle or one of its members is larger than allowed."""


class BundleChecksumError(BundleError):
    """A member's bytes do not match its checksum."""


class BundleContentError(BundleError):
    """A member's content is not of the form that its name promises."""
