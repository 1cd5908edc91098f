"""Each rule of an order, and the error that names it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditkit.evidence import policy
from auditkit.evidence.image_signatures import ImageSignerError
from schemas import (
    AuditOrder,
    Environment,
    ExposurePolicy,
    MintConfig,
    ModelConfig,
    OptimiserConfig,
    SampleCommitment,
    SessionRequest,
    SplitFractions,
    TapConfig,
    TrainingConfig,
    WeightRange,
)
from schemas.training import TaskLossConfig
from tests.evidence.contained import contained_run, identity, image_key, pem, signed_image

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DIGEST, OTHER_DIGEST = "ab" * 32, "cd" * 32
IMAGE = identity().config_digest
KEY, FOREIGN_KEY = image_key("trusted"), image_key("foreign")


def order(**changes: Any) -> AuditOrder:
    return AuditOrder(
        **{
            "order_id": "digits-2026",
            "auditor": "The Auditor",
            "developer": "Example Imaging Ltd",
            "purpose": "check a classifier",
            "issued_at": NOW - timedelta(days=1),
            "expires_at": NOW + timedelta(days=1),
            "split": SplitFractions(external=0.25, calibration=0.25),
            "allow_without_container": True,
            **changes,
        }
    )


def request(config: dict[str, Any] | None = None, **changes: Any) -> SessionRequest:
    model = ModelConfig(architecture="resnet18", classes=10, channels=1, height=8, width=8)
    return SessionRequest(
        **{
            "order_digest": DIGEST,
            "developer": "Example Imaging Ltd",
            "config": TrainingConfig(
                **{
                    "name": "digits",
                    "model": model,
                    "optimiser": OptimiserConfig(learning_rate=0.1),
                    "epochs": 2,
                    "batch_size": 16,
                    "external_batch_size": 4,
                    **(config or {}),
                }
            ),
            "code_digest": DIGEST,
            "container": None,
            "pool": SampleCommitment(root=DIGEST, size=1000),
            "test": SampleCommitment(root=DIGEST, size=100),
            "session_key": DIGEST,
            "environment": Environment(
                python="3", torch="2", torchvision="0", timm="1", auditkit="0", platform="Linux",
                cpu_capability="AVX2", threads=1, device="cpu",
            ),
            "requested_at": NOW,
            **changes,
        }
    )  # fmt: skip


def test_a_request_that_fits_is_accepted() -> None:
    policy.check_request(order(), request(), NOW)


@pytest.mark.parametrize(
    ("ordered", "requested"),
    [
        ({"images": (IMAGE,), "allow_without_container": False}, {"container": contained_run()}),
        ({"image_keys": (pem(KEY),)}, {"container": contained_run(signature=signed_image(KEY))}),
        ({"code_digests": (OTHER_DIGEST, DIGEST)}, {}),
        ({"architectures": ("resnet18",)}, {}),
        ({"exposure": ExposurePolicy(most_epochs=2)}, {}),
        ({"mint_weight": WeightRange(least=1.0, most=1.0)}, {}),
        ({"most_dropout": 0.0}, {}),
        ({"least_calibration_samples": 250}, {}),
        (
            {"least_code_length": 256},
            {"config": {"mint": MintConfig(evidence="codes", code_length=256)}},
        ),
        ({"least_code_length": 4096}, {}),
    ],
    ids=[
        "image",
        "signed image",
        "code",
        "architecture",
        "epochs",
        "weight",
        "dropout",
        "calibration",
        "codes",
        "no codes where they would have to be long",
    ],
)
def test_what_lies_just_within_an_order_is_accepted(
    ordered: dict[str, Any], requested: dict[str, Any]
) -> None:
    policy.check_request(order(**ordered), request(**requested), NOW)


def dropping(rate: float | str) -> ModelConfig:
    return ModelConfig(
        architecture="resnet18",
        arguments={"drop_path_rate": rate},
        classes=10,
        channels=1,
        height=8,
        width=8,
    )


CASES: dict[str, tuple[dict[str, Any], SessionRequest, type[policy.PolicyError]]] = {
    "developer": ({"developer": "Someone Else"}, request(), policy.DeveloperMismatchError),
    "image missing": (
        {"allow_without_container": False},
        request(),
        policy.ContainerRequiredError,
    ),
    "image unknown": (
        {"images": (OTHER_DIGEST,)},
        request(container=contained_run()),
        policy.ImageNotAllowedError,
    ),
    "image without the signature that would do": (
        {"image_keys": (pem(KEY),)},
        request(container=contained_run()),
        policy.ImageNotAllowedError,
    ),
    "signed image where no key is trusted": (
        {"images": (OTHER_DIGEST,)},
        request(container=contained_run(signature=signed_image(KEY))),
        policy.ImageNotAllowedError,
    ),
    "image where none is listed": (
        {},
        request(container=contained_run()),
        policy.ImageNotAllowedError,
    ),
    "code": ({"code_digests": (OTHER_DIGEST,)}, request(), policy.CodeNotAllowedError),
    "architecture": (
        {"architectures": ("resnet50",)},
        request(),
        policy.ArchitectureNotAllowedError,
    ),
    "own architecture": (
        {"architectures": ("resnet18",)},
        request(
            {
                "model": ModelConfig(
                    architecture="custom:mine", classes=10, channels=1, height=8, width=8
                )
            }
        ),
        policy.ArchitectureNotAllowedError,
    ),
    "taps": (
        {"tap_setups": ("middle",)},
        request({"taps": TapConfig(setup="output")}),
        policy.TapSetupNotAllowedError,
    ),
    "head": (
        {"heads": ("convolutional",)},
        request({"mint": MintConfig(head="fully_connected")}),
        policy.HeadNotAllowedError,
    ),
    "augmentation": (
        {"augmentations": ("none",)},
        request({"augmentation": "shift"}),
        policy.AugmentationNotAllowedError,
    ),
    "codes": (
        {"evidence_kinds": ("membership",)},
        request({"mint": MintConfig(evidence="codes")}),
        policy.EvidenceNotAllowedError,
    ),
    "no codes": (
        {"evidence_kinds": ("codes",)},
        request(),
        policy.EvidenceNotAllowedError,
    ),
    "short codes": (
        {"least_code_length": 256},
        request({"mint": MintConfig(evidence="codes", code_length=248)}),
        policy.CodeLengthError,
    ),
    "task loss": (
        {"task_losses": ("softmax",)},
        request(
            {
                "model": ModelConfig(
                    architecture="resnet18",
                    classes=10,
                    channels=1,
                    height=8,
                    width=8,
                    task_loss=TaskLossConfig(name="arcface"),
                )
            }
        ),
        policy.TaskLossNotAllowedError,
    ),
    "task weight": (
        {},
        request({"mint": MintConfig(task_weight=1.5)}),
        policy.LossWeightError,
    ),
    "no MINT training": (
        {},
        request({"mint": MintConfig(mint_weight=0.0)}),
        policy.LossWeightError,
    ),
    "MINT weight too large": (
        {},
        request({"mint": MintConfig(mint_weight=10.5)}),
        policy.LossWeightError,
    ),
    "dropout of M": (
        {"most_model_dropout": 0.2},
        request({"model": dropping(0.3)}),
        policy.ModelDropoutError,
    ),
    "dropout of M in words": (
        {"most_model_dropout": 0.2},
        request({"model": dropping("much")}),
        policy.ModelDropoutError,
    ),
    "dropout": ({}, request({"mint": MintConfig(dropout=0.6)}), policy.DropoutError),
    "epochs": (
        {"exposure": ExposurePolicy(most_epochs=1)},
        request(),
        policy.ExposureLimitError,
    ),
    "states": (
        {"most_state_interval_steps": 99},
        request({"state_interval_steps": 100}),
        policy.StateIntervalError,
    ),
    "calibration samples": (
        {"least_calibration_samples": 251},
        request(),
        policy.PoolTooSmallError,
    ),
    "calibration samples for the order's own rate": (
        {"false_positive_rate": 0.001},
        request(),
        policy.PoolTooSmallError,
    ),
    "calibration samples for the least rate of all": (
        {"false_positive_rate": 5e-324},
        request(),
        policy.PoolTooSmallError,
    ),
    "T held by the auditor": (
        {"custodies": ("developer",), "outage_policy": "pause"},
        request({"mint": MintConfig(custody="auditor")}),
        policy.CustodyNotAllowedError,
    ),
    "T held by the auditor, and going on without the auditor": (
        {"outage_policy": "continue-late"},
        request({"mint": MintConfig(custody="auditor")}),
        policy.CustodyOutageError,
    ),
    "empty cohort": (
        {},
        request(pool=SampleCommitment(root=DIGEST, size=3)),
        policy.PoolTooSmallError,
    ),
    "more of E in a step than E has": (
        {},
        request({"external_batch_size": 2**53 - 1}),
        policy.ExternalBatchError,
    ),
    "expired": ({"expires_at": NOW - timedelta(minutes=1)}, request(), policy.OrderNotInForceError),
    "not yet valid": (
        {"issued_at": NOW + timedelta(minutes=1)},
        request(),
        policy.OrderNotInForceError,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_rule_has_its_error(name: str) -> None:
    ordered, requested, error = CASES[name]
    with pytest.raises(error) as caught:
        policy.check_request(order(**ordered), requested, NOW)
    assert type(caught.value) is error
    assert str(caught.value)


def test_every_rule_and_every_error_is_in_the_table() -> None:
    errors = {error for _, _, error in CASES.values()} | {policy.TooManySessionsError}
    assert errors == set(policy.PolicyError.__subclasses__())


def test_a_signature_by_another_key_lets_no_image_in() -> None:
    run = contained_run(signature=signed_image(FOREIGN_KEY))
    with pytest.raises(ImageSignerError):
        policy.check_request(order(image_keys=(pem(KEY),)), request(container=run), NOW)


def test_a_listed_image_needs_no_signature_and_a_bad_one_does_not_harm_it() -> None:
    run = contained_run(signature=signed_image(FOREIGN_KEY))
    listed = order(images=(IMAGE,), image_keys=(pem(KEY),))
    policy.check_request(listed, request(container=run), NOW)


def test_the_list_names_configurations_and_not_manifests() -> None:
    listed = order(images=(identity().manifest_digest,))
    with pytest.raises(policy.ImageNotAllowedError):
        policy.check_image(listed, identity())


def test_an_order_has_a_limited_number_of_sessions() -> None:
    policy.check_session_number(order(most_sessions=2), 2)
    with pytest.raises(policy.TooManySessionsError):
        policy.check_session_number(order(most_sessions=2), 3)


def test_the_rules_do_not_judge_the_time() -> None:
    expired = order(expires_at=NOW - timedelta(hours=1))
    policy.check_rules(expired, request())


@given(
    st.integers(4, 100_000),
    st.tuples(*[st.integers(0, 24) for _ in range(4)]).map(lambda p: [x / 100 for x in p]),
)
def test_a_split_takes_up_the_whole_pool(size: int, shares: list[float]) -> None:
    names = ("external", "calibration", "silent", "told_only")
    fractions = SplitFractions(**dict(zip(names, shares, strict=True)))
    try:
        sizes = policy.split_sizes(fractions, size)
    except policy.PoolTooSmallError:
        assert any(0 < share * size < 1 for share in shares[:2])
        return
    assert sizes.pool == size
    for name, share in zip(names, shares, strict=True):
        assert 0 <= share * size - getattr(sizes, name) < 1


def test_an_order_without_silent_and_external_samples_can_be_split() -> None:
    sizes = policy.split_sizes(SplitFractions(external=0.0, calibration=0.5), 10)
    assert (sizes.told, sizes.external, sizes.calibration) == (5, 0, 5)
