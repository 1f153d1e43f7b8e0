"""Per-example gradients against single backward passes and against vmap(grad)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.llama.modeling_llama import LlamaMLP

from elrea.data.batches import pad
from elrea.data.prompts import Encoded
from elrea.errors import ConfigError
from elrea.method.features.per_example import (
    Layers,
    PerExampleGradients,
    Sink,
    Slot,
    largest_entry,
    prompt_loss,
)
from elrea.models.adapter_shape import Lora
from elrea.models.lora import attach, parameters, set_state, state
from tests.method.features import by_hand
from tests.models.builders import BUILDERS, PAD, random_state, train

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


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_gradient_checkpointing_changes_nothing(kind: str, tmp_path) -> None:
    model = train(tmp_path, kind, lora=Lora(r=2, dropout=0.5), max_steps=1)  # B is no longer 0
    prompts = by_hand.prompts(4)
    wanted = by_hand.gradients(model, prompts)
    gradients = PerExampleGradients(model)
    _, kept = saved(lambda: gradients(*batch(prompts)))
    model.get_base_model().activation_checkpointing_enable()
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    assert len(layers) == 2 and all(layer.gradient_checkpointing for layer in layers)
    passes: list[str] = []
    inner = [m for name, m in model.named_modules() if name.endswith(".mlp")]
    handles = [m.register_forward_pre_hook(lambda _m, _i: passes.append("")) for m in inner]
    got, kept_now = saved(lambda: gradients(*batch(prompts)))
    for handle in handles:
        handle.remove()
    assert len(passes) == 4, "each layer is to run again in the backward pass"
    assert kept_now < kept / 3, "the layers' inputs are held all the same"
    assert not any("forward" in vars(layer) for layer in layers)
    close(got, wanted)
    for slot in gradients.slots:
        part = got[:, slot.start : slot.start + slot.size]
        assert part.abs().amax(1).min() > 0, f"{slot.name} has no gradient"


def saved(call: Callable[[], Tensor]) -> tuple[Tensor, int]:
    """What a call returns, and how many bytes of activations its graph holds at most."""
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        return call(), sum(held.values())


def parts(model: PeftModel, layers: Layers) -> tuple[PerExampleGradients, list[bool]]:
    """The gradients of some layers, and for each layer of the model: does its output have a graph?"""
    gradients = PerExampleGradients(model, layers)
    graph: list[bool] = []
    blocks = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    handles = [
        m.register_forward_hook(lambda _m, _i, y: graph.append(y.requires_grad)) for m in blocks
    ]
    whole = PerExampleGradients(model)
    inputs = batch(by_hand.prompts(4, masked=True))
    got = gradients(*inputs)
    for handle in handles:
        handle.remove()
    everything = whole(*inputs)
    columns = [
        everything[:, slot.start : slot.start + slot.size]
        for slot in whole.slots
        if slot.name in {own.name for own in gradients.slots}
    ]
    torch.testing.assert_close(got, torch.cat(columns, dim=1))
    assert gradients.size == got.shape[1] < whole.size
    tensors = state(model)
    assert len(gradients.flat(tensors)) == gradients.size
    return gradients, graph


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_layers_alone_and_no_backward_pass_below_them(kind: str) -> None:
    gradients, graph = parts(adapted(kind), 1)
    assert {slot.name.split(".")[4] for slot in gradients.slots} == {"1"}
    assert graph == [False, True]


def test_layers_by_parts_of_their_names() -> None:
    gradients, graph = parts(adapted("llama"), ["q_proj", "1.mlp.down_proj.lora_B"])
    short = [".".join(slot.name.split(".")[4:-1]) for slot in gradients.slots]
    assert short == [
        "0.self_attn.q_proj.lora_A",
        "0.self_attn.q_proj.lora_B",
        "1.mlp.down_proj.lora_B",
        "1.self_attn.q_proj.lora_A",
        "1.self_attn.q_proj.lora_B",
    ]
    assert graph == [True, True]


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (0, "features.layers=0: the adapter is in 2 decoder layers; give 1 to 2"),
        (3, "features.layers=3: the adapter is in 2 decoder layers; give 1 to 2"),
        (["q_proj", "qkv"], "features.layers: no matrix of the adapter has 'qkv' in its name"),
        ([], "features.layers=[] selects nothing"),
        ("last", "features.layers=last: give all, a number, or a list"),
    ],
)
def test_layers_that_are_not_there_are_refused(layers: Layers, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PerExampleGradients(adapted("llama"), layers)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_rows_of_a_buffer_are_written_in_place() -> None:
    model, prompts = adapted("llama"), by_hand.prompts(3)
    gradients = PerExampleGradients(model)
    wanted = gradients(*batch(prompts))
    buffer = torch.full((5, gradients.size), 7.0)
    got = gradients(*batch(prompts), out=buffer[1:4])
    assert got.data_ptr() == buffer[1].data_ptr() and torch.equal(buffer[1:4], wanted)
    assert bool((buffer[[0, 4]] == 7).all())


def test_a_layer_that_is_used_twice_and_one_that_is_not_used() -> None:
    """Every token goes through the first block twice and never through the second, whose gradient is 0."""
    model, prompts = adapted("llama"), by_hand.prompts(3)
    model.config.use_cache = False  # the block would meet its own keys there
    gradients = PerExampleGradients(model)
    used = torch.cat([torch.full((s.size,), ".layers.0." in s.name) for s in gradients.slots])
    backbone: Any = model.get_base_model()
    blocks = backbone.model.layers
    blocks[1] = blocks[0]
    got = gradients(*batch(prompts), out=torch.full((3, gradients.size), 7.0))
    close(got[:, used], by_hand.gradients(model, prompts))
    assert not got[:, ~used].any() and int((~used).sum()) == gradients.size // 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_half_precision_backbone_keeps_the_cosines(kind: str) -> None:
    """bfloat16 has 8 bits; the adapter, and every sum over tokens, stays in float32."""
    model, prompts = adapted(kind), by_hand.prompts(12, masked=True)
    exact = PerExampleGradients(model)(*batch(prompts))
    for name, parameter in model.named_parameters():
        if ".lora_" not in name:
            parameter.data = parameter.data.bfloat16()
    half = PerExampleGradients(model)(*batch(prompts))
    assert half.dtype == torch.float32 and not torch.equal(half, exact)
    before, after = (torch.nn.functional.normalize(g, dim=1) for g in (exact, half))
    assert float((before * after).sum(1).median()) > 0.998
    assert float((before @ before.T - after @ after.T).abs().median()) < 0.01


def test_sums_over_tokens_are_exact_where_the_layers_are_not() -> None:
    """A product of bfloat16 numbers has 16 bits, their sum over tokens more: float32 holds it."""
    back, given = (
        torch.randn(2, 300, w, generator=torch.Generator().manual_seed(w)) for w in (3, 5)
    )
    for left, right in ((back, given), (given, back)):
        slot = Slot("a", torch.nn.Identity(), 1, 15)
        sink = Sink(torch.zeros(2, 17))
        sink.add(slot, left.bfloat16(), right.bfloat16())
        wanted = torch.einsum("bto,bti->boi", left.bfloat16().double(), right.bfloat16().double())
        torch.testing.assert_close(sink.out[:, 1:16].double(), wanted.flatten(1), rtol=0, atol=2e-5)
        assert not sink.out[:, [0, 16]].any()


def test_a_fresh_adapter_has_gradients_in_b_alone() -> None:
    model, prompts = attach(BUILDERS["llama"](), Lora(r=2), 0), by_hand.prompts(3)
    gradients = PerExampleGradients(model)
    got = gradients(*batch(prompts))
    close(got, by_hand.gradients(model, prompts))
    for slot in gradients.slots:
        part = got[:, slot.start : slot.start + slot.size]
        assert bool(part.any()) == ("lora_B" in slot.name)


def test_columns_are_sorted_by_name() -> None:
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


def test_the_largest_entry_of_each_row() -> None:
    rows = torch.tensor([[1.0, -3.0], [0.0, 0.0], [float("nan"), 1.0], [float("-inf"), 2.0]])
    got = largest_entry(rows)
    assert got[[0, 1, 3]].tolist() == [3, 0, float("inf")] and bool(got[2].isnan())


def test_an_example_without_loss_has_no_gradient_and_harms_no_other() -> None:
    model, prompts = adapted("llama"), by_hand.prompts(3)
    ids, mask, carries = batch(prompts)
    carries[1] = False
    got = PerExampleGradients(model)(ids, mask, carries)
    assert not got[1].any()
    close(got[[0, 2]], by_hand.gradients(model, [prompts[0], prompts[2]]))


@pytest.mark.parametrize("length", [4, 6])
def test_rows_whose_example_is_unknown_get_a_pass_of_their_own(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers that get [t, b, d], also where t = b; and those that get a part of the rows, as routed experts do."""
    plain = LlamaMLP.forward

    def time_first(mlp: LlamaMLP, x: Tensor) -> Tensor:
        return plain(mlp, x.transpose(0, 1)).transpose(0, 1)

    def routed(mlp: LlamaMLP, x: Tensor) -> Tensor:
        chosen = x[..., 0] > 0
        return torch.zeros_like(x).masked_scatter(chosen[..., None], plain(mlp, x[chosen]))

    prompts = [Encoded(str(i), tuple(range(i + 2, i + 2 + length)), ()) for i in range(4)]
    for forward in (time_first, routed):
        monkeypatch.setattr(LlamaMLP, "forward", forward)
        model = adapted("llama")
        gradients = PerExampleGradients(model)
        for _ in range(2):
            close(gradients(*batch(prompts)), by_hand.gradients(model, prompts))
            assert gradients.one_by_one
