"""One pass for all members equals one adapter at a time through PEFT."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedModel

from elrea.data.batches import pad
from elrea.errors import BackboneError
from elrea.method.ensemble.joint import Adapter, JointModel
from elrea.models.adapter_shape import Lora
from elrea.models.lora import attach, set_state
from tests.method.features.by_hand import prompts
from tests.models.builders import BUILDERS, PAD, random_adapter

SOME = {"llama": ["q_proj", "down_proj"], "gpt2": ["c_attn"], "gemma2": ["o_proj"]}
IDS, MASK = pad([prompt.prompt for prompt in prompts(5)], PAD)
PLACES = torch.nonzero(MASK.flatten())[:, 0]


def members(kind: str) -> list[Adapter | None]:
    """Different ranks, scales and layers, and the backbone alone in their midst."""
    shapes = [Lora(r=2), Lora(r=5, alpha=3.0), None, Lora(r=1, targets=SOME[kind], dropout=0.5)]
    return [random_adapter(kind, s, seed) if s else None for seed, s in enumerate(shapes, 1)]


def alone(kind: str, member: Adapter | None) -> torch.Tensor:
    """Logits at PLACES with PEFT's own forward, the padding masked."""
    backbone = BUILDERS[kind]()
    model: PreTrainedModel | PeftModel = backbone
    if member is not None:
        model = attach(backbone, member[1], 9)
        set_state(model, member[0])
    with torch.no_grad():
        return model(input_ids=IDS, attention_mask=MASK.long()).logits.flatten(0, 1)[PLACES]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_joint_logits_equal_one_adapter_at_a_time(kind: str) -> None:
    crowd = members(kind)
    got = JointModel(BUILDERS[kind](), crowd).logits(IDS, PLACES)
    assert got.shape == (4, len(PLACES), 40) and got.dtype == torch.float32
    for row, member in zip(got, crowd, strict=True):
        torch.testing.assert_close(row, alone(kind, member), rtol=1e-4, atol=1e-4)
    gaps = [float((got[i] - got[j]).abs().max()) for i in range(4) for j in range(i)]
    assert min(gaps) > 0.01, "two members have the same logits: the test shows nothing"


def test_a_single_member_and_only_backbones() -> None:
    backbone = BUILDERS["llama"]()
    bare = alone("llama", None)
    for count in (1, 3):
        got = JointModel(backbone, [None] * count).logits(IDS, PLACES)
        for row in got:
            torch.testing.assert_close(row, bare, rtol=1e-4, atol=1e-5)
    member = random_adapter("llama", Lora(r=3), 4)
    one = JointModel(backbone, [member]).logits(IDS, PLACES)[0]
    torch.testing.assert_close(one, alone("llama", member), rtol=1e-4, atol=1e-4)


def test_places_keep_their_order_and_may_repeat() -> None:
    joint = JointModel(BUILDERS["llama"](), members("llama"))
    every = joint.logits(IDS, torch.arange(IDS.numel()))
    some = torch.tensor([7, 3, 3, 0])
    torch.testing.assert_close(joint.logits(IDS, some), every[:, some], rtol=1e-4, atol=1e-5)


def test_the_backbone_is_left_as_it_was() -> None:
    backbone = BUILDERS["gpt2"]().train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    joint = JointModel(backbone, members("gpt2"))
    assert not backbone.training
    joint.logits(IDS, PLACES)
    with pytest.raises(IndexError):
        joint.logits(torch.full((1, 2), 10_000), torch.tensor([0]))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in backbone.modules())
    after = backbone.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_an_adapter_of_another_backbone_is_refused() -> None:
    with pytest.raises(BackboneError, match=r"a layer 'base_model\.model\..*' .* lacks"):
        JointModel(BUILDERS["llama"](), [random_adapter("gpt2", Lora(r=2), 0)])
