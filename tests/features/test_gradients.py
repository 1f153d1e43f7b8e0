"""Per-example gradients against single backward passes and against vmap(grad)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy
from transformers.modeling_layers import GradientCheckpointingLayer

from elrea.adapters.lora import Lora, attach, parameters, set_state, state
from elrea.data.batches import pad
from elrea.data.prompts import Encoded
from elrea.features.gradients import PerExampleGradients, prompt_loss
from tests.adapters.builders import BUILDERS, PAD, random_state, train
from tests.features import by_hand

KINDS = ["llama", "gpt2", "gemma2"]


def adapted(kind: str, attention: str | None = None) -> PeftModel:
    """A model whose adapter is far from its start, so that both A and B get gradients."""
    backbone = BUILDERS[kind]()
    if attention:
        backbone.set_attn_implementation(attention)
    model = attach(backbone, Lora(r=2, dropout=0.5), 0)
    set_state(model, {name: tensor * 0.3 for name, tensor in random_state(model).items()})
    return model


def batch(prompts: list[Encoded]) -> tuple[Tensor, Tensor, Tensor]:
    ids, mask = pad([prompt.prompt for prompt in prompts], PAD)
    carries = mask.clone()
    for row, prompt in enumerate(prompts):
        for place, flag in enumerate(prompt.loss_mask or ()):
            carries[row, place] = flag
    return ids, mask, carries


def close(got: Tensor, wanted: np.ndarray) -> None:
    scale = np.abs(wanted).max()
    assert scale > 1e-3, "nothing to compare: the gradients vanish"
    np.testing.assert_allclose(got.double().numpy() / scale, wanted / scale, rtol=0, atol=2e-5)


@pytest.mark.parametrize("masked", [False, True], ids=["all-tokens", "masked-loss"])
@pytest.mark.parametrize(
    ("kind", "attention"),
    [("llama", "sdpa"), ("llama", "eager"), ("gpt2", "sdpa"), ("gpt2", "eager"), ("gemma2", None)],
)
def test_a_padded_batch_equals_a_loop_of_single_backwards(
    kind: str, attention: str | None, masked: bool
) -> None:
    model, prompts = adapted(kind, attention), by_hand.prompts(6, masked=masked)
    assert len({len(prompt.prompt) for prompt in prompts}) > 2
    close(PerExampleGradients(model)(*batch(prompts)), by_hand.gradients(model, prompts))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_padded_batch_equals_vmap_of_grad(kind: str) -> None:
    model, prompts = adapted(kind, "eager"), by_hand.prompts(5, masked=True)
    ids, mask, carries = batch(prompts)
    by_name: dict[str, Tensor] = {n: p for n, p in model.named_parameters() if p.requires_grad}

    def loss(tensors: dict[str, Tensor], ids: Tensor, counts: Tensor) -> Tensor:
        logits = functional_call(model, tensors, (), {"input_ids": ids[None]}).logits[0, :-1]
        losses = cross_entropy(logits, ids[1:], reduction="none")
        return (losses * counts).sum() / counts.sum()

    rows = vmap(grad(loss), in_dims=(None, 0, 0))(by_name, ids, (carries & mask)[:, 1:].float())
    wanted = torch.cat([rows[name].flatten(1) for name in sorted(rows)], dim=1)
    close(PerExampleGradients(model)(ids, mask, carries), wanted.detach().double().numpy())


def test_masked_sdpa_gives_the_same_gradients_as_no_mask_at_all() -> None:
    model, prompts = adapted("llama", "sdpa"), by_hand.prompts(4)
    ids, mask, _ = batch(prompts)
    own = parameters(model)
    logits = model(input_ids=ids, attention_mask=mask.long()).logits
    rows = []
    for row, prompt in enumerate(prompts):
        length = len(prompt.prompt)
        loss = cross_entropy(logits[row, : length - 1], ids[row, 1:length])
        got = torch.autograd.grad(loss, list(own.values()), retain_graph=True)
        rows.append(by_hand.flat(dict(zip(own, got, strict=True))))
    close(PerExampleGradients(model)(*batch(prompts)), np.stack(rows))


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_gradient_checkpointing_changes_nothing(kind: str, reentrant: bool, tmp_path) -> None:
    model = train(tmp_path, kind, lora=Lora(r=2, dropout=0.0), max_steps=1)  # B is no longer 0
    prompts = by_hand.prompts(4)
    wanted = by_hand.gradients(model, prompts)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    gradients = PerExampleGradients(model)
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    for layer in layers:  # the layer alone: without this it would not checkpoint in eval mode
        layer.training = True
    assert len(layers) == 2 and all(layer.gradient_checkpointing for layer in layers)
    got = gradients(*batch(prompts))
    close(got, wanted)
    for slot in gradients.slots:
        part = got[:, slot.start : slot.start + slot.size]
        assert part.abs().amax(1).min() > 0, f"{slot.name} has no gradient"


def test_a_fresh_adapter_has_gradients_in_b_alone() -> None:
    model, prompts = attach(BUILDERS["llama"](), Lora(r=2), 0), by_hand.prompts(3)
    gradients = PerExampleGradients(model)
    got = gradients(*batch(prompts))
    close(got, by_hand.gradients(model, prompts))
    for slot in gradients.slots:
        part = got[:, slot.start : slot.start + slot.size]
        assert bool(part.any()) == ("lora_B" in slot.name)


def test_columns_stand_by_sorted_name() -> None:
    model = adapted("llama")
    gradients, tensors = PerExampleGradients(model), state(model)
    assert [slot.name for slot in gradients.slots] == sorted(tensors)
    assert gradients.size == sum(tensor.numel() for tensor in tensors.values())
    np.testing.assert_array_equal(gradients.flat(tensors).double(), by_hand.flat(tensors))


def test_dropout_is_off_and_the_model_is_left_as_it_was() -> None:
    model, prompts = adapted("llama"), by_hand.prompts(3)
    gradients = PerExampleGradients(model.train())
    first, second = gradients(*batch(prompts)), gradients(*batch(prompts))
    assert torch.equal(first, second)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        n for n, _ in model.named_parameters() if ".lora_" in n
    }
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with pytest.raises(IndexError):
        gradients(torch.full((1, 3), 10_000), torch.ones(1, 3).bool(), torch.ones(1, 3).bool())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert any(p.requires_grad for p in model.parameters())


def test_the_loss_is_a_sum_over_examples_of_means_over_tokens() -> None:
    model, prompts = adapted("llama"), by_hand.prompts(3, masked=True)
    with torch.no_grad():
        single = [float(prompt_loss(model, *batch([prompt]))) for prompt in prompts]
        ids = torch.tensor([prompts[0].prompt])
        mean = cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:])
        together = float(prompt_loss(model, *batch(prompts)))
    assert single[0] == pytest.approx(float(mean), rel=1e-5)
    assert together == pytest.approx(sum(single), rel=1e-5)


def test_an_example_without_loss_has_no_gradient_and_harms_no_other() -> None:
    model, prompts = adapted("llama"), by_hand.prompts(3)
    ids, mask, carries = batch(prompts)
    carries[1] = False
    got = PerExampleGradients(model)(ids, mask, carries)
    assert not got[1].any()
    close(got[[0, 2]], by_hand.gradients(model, [prompts[0], prompts[2]]))
