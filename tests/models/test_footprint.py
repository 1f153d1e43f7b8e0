"""Sizes computed from an architecture, compared with published counts and with a loaded model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from elrea.errors import BackboneError, TrainingError
from elrea.models.adapter_shape import Lora
from elrea.models.footprint import NF4, Footprint, config_of
from elrea.models.lora import attach
from elrea.models.loss import logits_at
from tests.method.ensemble.test_prefix import KINDS
from tests.models.architectures import BUILD

CONF = Path(__file__).parents[2] / "conf" / "backbone"
PUBLISHED = {
    "gemma_1_1_2b": 2_506_172_416, "gemma_2_9b": 9_241_705_984, "llama3_1_8b": 8_030_261_248,
    "llama3_2_1b": 1_235_814_400, "llama3_2_3b": 3_212_749_824, "pythia_160m": 162_322_944,
    "pythia_410m": 405_334_016, "pythia_1_4b": 1_414_647_808, "qwen2_5_0_5b": 494_032_768,
    "qwen2_5_1_5b": 1_543_714_304, "qwen2_5_7b": 7_615_616_512, "smollm2_135m": 134_515_008,
    "smollm2_360m": 361_821_120, "smollm2_1_7b": 1_711_376_384,
}  # fmt: skip
"""Parameter counts that the authors published."""


def of(name: str, quantise: str | None = None) -> Footprint:
    with initialize_config_dir(str(CONF.parent), version_base="1.3"):
        shape: Any = OmegaConf.to_container(compose(None, [f"+backbone={name}"]).backbone.shape)
    return Footprint.of(config_of(shape), Lora(r=8), "bfloat16", quantise)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_equal_the_published_counts(name: str) -> None:
    assert of(name).parameters == PUBLISHED[name]
    text = (CONF / f"{name}.yaml").read_text()
    assert f"{PUBLISHED[name]:,} parameters" in text.split("\n")[0]


def test_every_backbone_with_a_shape_is_counted() -> None:
    shaped = {p.stem for p in CONF.glob("*.yaml") if "\nshape:\n" in p.read_text()}
    assert shaped == PUBLISHED.keys()


def test_weights_in_four_bits_by_hand() -> None:
    """SmolLM2-135M: its tied embeddings (49,152 x 576) and norms (61 x 576) stay in 16 bits."""
    plain, small = of("smollm2_135m"), of("smollm2_135m", "4bit")
    kept = 49_152 * 576 + 61 * 576
    assert plain.weights == 2 * plain.parameters
    assert small.weights == int(2 * kept + NF4 * (plain.parameters - kept))
    assert plain.cache == 2 * 30 * 3 * 64 * 2  # keys and values, layers, heads, width, bytes


def kept_by(model: Any, lora: Lora, length: int) -> int:
    """Bytes that torch keeps for the backward pass of three rows with 12 targets, and those of the logits."""
    model.requires_grad_(False)
    peft = attach(model, lora, 0)
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    backbone: Any = peft.train().get_base_model()
    places = torch.arange(12)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = logits_at(backbone, torch.ones(3, length, dtype=torch.long), places).float()
        torch.nn.functional.cross_entropy(logits, places, reduction="none")
    own = {p.untyped_storage().data_ptr() for p in peft.parameters()}
    real = sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in own)
    return real + logits.untyped_storage().nbytes()


@pytest.mark.parametrize("length", [20, 512])
@pytest.mark.parametrize(
    "kind", ["llama", "gpt2", "gemma2", "gemma3", "mistral", "neox", "phi3", "roberta"]
)
def test_saved_bytes_are_close_to_those_of_a_loaded_model(kind: str, length: int) -> None:
    """Grouped keys, dropout of attention, attention by products, windows."""
    build, config, given, _ = KINDS[kind]
    longest = "n_positions" if kind == "gpt2" else "max_position_embeddings"
    lora, model = Lora(r=2, dropout=0.1), build(config(**{**given, longest: 600}))
    footprint = Footprint.of(model.config, lora, "float32", None)
    assert footprint.parameters == sum(p.numel() for p in model.parameters())
    predicted = footprint.saved(3, length, 12)
    assert 0.9 < kept_by(model, lora, length) / predicted < 1.05
    assert footprint.adapter == sum(
        p.numel() for name, p in model.named_parameters() if "lora_" in name
    )
    assert footprint.saved(6, length, 24) == pytest.approx(2 * predicted, rel=0.1)
    assert footprint.saved(3, length, 12, recompute=True) < 0.7 * predicted


def test_where_no_fused_kernel_fits_the_products_are_counted() -> None:
    """On a GPU, float32 with grouped keys has none; bfloat16 has one, also with dropout."""
    heads, rows, length = 4, 3, 512
    weights = rows * heads * length**2
    for kind, grouped in (("llama", True), ("gpt2", False)):
        _, config, given, _ = KINDS[kind]
        for dtype, size in (("float32", 4), ("bfloat16", 2)):
            footprint = Footprint.of(config(**given), Lora(r=2), dtype, None, "cuda")
            plain = grouped and dtype == "float32"
            assert (footprint.saved(rows, length, 12) > 2 * size * weights) == plain


@pytest.mark.parametrize("shape", [{}, {"model_type": "no-such"}, {"model_type": "t5"}])
def test_an_architecture_that_is_no_language_model_is_an_error(shape: dict[str, Any]) -> None:
    with pytest.raises(BackboneError, match=r"^backbone"):
        Footprint.of(config_of(shape), Lora(), "bfloat16", None)


def test_what_is_adapted_and_what_is_not_is_known_from_the_architecture() -> None:
    config = BUILD["gpt_oss"]().config
    found = Footprint.of(config, Lora(r=2), "float32", None)
    assert found.adapted == "k_proj, o_proj, q_proj, v_proj" and found.adapter == 640
    assert found.left_out == ("not adapted: down_proj, gate_up_proj (weights of routed experts)",)
    with pytest.raises(TrainingError, match="holds the weights of routed experts"):
        Footprint.of(config, Lora(r=2, targets=["down_proj"]), "float32", None)
