"""The rule that sets a T for codes: it fits every architecture of the paper."""

import pytest

from auditkit.mint.architectures import PAPER_ARCHITECTURES, model_for
from auditkit.mint.code_settings import WEIGHTS_PER_NUMBER, code_settings
from auditkit.mint.enhanced import EnhancedAuditedModel
from schemas import ModelConfig

SMALL = ModelConfig(
    architecture="resnet18",
    arguments={"layers": (1, 1, 1, 1), "channels": (16, 16, 32, 32)},
    classes=10,
    channels=1,
    height=16,
    width=16,
    stem_stride=1,
    stem_pool=False,
)


@pytest.mark.parametrize("architecture", PAPER_ARCHITECTURES)
def test_every_architecture_of_the_paper_gets_a_head_that_suits_it(architecture: str) -> None:
    _, mint = code_settings(model_for(architecture, 10, 3, 32, 32), members=5_000)
    assert mint.head == ("fully_connected" if architecture == "ViT" else "strided")
    assert mint.evidence == "codes"


@pytest.mark.parametrize("members", [100, 5_000, 60_000])
def test_t_has_room_for_the_codes_of_all_members(members: int) -> None:
    taps, mint = code_settings(SMALL, members)
    mint_model = EnhancedAuditedModel.build((SMALL, taps, mint), seed=1).mint
    weights = sum(parameter.numel() for parameter in mint_model.parameters())
    assert weights >= WEIGHTS_PER_NUMBER * members * mint.code_length
