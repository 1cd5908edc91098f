"""Scores of codes, and the loss that teaches them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from auditkit.mint.codes import (
    blind_scores,
    own_code_p_values,
    own_scores,
)
from auditkit.mint.errors import CodeShapeError, TapShapeError
from auditkit.mint.heads import FullyConnectedHead, build_head
from auditkit.mint.objective import (
    AGREEMENT,
    CONTRAST_WEIGHT,
    NO_CODE,
    NONE_COSINE,
    NONE_MARGIN,
    Objective,
    code_loss,
)
from schemas import MintConfig

GENERATOR = np.random.default_rng(11)
CODES = GENERATOR.standard_normal((40, 64)).astype(np.float32)


def test_a_sample_that_says_its_code_has_the_norm_of_the_code_as_its_score() -> None:
    scores = own_scores(3.0 * CODES, CODES)
    assert np.allclose(scores, np.linalg.norm(CODES, axis=1), rtol=1e-5)
    assert np.allclose(own_scores(-CODES, CODES), -scores)
    found = blind_scores(CODES[7:20], CODES)
    assert found.members.tolist() == list(range(7, 20))
    assert np.allclose(found.scores, scores[7:20], rtol=1e-5)


def test_an_output_of_nothing_scores_nothing() -> None:
    assert own_scores(np.zeros((2, 64)), CODES[:2]).tolist() == [0.0, 0.0]


def test_the_best_of_many_codes_is_found_in_pieces_as_at_once() -> None:
    outputs = GENERATOR.standard_normal((1203, 64)).astype(np.float32)
    found = blind_scores(outputs, CODES)
    z = outputs / np.linalg.norm(outputs, axis=1, keepdims=True) @ CODES.T
    assert np.array_equal(found.members, z.argmax(axis=1))
    assert np.allclose(found.scores, z.max(axis=1), atol=1e-4)


@pytest.mark.parametrize(
    ("outputs", "codes"),
    [((3, 64), (2, 64)), ((3, 64), (3, 32)), ((3,), (3, 64))],
)
def test_codes_that_do_not_fit_are_refused(
    outputs: tuple[int, ...], codes: tuple[int, int]
) -> None:
    with pytest.raises(CodeShapeError, match="found"):
        own_scores(np.zeros(outputs), np.zeros(codes, dtype=np.float32))


@pytest.mark.parametrize("codes", [(0, 64), (5, 32)])
def test_no_member_can_be_named_without_codes(codes: tuple[int, int]) -> None:
    with pytest.raises(CodeShapeError, match="at least one"):
        blind_scores(np.zeros((3, 64)), np.zeros(codes, dtype=np.float32))


@given(st.floats(-30, 60))
def test_the_bound_is_a_p_value(z: float) -> None:
    p = float(own_code_p_values([z])[0])
    assert 0 < p <= 1
    if 0.01 < z < 35:
        assert math.sqrt(-2.0 * math.log(p)) == pytest.approx(z)


def test_outputs_that_say_codes_all_have_the_norm_of_a_code() -> None:
    config = MintConfig(evidence="codes", code_length=96, hidden=(32,), head="fully_connected")
    head = FullyConnectedHead([(4, 3, 3)], config)
    outputs = head([torch.randn(5, 4, 3, 3)])
    assert outputs.shape == (5, 96)
    assert torch.allclose(outputs.norm(dim=1), torch.full((5,), math.sqrt(96)))


def test_the_loss_is_smallest_for_the_right_answers() -> None:
    members = torch.from_numpy(CODES)
    own = torch.tensor([3, 11, NO_CODE, NO_CODE])
    nobody = torch.randn(2, 64, generator=torch.Generator().manual_seed(2))
    right, named = code_loss(torch.cat((members[[3, 11]], nobody)), own, members)
    assert named == 1.0
    swapped, none_named = code_loss(torch.cat((members[[11, 3]], nobody)), own, members)
    echoed, _ = code_loss(torch.cat((members[[3, 11]], members[[5, 6]])), own, members)
    assert none_named == 0.0
    assert right < min(swapped, echoed)


def test_the_loss_does_not_care_how_loud_an_answer_is() -> None:
    members = torch.from_numpy(CODES)
    outputs = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    own = torch.tensor([1, NO_CODE, NO_CODE])
    quiet, loud = (code_loss(factor * outputs, own, members)[0] for factor in (1.0, 50.0))
    assert quiet.item() == pytest.approx(loud.item(), rel=1e-5)


def test_strangers_are_to_be_answered_alike_in_both_views() -> None:
    members = torch.from_numpy(CODES)
    views = torch.randn(4, 64, generator=torch.Generator().manual_seed(7))
    own = torch.full((4,), NO_CODE)
    alike, _ = code_loss(torch.cat((views[:2], views[:2])), own, members)
    apart, _ = code_loss(views, own, members)
    assert alike < apart


@pytest.mark.parametrize("own", [[NO_CODE, NO_CODE], [4, 5]])
def test_batches_of_one_kind_have_a_loss(own: list[int]) -> None:
    outputs = torch.randn(2, 64, requires_grad=True)
    loss, named = code_loss(outputs, torch.tensor(own), torch.from_numpy(CODES))
    loss.backward()
    assert outputs.grad is not None
    assert outputs.grad.abs().sum() > 0
    assert 0 <= named <= 1


def test_a_small_head_learns_codes_and_keeps_strangers_silent() -> None:
    torch.manual_seed(0)
    config = MintConfig(evidence="codes", code_length=64, hidden=(256,), head="fully_connected")
    head = FullyConnectedHead([(16, 2, 2)], config)
    maps = torch.randn(40 + 400 + 400, 16, 2, 2)
    members, external, fresh = maps[:40], maps[40:440], maps[440:]
    objective = Objective(0.0, 1.0, torch.from_numpy(CODES))
    own = torch.cat((torch.arange(40), torch.full((100,), NO_CODE)))
    told = torch.cat((torch.ones(40), torch.zeros(100))).long()
    task, labels = torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)
    optimiser = torch.optim.Adam(head.parameters(), lr=3e-3)
    for step in range(150):
        rows = external[torch.arange(50) * 8 + step % 8].repeat(2, 1, 1, 1)
        losses = objective(task, labels, head([torch.cat((members, rows))]), told, own)
        optimiser.zero_grad()
        losses.total.backward()  # type: ignore[no-untyped-call] # torch
        optimiser.step()
    with torch.no_grad():
        own_z = own_scores(head([members]).numpy(), CODES)
        strangers = blind_scores(head([fresh]).numpy(), CODES).scores
    assert losses.mint_accuracy == 1.0
    assert own_z.min() > 4.0  # provable p-values below 0.001
    assert own_z.min() > np.quantile(strangers, 0.99)


def test_cosines_are_what_the_contrast_compares() -> None:
    members = torch.from_numpy(CODES[:2])
    outputs = torch.from_numpy(CODES[:1])
    loss, _ = code_loss(outputs, torch.tensor([0]), members)
    cosine = functional.cosine_similarity(members[0], members[1], dim=0).item()
    none = math.log(2) + NONE_MARGIN
    scale = none / NONE_COSINE
    wrong = math.exp(scale * (cosine - 1.0)) + math.exp(none - scale)
    contrast = CONTRAST_WEIGHT * math.log1p(wrong)
    assert loss.item() == pytest.approx(1.0 - AGREEMENT + contrast, rel=1e-4, abs=1e-6)


def test_members_are_not_answered_more_surely_than_needed() -> None:
    code, other = torch.from_numpy(CODES[:1]), torch.from_numpy(CODES[1:2])
    aside = functional.normalize(other - (other @ code.T) / (code @ code.T) * code, dim=1)

    def agreement(cosine: float) -> float:
        sure = cosine * functional.normalize(code, dim=1)
        outputs = (sure + math.sqrt(1.0 - cosine**2) * aside).requires_grad_()
        code_loss(outputs, torch.tensor([0]), code)[0].backward()
        assert outputs.grad is not None
        return (outputs.grad @ code.T).item()

    assert agreement(AGREEMENT - 0.1) < 0 < agreement(0.99)


@pytest.mark.parametrize(
    "shapes", [[(8, 16, 16)], [(8, 7, 7), (4, 3, 5)], [(3, 28, 28), (5, 2, 2)]]
)
@pytest.mark.parametrize("evidence", ["codes", "membership"])
def test_strided_heads_read_maps_of_every_size(
    shapes: list[tuple[int, int, int]], evidence: str
) -> None:
    config = MintConfig.model_validate(
        {"evidence": evidence, "code_length": 64, "hidden": (16,), "channels": 4, "head": "strided"}
    )
    head = build_head(shapes, config)
    outputs = head([torch.randn(3, *shape) for shape in shapes])
    assert outputs.shape == ((3, 64) if evidence == "codes" else (3,))


def test_strided_heads_refuse_tokens() -> None:
    with pytest.raises(TapShapeError, match="fully_connected"):
        build_head([(50, 64)], MintConfig(head="strided"))
