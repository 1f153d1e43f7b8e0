"""The last layers' gradients end the backward pass there; `cost=cheap` is these settings spelled out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from elrea.data.batches import pad
from elrea.method.features import gradient as gradient_module
from elrea.method.features import per_example
from elrea.method.features.gradient import GradientFeatures, extract
from elrea.method.features.per_example import Layers, PerExampleGradients, decoder_layers
from elrea.method.features.projection import Rademacher
from elrea.models.adapter_shape import Lora
from elrea.models.footprint import Footprint
from elrea.models.lora import attach, set_state
from elrea.models.training.train import epoch_folders
from elrea.pipeline.experiment import key_fields
from tests.method.features import by_hand
from tests.models.builders import PAD, filled, random_state, train

SHAPE: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64,
}  # fmt: skip


def llama(layers: int) -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SHAPE, num_hidden_layers=layers))


def tied(layers: int) -> PreTrainedModel:
    """The head's weights are the embedding's, as SmolLM2's are."""
    config = LlamaConfig(**SHAPE, num_hidden_layers=layers, tie_word_embeddings=True)
    return LlamaForCausalLM(config)


def qwen2(layers: int) -> PreTrainedModel:
    """Biases in q, k and v."""
    return Qwen2ForCausalLM(Qwen2Config(**SHAPE, num_hidden_layers=layers))


def gemma2(layers: int) -> PreTrainedModel:
    """Tied, norms on both sides of a block, soft caps."""
    return Gemma2ForCausalLM(Gemma2Config(**SHAPE, num_hidden_layers=layers, head_dim=8))


def gpt2(layers: int) -> PreTrainedModel:
    """Tied, Conv1D, positions that are added."""
    config = GPT2Config(vocab_size=40, n_embd=16, n_layer=layers, n_head=2, n_positions=64)
    return GPT2LMHeadModel(config)


MAKERS = [llama, tied, qwen2, gemma2, gpt2]
Maker = Callable[[int], PreTrainedModel]


def adapted(make: Maker, layers: int) -> PeftModel:
    model = attach(filled(make(layers)), Lora(r=2, dropout=0.1), 0)
    set_state(model, {name: tensor * 0.3 for name, tensor in random_state(model).items()})
    return model


def batch() -> tuple[Tensor, Tensor]:
    return pad([prompt.prompt for prompt in by_hand.prompts(4)], PAD)


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("make", MAKERS)
def test_the_last_layers_gradients_are_a_slice_of_all(make: Maker, k: int) -> None:
    model = adapted(make, 4)
    ids, mask = batch()
    whole, last = PerExampleGradients(model), PerExampleGradients(model, k)
    everything, got = whole(ids, mask, mask), last(ids, mask, mask)
    kept = {slot.name for slot in last.slots}
    assert kept == {s.name for s in whole.slots if per_example._number(s.name) >= 4 - k}
    columns = [everything[:, s.start : s.start + s.size] for s in whole.slots if s.name in kept]
    wanted = torch.cat(columns, dim=1)
    scale = float(wanted.abs().max())
    assert scale > 1e-3
    torch.testing.assert_close(got / scale, wanted / scale, rtol=0, atol=1e-6)


def watched(model: PeftModel, k: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int, int]:
    """Numbers of nodes in the loss's graph, of tensors that it saves, and of those saved below the last k layers."""
    nodes, saved, below = set(), 0, 0
    reached = False
    plain = per_example.prompt_loss

    def counted(*given: object) -> Tensor:
        loss = plain(*given)  # type: ignore[arg-type]
        left = [loss.grad_fn]
        while left:
            node = left.pop()
            if node is not None and node not in nodes:
                nodes.add(node)
                left += [following for following, _ in node.next_functions]
        return loss

    def pack(tensor: Tensor) -> Tensor:
        nonlocal saved, below
        saved += 1
        below += not reached
        return tensor

    def enter(*_: object) -> None:
        nonlocal reached
        reached = True

    names = {name.rpartition(".")[0]: name for name, _ in model.named_parameters()}
    blocks = sorted({n.split(".self_attn")[0].split(".attn")[0] for n in names if "attn." in n})
    lowest = model.get_submodule(blocks[-k])
    handle = lowest.register_forward_pre_hook(enter)
    monkeypatch.setattr(per_example, "prompt_loss", counted)
    ids, mask = batch()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        PerExampleGradients(model, k)(ids, mask, mask)
    handle.remove()
    return len(nodes), saved, below


@pytest.mark.parametrize("make", MAKERS)
def test_layers_below_have_no_graph_and_keep_nothing(make: Maker, monkeypatch) -> None:
    """However many there are: a model with four times the layers has the same graph."""
    shallow, deep = (watched(adapted(make, n), 1, monkeypatch) for n in (2, 8))
    assert shallow == deep
    nodes, saved, below = deep
    assert nodes > 20 and saved > 10 and below == 0
    whole = watched(adapted(make, 8), 8, monkeypatch)
    assert whole[0] > 4 * nodes and whole[1] > 4 * saved


@pytest.mark.parametrize("recompute", [False, True])
def test_the_forecast_of_memory_follows(recompute: bool) -> None:
    """Beside the weights, one layer of eight keeps what one of two does."""
    one = GradientFeatures(layers=1, recompute=recompute, buffer_mb=1)

    def needed(layers: int, features: GradientFeatures) -> float:
        lora = Lora(r=2, dropout=0.1)
        footprint = Footprint.of(llama(layers).config, lora, "float32", None)
        found = features.memory(footprint, 12)
        assert found is not None
        assert all(p.requires_grad for n, p in footprint.model.named_parameters() if "lora" in n)
        return found[0] - footprint.weights - 4 * footprint.adapter

    assert needed(8, one) == needed(2, one) < needed(8, replace(one, layers="all"))
    assert needed(8, replace(one, layers="all", cost="cheap")) == needed(8, one)


@pytest.mark.parametrize("layers", ["all", 1])
def test_the_forecast_counts_both_moments_of_what_has_a_gradient(layers: Any) -> None:
    """12 bytes for each of its parameters: itself and two moments in float32."""
    footprint = Footprint.of(llama(4).config, Lora(r=2), "float32", None)
    adam = GradientFeatures(layers=layers, buffer_mb=1)
    (with_moments, _), (without, _) = (
        features.memory(footprint, 12) for features in (adam, replace(adam, form="sgd"))
    )
    size = PerExampleGradients(footprint.model, layers).size
    assert with_moments - without == 8 * size
    assert (size == footprint.adapter) == (layers == "all")


@pytest.mark.parametrize(
    ("layers", "reach"), [("all", 4), (1, 1), (3, 3), (["3.mlp"], 1), (["1.self_attn", "3.mlp"], 3)]
)
def test_how_far_down_the_backward_pass_goes(layers: Layers, reach: int) -> None:
    assert PerExampleGradients(adapted(llama, 4), layers).reach == reach


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[PeftModel, list[Path]]:
    """A model of nine layers, and its checkpoints of two epochs."""
    folder, lora = tmp_path_factory.mktemp("cheap"), Lora(r=2, dropout=0.0)
    model = attach(filled(llama(9)), lora, 0)
    train(folder, lora=lora, model=model, epochs=2)
    return model, epoch_folders(folder)


SPELLED: dict[str, Any] = {"layers": 2, "epoch_weights": [1.0, 0.0]}
"""`cheap` for nine layers and two epochs."""
PROMPTS = by_hand.prompts(7)


def of(trained: tuple[PeftModel, list[Path]], features: GradientFeatures) -> Tensor:
    return extract(*trained, PROMPTS, features, pad_id=PAD)


def test_cheap_is_the_same_settings_spelled_out(trained) -> None:
    plain = GradientFeatures(Rademacher(d=64))
    cheap = replace(plain, cost="cheap")
    model = trained[0]
    assert decoder_layers(model) == 9 and cheap.selected(model) == SPELLED["layers"]
    assert torch.equal(of(trained, cheap), of(trained, replace(plain, **SPELLED)))
    assert not torch.equal(of(trained, cheap), of(trained, plain))
    assert cheap.passes(2) == 2 and plain.passes(2) == 4
    assert cheap.checkpoints(2) == 1 and plain.checkpoints(2) == 2, "what plan=true multiplies by"


@pytest.mark.parametrize(
    "own",
    [
        {"layers": 5},
        {"layers": ["q_proj"]},
        {"epoch_weights": [1.0, 1.0]},
        {"epoch_weights": [0.0, 1.0], "layers": 9},
    ],
)
def test_what_a_user_sets_wins(trained, own: dict[str, Any]) -> None:
    plain = GradientFeatures(Rademacher(d=64))
    spelled = {**SPELLED, **own}
    wanted = of(trained, replace(plain, **spelled))
    assert torch.equal(of(trained, replace(plain, cost="cheap", **own)), wanted)


def test_an_open_number_of_epochs_is_no_obstacle() -> None:
    GradientFeatures(cost="cheap").check(None)


def test_the_papers_cost_is_in_no_key() -> None:
    plain = GradientFeatures()
    assert "cost" not in key_fields(plain)
    assert key_fields(replace(plain, cost="cheap")) == {**key_fields(plain), "cost": "cheap"}


def test_an_unknown_cost_is_refused() -> None:
    with pytest.raises(ValueError, match="cost is 'paper' or 'cheap', not 'free'"):
        GradientFeatures(cost="free")  # type: ignore[arg-type]


def test_one_layer_has_an_eighth_too() -> None:
    assert GradientFeatures(cost="cheap").selected(adapted(llama, 1)) == 1
    assert gradient_module.PART >= 1
