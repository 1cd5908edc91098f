"""Does a request fit its order? One rule, one error; the server and every verifier run this."""

import math
from collections.abc import Callable
from datetime import datetime

from auditkit.evidence.errors import EvidenceError
from auditkit.evidence.image_signatures import verify_image_signature
from schemas import (
    AuditOrder,
    ImageIdentity,
    ImageSignature,
    SessionRequest,
    SplitFractions,
    SplitSizes,
    WeightRange,
)

# No set is larger than what JSON carries exactly; the reciprocal of the least rates is infinite.
MOST_COUNTED = 2.0**53


class PolicyError(EvidenceError):
    """The request asks for something that the order does not allow."""


class OrderNotInForceError(PolicyError):
    """The order has expired, or is not valid yet."""


class TooManySessionsError(PolicyError):
    """The order has had all its sessions: a developer must not choose among nonces."""


class DeveloperMismatchError(PolicyError):
    """The order was issued to another developer."""


class ImageNotAllowedError(PolicyError):
    """The container image is not on the order's list, and no signature speaks for it."""


class ContainerRequiredError(PolicyError):
    """The order demands a container, and the request has none."""


class CodeNotAllowedError(PolicyError):
    """The training code is not on the order's allow-list."""


class ArchitectureNotAllowedError(PolicyError):
    """The architecture is not on the order's list."""


class TapSetupNotAllowedError(PolicyError):
    """The tap setup is not on the order's list."""


class HeadNotAllowedError(PolicyError):
    """The MINT head is not on the order's list."""


class EvidenceNotAllowedError(PolicyError):
    """What T is to learn, membership or codes, is not on the order's list."""


class CustodyNotAllowedError(PolicyError):
    """Who is to hold T during the training is not on the order's list."""


class CustodyOutageError(PolicyError):
    """The auditor is to hold T, and the order lets a training go on without the auditor."""


class CodeLengthError(PolicyError):
    """The membership codes are shorter than ordered."""


class ModelDropoutError(PolicyError):
    """The Audited Model drops more than ordered."""


class AugmentationNotAllowedError(PolicyError):
    """The augmentation is not on the order's list."""


class TaskLossNotAllowedError(PolicyError):
    """The loss that trains M is not on the order's list."""


class LossWeightError(PolicyError):
    """A loss weight lies outside the ordered range."""


class DropoutError(PolicyError):
    """Dropout is above the ordered limit."""


class ExposureLimitError(PolicyError):
    """More epochs than the order allows."""


class StateIntervalError(PolicyError):
    """Full states would be saved less often than ordered."""


class ExternalBatchError(PolicyError):
    """A step would show T more samples of E than E has."""


class PoolTooSmallError(PolicyError):
    """The pool leaves too few samples in a cohort."""


def check_session_number(order: AuditOrder, number: int) -> None:
    """Check that an order has not had too many sessions, each with a nonce of its own.

    Raises:
        TooManySessionsError: it has.
    """
    if number > order.most_sessions:
        raise TooManySessionsError(
            f"session {number} asked for under order {order.order_id}, which allows "
            f"{order.most_sessions}; resume a session that was broken off, or ask the auditor for "
            "a new order"
        )


def split_sizes(fractions: SplitFractions, pool_size: int) -> SplitSizes:
    """Return the cohort sizes that an order's fractions give for a pool; the rest is told D.

    Raises:
        PoolTooSmallError: a cohort that the order wants would be empty.
    """
    sizes = {
        cohort: int(fraction * pool_size)
        for cohort, fraction in (
            ("silent", fractions.silent),
            ("told_only", fractions.told_only),
            ("external", fractions.external),
            ("calibration", fractions.calibration),
        )
    }
    told = pool_size - sum(sizes.values())
    wanted = {"external": fractions.external, "calibration": fractions.calibration}
    empty = [cohort for cohort, fraction in wanted.items() if fraction and not sizes[cohort]]
    if empty or told < 1:
        raise PoolTooSmallError(
            f"a pool of {pool_size} samples leaves no sample for {', '.join(empty) or 'D'}; "
            "use a larger pool"
        )
    return SplitSizes(told=told, **sizes)


def check_order_in_force(order: AuditOrder, now: datetime) -> None:
    """Check that `now` lies in the order's time span.

    Raises:
        OrderNotInForceError: it does not.
    """
    if not order.issued_at <= now <= order.expires_at:
        raise OrderNotInForceError(
            f"order {order.order_id} is in force from {order.issued_at:%Y-%m-%d %H:%M} to "
            f"{order.expires_at:%Y-%m-%d %H:%M} UTC, and it is {now:%Y-%m-%d %H:%M}; "
            "ask the auditor for a new order"
        )


def _check_developer(order: AuditOrder, request: SessionRequest) -> None:
    if request.developer != order.developer:
        raise DeveloperMismatchError(
            f"order {order.order_id} was issued to {order.developer!r}, the request comes from "
            f"{request.developer!r}; use an order issued to you"
        )


def check_image(
    order: AuditOrder, image: ImageIdentity, signature: ImageSignature | None = None
) -> None:
    """Check that the order allows an image: it lists it, or one of its keys has signed it.

    Raises:
        ImageNotAllowedError: the image is not listed, and no signature speaks for it.
        ImageSignatureError: the image is not listed, and its signature does not hold.
        ImageDocumentError: the same, and what was signed cannot even be read.
    """
    if image.config_digest in order.images:
        return
    if signature is None or not order.image_keys:
        raise ImageNotAllowedError(
            f"image {image.config_digest} is not among the {len(order.images)} images of order "
            f"{order.order_id}, and no signature by one of its {len(order.image_keys)} keys came "
            "with it; send the auditor its identity"
        )
    verify_image_signature(order.image_keys, image, signature)


def _check_image(order: AuditOrder, request: SessionRequest) -> None:
    if request.container is not None:
        check_image(order, request.container.image, request.container.signature)
    elif not order.allow_without_container:
        raise ContainerRequiredError(
            f"order {order.order_id} demands a container and the request has none; package the "
            "training, or ask for an order that allows runs without a container"
        )


def _check_code(order: AuditOrder, request: SessionRequest) -> None:
    if order.code_digests and request.code_digest not in order.code_digests:
        raise CodeNotAllowedError(
            f"training code {request.code_digest} is not on the list of order {order.order_id}; "
            "use the ordered version of the code, or send the auditor the new digest"
        )


def _check_model(order: AuditOrder, request: SessionRequest) -> None:
    architecture = request.config.model.architecture
    if order.architectures and architecture not in order.architectures:
        raise ArchitectureNotAllowedError(
            f"architecture {architecture!r} is not allowed; order {order.order_id} allows "
            f"{', '.join(order.architectures)}"
        )


def _check_taps(order: AuditOrder, request: SessionRequest) -> None:
    setup = request.config.taps.setup
    if setup not in order.tap_setups:
        raise TapSetupNotAllowedError(
            f"tap setup {setup!r} is not allowed; order {order.order_id} allows "
            f"{', '.join(order.tap_setups)}"
        )


def _check_head(order: AuditOrder, request: SessionRequest) -> None:
    head = request.config.mint.head
    if head not in order.heads:
        raise HeadNotAllowedError(
            f"MINT head {head!r} is not allowed; order {order.order_id} allows "
            f"{', '.join(order.heads)}"
        )


def _check_evidence(order: AuditOrder, request: SessionRequest) -> None:
    mint = request.config.mint
    if mint.evidence not in order.evidence_kinds:
        raise EvidenceNotAllowedError(
            f"mint.evidence {mint.evidence!r} is not allowed; order {order.order_id} allows "
            f"{', '.join(order.evidence_kinds)}"
        )
    if mint.evidence == "codes" and mint.code_length < order.least_code_length:
        raise CodeLengthError(
            f"membership codes of length {mint.code_length}; order {order.order_id} wants at least "
            f"{order.least_code_length}"
        )


def _check_custody(order: AuditOrder, request: SessionRequest) -> None:
    custody = request.config.mint.custody
    if custody not in order.custodies:
        raise CustodyNotAllowedError(
            f"mint.custody {custody!r} is not allowed; order {order.order_id} allows "
            f"{', '.join(order.custodies)}"
        )
    if custody == "auditor" and order.outage_policy == "continue-late":
        raise CustodyOutageError(
            "with mint.custody = 'auditor' no step can be done without the auditor's server; order "
            f"{order.order_id} has the outage policy 'continue-late', ask for one with 'pause' or "
            "'stop'"
        )


def _check_augmentation(order: AuditOrder, request: SessionRequest) -> None:
    augmentation = request.config.augmentation
    if augmentation not in order.augmentations:
        raise AugmentationNotAllowedError(
            f"augmentation {augmentation!r} is not allowed; order {order.order_id} allows "
            f"{', '.join(order.augmentations)}"
        )


def _check_task_loss(order: AuditOrder, request: SessionRequest) -> None:
    name = request.config.model.task_loss.name
    if name not in order.task_losses:
        raise TaskLossNotAllowedError(
            f"task loss {name!r} is not allowed; order {order.order_id} allows "
            f"{', '.join(order.task_losses)}"
        )


def _check_weights(order: AuditOrder, request: SessionRequest) -> None:
    def check(name: str, value: float, allowed: WeightRange) -> None:
        if not allowed.least <= value <= allowed.most:
            raise LossWeightError(
                f"{name} is {value:g}; order {order.order_id} allows "
                f"{allowed.least:g} to {allowed.most:g}"
            )

    check("task_weight", request.config.mint.task_weight, order.task_weight)
    check("mint_weight", request.config.mint.mint_weight, order.mint_weight)


def _check_model_dropout(order: AuditOrder, request: SessionRequest) -> None:
    for name, value in request.config.model.arguments.items():
        dropout = name.startswith(("drop", "attn_drop", "proj_drop", "pos_drop", "patch_drop"))
        if dropout and not _is_at_most(value, order.most_model_dropout):
            raise ModelDropoutError(
                f"model argument {name} = {value}; order {order.order_id} allows at most "
                f"{order.most_model_dropout:g} of dropout in M, since it hides members"
            )


def _is_at_most(value: object, most: float) -> bool:
    values = value if isinstance(value, tuple) else (value,)
    return all(isinstance(each, int | float) and each <= most for each in values)


def _check_dropout(order: AuditOrder, request: SessionRequest) -> None:
    if request.config.mint.dropout > order.most_dropout:
        raise DropoutError(
            f"dropout is {request.config.mint.dropout:g}; order {order.order_id} allows at most "
            f"{order.most_dropout:g}"
        )


def _check_exposure(order: AuditOrder, request: SessionRequest) -> None:
    if request.config.epochs > order.exposure.most_epochs:
        raise ExposureLimitError(
            f"{request.config.epochs} epochs asked for; order {order.order_id} allows at most "
            f"{order.exposure.most_epochs}"
        )


def _check_states(order: AuditOrder, request: SessionRequest) -> None:
    if request.config.state_interval_steps > order.most_state_interval_steps:
        raise StateIntervalError(
            f"states every {request.config.state_interval_steps} steps; order {order.order_id} "
            f"wants one at least every {order.most_state_interval_steps}"
        )


def _check_pool(order: AuditOrder, request: SessionRequest) -> None:
    sizes = split_sizes(order.split, request.pool.size)
    # A p-value is at least 1 / (|C| + 1); with a smaller C no verdict could ever say `member`.
    carrying = math.ceil(min(1.0 / order.false_positive_rate, MOST_COUNTED)) - 1
    least = max(order.least_calibration_samples, carrying)
    if sizes.calibration < least:
        raise PoolTooSmallError(
            f"a pool of {request.pool.size} leaves {sizes.calibration} calibration samples; order "
            f"{order.order_id} wants at least {order.least_calibration_samples}, and its "
            f"false-positive rate of {order.false_positive_rate:g} needs {carrying}; use a larger "
            "pool, or ask the auditor for another order"
        )


def _check_external_batch(order: AuditOrder, request: SessionRequest) -> None:
    external = split_sizes(order.split, request.pool.size).external
    if request.config.external_batch_size > external:
        raise ExternalBatchError(
            f"external_batch_size is {request.config.external_batch_size}, and order "
            f"{order.order_id} leaves {external} samples of E in this pool; choose at most that"
        )


RULES: tuple[Callable[[AuditOrder, SessionRequest], None], ...] = (
    _check_developer,
    _check_image,
    _check_code,
    _check_model,
    _check_taps,
    _check_head,
    _check_evidence,
    _check_custody,
    _check_augmentation,
    _check_task_loss,
    _check_weights,
    _check_dropout,
    _check_model_dropout,
    _check_exposure,
    _check_states,
    _check_pool,
    _check_external_batch,
)


def check_request(order: AuditOrder, request: SessionRequest, now: datetime) -> None:
    """Check a request against every rule of its order, its time span included.

    Raises:
        PolicyError: the subclass names the first rule that is broken.
        ImageSignatureError, ImageDocumentError: the image's signature does not hold.
    """
    check_order_in_force(order, now)
    check_rules(order, request)


def check_rules(order: AuditOrder, request: SessionRequest) -> None:
    """Check a request against every rule of its order but the order's time span.

    Raises:
        PolicyError: the subclass names the first rule that is broken.
        ImageSignatureError, ImageDocumentError: the image's signature does not hold.
    """
    for rule in RULES:
        rule(order, request)
