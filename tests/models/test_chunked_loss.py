"""The loss through the head in chunks, held against torch's cross-entropy over transformers' own logits."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

import peft
import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from elrea.method.features import per_example
from elrea.method.features.gradient import GradientFeatures
from elrea.method.features.per_example import PerExampleGradients
from elrea.models import chunked_loss
from elrea.models.adapter_shape import Lora
from elrea.models.chunked_loss import Form, losses, plain_head, select
from elrea.models.footprint import Footprint
from elrea.models.lora import attach, parameters, set_state
from elrea.models.loss import batch_loss, token_losses
from elrea.models.training.batches import Item, collate
from tests.models.architectures import BUILD, DENSE
from tests.models.builders import BUILDERS, PAD, VOCABULARY, filled, random_state

SHAPE: Any = {**DENSE, "head_dim": 4}


def _phi() -> PreTrainedModel:
    """Its head has a bias, which is not zero here."""
    model = filled(hf.PhiForCausalLM(hf.PhiConfig(**DENSE)))
    with torch.no_grad():
        model.get_output_embeddings().bias.copy_(torch.linspace(-1, 1, VOCABULARY))
    return model


def _cohere() -> PreTrainedModel:
    return filled(hf.CohereForCausalLM(hf.CohereConfig(**DENSE, logit_scale=0.3)))


def _granite() -> PreTrainedModel:
    return filled(hf.GraniteForCausalLM(hf.GraniteConfig(**DENSE, logits_scaling=13.0)))


def _qwen3_moe() -> PreTrainedModel:
    """With experts that can compute in double precision."""
    model = BUILD["qwen3_moe"]()
    model.set_experts_implementation("eager")
    return model


def _gemma3() -> PreTrainedModel:
    config = hf.Gemma3TextConfig(**SHAPE, final_logit_softcapping=3.0)
    return filled(hf.Gemma3ForCausalLM(config))


MODELS: dict[str, tuple[Callable[[], PreTrainedModel], Form]] = {
    "llama": (BUILDERS["llama"], Form()),
    "gpt2": (BUILDERS["gpt2"], Form()),
    "gemma2": (BUILDERS["gemma2"], Form(cap=0.5)),
    "gemma3": (_gemma3, Form(cap=3.0)),
    "granite": (_granite, Form(1 / 13)),
    "cohere": (_cohere, Form(0.3)),
    "phi": (_phi, Form()),
    "opt": (BUILD["opt"], Form()),
    "gpt_neox": (BUILD["gpt_neox"], Form()),
    "qwen3_moe": (_qwen3_moe, Form()),
    "falcon_h1": (BUILD["falcon_h1"], Form()),
    "mamba2": (BUILD["mamba2"], Form()),
    "recurrent_gemma": (BUILD["recurrent_gemma"], Form(cap=30.0)),
}
"""Models, and what each does to the logits behind its head."""


def near(model: Any) -> float:
    """Relative difference that rounding explains: those with states compute in single precision inside."""
    states = ("mamba2", "falcon_h1", "recurrent_gemma")
    return 5e-6 if model.config.model_type in states else 1e-6


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 3 tokens."""
    monkeypatch.setattr(chunked_loss, "rows_of", lambda *_: 3)


@pytest.fixture(params=sorted(MODELS))
def model(request: pytest.FixtureRequest) -> Any:
    build, _ = MODELS[request.param]
    torch.manual_seed(0)  # for what is no matrix
    adapted = attach(build(), Lora(r=2, dropout=0.0), 0)
    set_state(adapted, random_state(adapted))
    # In double precision, since layers multiply the rounding of what is behind them; the losses stay in single.
    return adapted.double()


ROWS = [
    Item("a", tuple(range(2, 12)), 6),
    Item("b", (2, 7, 9, 4, 30, 31, 2), 1),
    Item("c", (5, 6), 1),
]


def plainly(model: Any) -> Tensor:
    """The mean over the rows of the mean over their tokens, from all logits."""
    width = max(len(row.tokens) for row in ROWS)
    ids = torch.tensor([[*row.tokens, *[PAD] * (width - len(row.tokens))] for row in ROWS])
    logits = model(input_ids=ids, use_cache=False).logits.float()
    terms = []
    for each, row in zip(logits, ROWS, strict=True):
        counted = slice(row.first - 1, len(row.tokens) - 1)
        terms.append(cross_entropy(each[counted], torch.tensor(row.tokens[row.first :])))
    return torch.stack(terms).mean()


def gradients(model: Any, loss: Tensor) -> Tensor:
    """Of the adapter, as one vector."""
    model.zero_grad()
    loss.backward()
    found = parameters(model)
    return torch.cat(
        [
            torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten()
            for p in found.values()
        ]
    )


@pytest.mark.usefixtures("small_chunks")
def test_loss_and_gradients_equal_those_of_all_logits(model: Any) -> None:
    backbone = model.get_base_model()
    wanted = plainly(backbone)
    expected = gradients(model, wanted)
    for _ in range(2):  # the first pass also measures what is done to the logits
        loss = batch_loss(backbone, collate(ROWS, PAD, len(ROWS)))
        torch.testing.assert_close(loss, wanted, rtol=1e-6, atol=1e-6)
        got = gradients(model, loss)
        assert (got - expected).norm() <= near(model) * expected.norm()
    assert expected.norm() > 1e-3


@pytest.mark.parametrize("name", sorted(MODELS))
def test_what_is_done_to_the_logits_is_measured(name: str) -> None:
    build, wanted = MODELS[name]
    model = build().requires_grad_(False)
    head = plain_head(model)
    assert head is not None
    found = select(model, head, torch.arange(6)[None], torch.arange(4))
    assert found is not None
    assert found.form.scale == pytest.approx(wanted.scale, rel=1e-6)
    assert found.form.cap == (None if wanted.cap is None else pytest.approx(wanted.cap, rel=1e-6))


def test_no_tensor_has_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features, training and the loss on dev: tokens times words is in no tensor, forward or backward."""
    words, rows, length = 30_000, 4, 100

    class Watch(TorchDispatchMode):
        largest = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            found = func(*args, **(kwargs or {}))
            for each in found if isinstance(found, tuple | list) else (found,):
                # Views of the weights are as large as the weights.
                if isinstance(each, Tensor) and each.shape and each.shape[-1] == words:
                    Watch.largest = max(Watch.largest, each.numel())
            return found

    monkeypatch.setattr(chunked_loss, "ROWS", 64)
    monkeypatch.setattr(chunked_loss, "ENTRIES", {"cpu": 1})
    config = hf.LlamaConfig(**{**DENSE, "vocab_size": words}, tie_word_embeddings=True)
    model: Any = attach(hf.LlamaForCausalLM(config), Lora(r=2, dropout=0.0), 0)
    ids = torch.randint(3, words, (rows, length), generator=torch.Generator().manual_seed(0))
    batch = collate([Item(str(n), tuple(row), 1) for n, row in enumerate(ids.tolist())], 0, rows)
    mask = torch.ones_like(ids, dtype=torch.bool)

    def watched(act: Callable[[], object]) -> int:
        Watch.largest = 0
        with Watch():
            act()
        return Watch.largest // words

    backbone = model.get_base_model()
    assert watched(lambda: batch_loss(backbone, batch).backward()) == 64
    assert watched(lambda: PerExampleGradients(model)(ids, mask, mask)) == 64
    with torch.no_grad():
        assert watched(lambda: batch_loss(backbone, batch)) == 64
    # The watch sees all logits where they are made.
    monkeypatch.setattr(chunked_loss, "plain_head", lambda _: None)
    assert watched(lambda: batch_loss(backbone, batch).backward()) == rows * (length - 1)


@pytest.mark.usefixtures("small_chunks")
def test_features_equal_those_of_all_logits(monkeypatch: pytest.MonkeyPatch, model: Any) -> None:
    ids = torch.randint(3, VOCABULARY, (5, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(12) < torch.tensor([12, 12, 7, 4, 2])[:, None]
    got = PerExampleGradients(model)(ids, mask, mask)
    monkeypatch.setattr(chunked_loss, "plain_head", lambda _: None)
    wanted = PerExampleGradients(model)(ids, mask, mask)
    assert ((got - wanted).norm(dim=1) <= near(model) * wanted.norm(dim=1)).all()
    assert (wanted.norm(dim=1) > 0).all()


def test_a_head_in_half_precision_is_rounded_as_for_all_logits() -> None:
    torch.manual_seed(0)
    head = nn.Linear(16, 200, dtype=torch.bfloat16).requires_grad_(False)
    hidden = torch.randn(10, 16, dtype=torch.bfloat16, requires_grad=True)
    targets, form = torch.randint(200, (10,)), Form(cap=0.5)
    got = losses(chunked_loss.Selected(hidden, form), targets, head, 4)
    logits = 0.5 * torch.tanh(head(hidden) / 0.5)
    wanted = cross_entropy(logits.float(), targets, reduction="none")
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)
    mine, theirs = (torch.autograd.grad(each.mean(), hidden)[0].float() for each in (got, wanted))
    assert (mine - theirs).norm() <= 0.01 * theirs.norm()


class Odd(hf.LlamaForCausalLM):
    """Does to the logits what no form covers: one word is never written."""

    passes = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        Odd.passes += 1
        found = super().forward(*args, **kwargs)
        found.logits = found.logits.clone()
        found.logits[..., 7] = -50.0
        return found


@pytest.mark.usefixtures("small_chunks")
def test_a_model_of_another_kind_falls_back_and_says_so_once(caplog: Any) -> None:
    lora = Lora(r=2, dropout=0.5)
    model = attach(filled(Odd(cast("hf.LlamaConfig", BUILDERS["llama"]().config))), lora, 0)
    set_state(model, random_state(model))
    backbone: Any = model.get_base_model()
    batch = collate([Item("a", (2, 5, 6, 8, 9, 7, 4), 1)], PAD, 1)
    model.train()
    losses_seen = []
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            torch.manual_seed(5)  # the pass that was in vain has not changed the dropout
            losses_seen.append(batch_loss(backbone, batch).item())
    assert Odd.passes == 3
    assert losses_seen[0] == losses_seen[1]
    said = [each for each in caplog.messages if "logits" in each]
    assert len(said) == 1 and said[0].startswith("Odd:")
    model.eval()
    ids = torch.tensor([[2, 5, 6, 8, 9, 7, 4]])
    wanted = cross_entropy(backbone(input_ids=ids).logits[0, :-1], ids[0, 1:])
    torch.testing.assert_close(batch_loss(backbone, batch), wanted)


class OwnHead(nn.Linear):
    """As a quantised layer: no plain linear one."""


@pytest.mark.parametrize("kind", ["own", "trained", "adapted", "none", "sharded"])
@pytest.mark.usefixtures("small_chunks")
def test_a_head_that_is_no_frozen_linear_layer_gets_all_tokens(kind: str) -> None:
    model: Any = BUILDERS["llama"]().requires_grad_(False)
    if kind == "own":
        head = OwnHead(16, VOCABULARY, bias=False).requires_grad_(False)
        head.weight = model.lm_head.weight
        model.set_output_embeddings(head)
    elif kind == "trained":
        model.lm_head.requires_grad_(True)
    elif kind == "adapted":
        peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["lm_head"]))
    elif kind == "sharded":
        model.unshard = None  # a method of FSDP's modules
    else:
        model.get_output_embeddings = lambda: None
    assert plain_head(model) is None
    ids = torch.tensor([[2, 5, 6, 8, 9, 7, 4]])
    got = token_losses(model, ids, torch.arange(6), ids[0, 1:])
    wanted = cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
    torch.testing.assert_close(got, wanted)
    if kind == "trained":
        got.sum().backward()
        assert model.lm_head.weight.grad.any()


def test_gradient_of_each_loss_is_scaled_by_what_comes_behind() -> None:
    """Weights, and a second pass backward over a graph that is kept."""
    torch.manual_seed(0)
    head = nn.Linear(6, 11).requires_grad_(False)
    hidden, targets = torch.randn(10, 6, requires_grad=True), torch.randint(11, (10,))
    weights = torch.randn(10)
    form = Form(0.7, 2.0)
    got = (losses(chunked_loss.Selected(hidden, form), targets, head, 4) * weights).sum()
    logits = 2 * torch.tanh(0.7 * head(hidden) / 2)
    wanted = (cross_entropy(logits, targets, reduction="none") * weights).sum()
    (theirs,) = torch.autograd.grad(wanted, hidden)
    for _ in range(2):
        (mine,) = torch.autograd.grad(got, hidden, retain_graph=True)
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
def test_the_forecast_counts_a_chunk_of_logits(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """What a loaded model keeps, beside the hidden states' gradients and the copies of one chunk's logits."""
    lora = Lora(r=2, dropout=0.1)
    model = BUILDERS[kind]().requires_grad_(False)
    footprint = Footprint.of(model.config, lora, "float32", None)
    whole = footprint.saved(3, 20, 60)
    monkeypatch.setattr(chunked_loss, "rows_of", lambda *_: 3)
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    peft_model = attach(model, lora, 0).train()
    backbone: Any = peft_model.get_base_model()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        token_losses(
            backbone,
            torch.ones(3, 20, dtype=torch.long),
            torch.arange(60),
            torch.ones(60, dtype=torch.long),
        )
    own = {p.untyped_storage().data_ptr() for p in peft_model.parameters()}
    real = sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in own)
    passing = 60 * 16 * 4 + chunked_loss.COPIES * 3 * VOCABULARY * 4
    predicted = footprint.saved(3, 20, 60)
    assert 0.7 < (real + passing) / predicted < 1.05
    assert predicted < whole - 60 * VOCABULARY * 4


def test_a_cpu_takes_a_batch_in_passes_that_keep_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the forecast; a small model's batch stays whole, and so do its features, bit for bit."""
    model = attach(BUILDERS["llama"](), Lora(r=2, dropout=0.0), 0)
    set_state(model, random_state(model))
    ids = torch.randint(3, VOCABULARY, (11, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(12) < torch.tensor([12, 12, 9, 9, 8, 7, 6, 5, 4, 3, 1])[:, None]
    gradients = PerExampleGradients(model)
    passes: list[tuple[int, ...]] = []
    model.get_base_model().register_forward_pre_hook(
        lambda _m, _a, kwargs: passes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    whole = gradients(ids, mask, mask)
    assert passes == [(11, 12)]
    monkeypatch.setattr(per_example, "TOKENS", 48)
    monkeypatch.setattr(per_example, "KEPT", 0)
    passes.clear()
    assert gradients.rows("cpu", 12) == 4 and gradients.rows("cuda", 12) >= 2**31
    parts = gradients(ids, mask, mask)
    assert passes == [(4, 12), (4, 8), (3, 4)]
    assert ((parts - whole).norm(dim=1) <= 1e-4 * whole.norm(dim=1)).all()
    footprint = Footprint.of(model.config, Lora(r=2, dropout=0.0), "float32", None)
    assert GradientFeatures().memory(footprint, 12)[1] == "4 x 12 tokens"
