"""Attacks on a session whose T the auditor holds, by a developer who has every key of their own.

What the server itself refuses is in `tests/server/test_mint_custody.py`. Not caught by any of it:
activations of other samples than the nonce prescribes. T then learns of samples that M never saw.
Doing M's part anew would give other activations than the log names; no command does that yet.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from attacks import Attack
from forge import Plot, change, digest_of, is_kind, is_state, is_step, stage
from safetensors.numpy import save
from test_attacks import NOT_DONE, outcomes, switch_off

from auditkit.evidence.canonical import sha256_hex
from schemas import AssuranceLevel, MintConfig, Record, SealRecord, StateRecord, StepRecord

M = {"audited.weight": np.arange(4, dtype=np.float32)}
T = {"mint.weight": np.arange(3, dtype=np.float32)}
OTHER_M = {"audited.weight": np.ones(4, dtype=np.float32)}
OTHER_T = {"mint.weight": np.ones(3, dtype=np.float32)}
M_DIGEST, T_DIGEST = sha256_hex(save(M)), sha256_hex(save(T))
LAST_STEP = 12
HELD = MintConfig(custody="auditor")
PARTS = {"audited_weights_digest": M_DIGEST, "mint_weights_digest": T_DIGEST}


def name_exchanges(story: list[Record]) -> list[Record]:
    """What an honest agent records where the auditor holds T."""

    def named(record: Record) -> Record:
        fields: dict[str, Any] = {}
        match record:
            case StepRecord():
                fields = {
                    "activations": digest_of(f"activations {record.step}"),
                    "gradient": digest_of(f"gradient {record.step}"),
                }
            case StateRecord():
                fields = {
                    "mint_state_digest": digest_of(f"state of T at {record.step}"),
                    "mint_weights_digest": digest_of(f"T at {record.step}"),
                }
            case SealRecord():
                fields = PARTS
        return record.model_copy(update=fields)

    end = change(is_state(LAST_STEP), weights_digest=M_DIGEST, mint_weights_digest=T_DIGEST)
    return end([named(record) for record in story])


def held(
    *story: Callable[[list[Record]], list[Record]],
    weights: dict[str, np.ndarray] | None = None,
    **changes: Any,
) -> Plot:
    """An honest session whose T the auditor holds, and what the attacker makes of it."""
    return Plot(
        **{
            "order": {"outage_policy": "pause"},
            "config": {"mint": HELD},
            "weights": {**M, **T} if weights is None else weights,
            "story": (name_exchanges, *story),
            **changes,
        }
    )


ATTACKS = (
    Attack(
        "a step is done without asking T, with a gradient of the developer's own making",
        "mint-custody",
        "CustodyError",
        held(change(is_step(3), activations=None, gradient=None)),
    ),
    Attack(
        "T is asked, and its gradient is not named, so that another one may have been used",
        "mint-custody",
        "CustodyError",
        held(change(is_step(3), gradient=None)),
    ),
    Attack(
        "a state does not say where T stood, so that it can be put anywhere",
        "mint-custody",
        "CustodyError",
        held(change(is_state(5), mint_state_digest=None)),
    ),
    Attack(
        "a developer who held T pretends that the auditor did",
        "mint-custody",
        "CustodyError",
        Plot(story=(change(is_step(1), activations=digest_of("a"), gradient=digest_of("g")),)),
    ),
    Attack(
        "M is exchanged after the training, before M+ is put together",
        "states",
        "StateError",
        held(
            change(is_kind(SealRecord), audited_weights_digest=sha256_hex(save(OTHER_M))),
            weights={**OTHER_M, **T},
        ),
    ),
    Attack(
        "T is exchanged after the training",
        "states",
        "StateError",
        held(
            change(is_kind(SealRecord), mint_weights_digest=sha256_hex(save(OTHER_T))),
            weights={**M, **OTHER_T},
        ),
    ),
    Attack(
        "M+ is put together from another M than the one that the seal names",
        "sealed-weights",
        "SealedWeightsError",
        held(weights={**OTHER_M, **T}),
    ),
    Attack(
        "M+ is put together from another T than the one that the seal names",
        "sealed-weights",
        "SealedWeightsError",
        held(weights={**M, **OTHER_T}),
    ),
    Attack(
        "T is to be held by somebody whom the order does not allow",
        "request-within-policy",
        "CustodyNotAllowedError",
        held(order={"outage_policy": "pause", "custodies": ("developer",)}),
    ),
    Attack(
        "the training is to go on without the auditor's T while the server is away",
        "request-within-policy",
        "CustodyOutageError",
        held(order={}),
    ),
)

every_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)


def test_an_honest_session_reaches_level_1() -> None:
    report = stage(held()).report()
    assert outcomes(report, "failed") == set()
    assert outcomes(report, "not_checked") == NOT_DONE
    assert report.level == AssuranceLevel.L1
    (found,) = [finding for finding in report.findings if finding.check == "mint-custody"]
    assert "the auditor held T; 12 exchanges" in found.detail


@every_attack
def test_the_attack_is_caught(attack: Attack) -> None:
    report = stage(attack.plot).report()
    assert outcomes(report, "failed") == attack.failing
    (found,) = [finding for finding in report.findings if finding.check == attack.check]
    assert found.error == attack.error
    assert report.level == AssuranceLevel.L0


@every_attack
def test_without_its_check_the_attack_succeeds(
    attack: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch_off(monkeypatch, attack.failing)
    assert stage(attack.plot).report().level == AssuranceLevel.L1


@pytest.mark.parametrize("field", ["audited_weights_digest", "mint_weights_digest"])
def test_a_seal_without_a_part_s_digest_is_caught(field: str) -> None:
    report = stage(held(change(is_kind(SealRecord), **{field: None}))).report()
    assert "mint-custody" in outcomes(report, "failed")


def test_weights_that_cannot_be_taken_apart_are_not_the_sealed_ones() -> None:
    report = stage(held(weights={"weight": np.arange(4, dtype=np.float32)})).report()
    assert "sealed-weights" in outcomes(report, "failed")
