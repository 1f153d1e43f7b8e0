"""Memory that a backbone and its adapters need, computed from the architecture: nothing is downloaded or allocated.

The model is built on torch's meta device, whose tensors have shapes but no memory. A hook on every saved tensor adds
up what a forward pass keeps for the backward pass, with attention as the device will compute it (`fused_attention`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from elrea.errors import BackboneError
from elrea.models.layers import layers_of, short
from elrea.models.lora import attach, parameters

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

    from elrea.models.adapter_shape import Lora

NF4 = 4.127 / 8
"""Bytes per weight in 4 bits, quantisation constants included (QLoRA, Dettmers et al. 2023, section 3)."""
LOADED = {"4bit": NF4, "8bit": 1.0, "mixed": 2.0}
"""Bytes per weight of a linear layer that is quantised or of type `mixed`."""
OPTIMISED = 16
"""Bytes per trained parameter: the parameter, its gradient and Adam's two moments, each in float32."""


@dataclass(frozen=True)
class Footprint:
    """Sizes of a backbone and one adapter.

    Attributes:
        parameters: Number of the backbone's parameters; tied ones count once.
        weights: Their bytes.
        adapter: Number of one adapter's parameters.
        cache: Bytes of keys and values per token of a sequence.
        adapted: Names of the layers with an adapter.
        left_out: What gets none, a line for each reason (`layers.Layers.notes`).
        device: Type of device that will compute.
        model: Backbone and adapter on the meta device.
    """

    parameters: int
    weights: int
    adapter: int
    cache: int
    adapted: str
    left_out: tuple[str, ...]
    device: str
    model: PeftModel
    _layers: int

    @classmethod
    def of(
        cls,
        config: PreTrainedConfig,
        lora: Lora,
        dtype: str,
        quantise: str | None,
        device: str = "cpu",
    ) -> Footprint:
        """The sizes for an architecture.

        Args:
            config: The model's configuration.
            lora: The adapters' shape.
            dtype: Of the weights that are not quantised, `float32`, `bfloat16` or `mixed`.
            quantise: `4bit`, `8bit` or None.
            device: Type of device that will compute: it determines how many logits are held at once.

        Raises:
            BackboneError: transformers has no causal language model of this kind.
            TrainingError: The adapters' shape does not fit it.
        """
        from torch import nn
        from transformers.pytorch_utils import Conv1D

        model = _empty(config, "float32" if dtype == "mixed" else dtype)
        size = next(model.parameters()).element_size()
        total = sum(p.numel() for p in model.parameters())
        head = model.get_output_embeddings()
        linear = sum(
            module.weight.numel()
            for module in model.modules()
            if isinstance(module, nn.Linear | Conv1D) and module is not head
        )
        loaded = LOADED.get(quantise or dtype, size)
        text = config.get_text_config()
        whole = getattr(text, "num_attention_heads", 0)  # 0: an architecture without keys
        heads = getattr(text, "num_key_value_heads", None) or whole
        width = getattr(text, "head_dim", None) or text.hidden_size // max(1, whole)
        layers = text.num_hidden_layers
        chosen = layers_of(model, lora.targets)
        peft = attach(model, lora, 0)
        return cls(
            total, int((total - linear) * size + linear * loaded),
            sum(p.numel() for p in parameters(peft).values()), 2 * layers * heads * width * size,
            short(chosen.adapted), tuple(chosen.notes()), device, peft, layers,
        )  # fmt: skip

    def saved(
        self,
        rows: int,
        length: int,
        targets: int,
        recompute: bool = False,
        layers: int | None = None,
    ) -> int:
        """Bytes that one forward pass keeps for the backward pass, and those of the loss: logits and their gradients.

        Args:
            rows: Number of sequences.
            length: Tokens per sequence.
            targets: Tokens that carry loss, in all sequences.
            recompute: With activation checkpointing: the inputs of all layers, and the activations of one.
            layers: Number of decoder layers that keep anything; None: all. Those below the lowest parameter that
                requires a gradient keep nothing.

        Raises:
            BackboneError: The model cannot run on the meta device, or not at that length.
        """
        try:
            return self._saved(rows, length, targets, recompute, layers or self._layers)
        except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
            raise BackboneError(f"backbone: {str(error).splitlines()[0]}") from error

    def _saved(self, rows: int, length: int, targets: int, recompute: bool, layers: int) -> int:
        import torch

        from elrea.models import chunked_loss
        from elrea.models.fused_attention import as_on
        from elrea.models.loss import logits_at

        kept: dict[int, Tensor] = {}

        def pack(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage()._cdata] = tensor
            return tensor

        model: Any = self.model.get_base_model()
        dtype = next(model.parameters()).dtype
        ids = torch.zeros(rows, length, dtype=torch.long, device="meta")
        # A mask of four dimensions is used as it is; making one needs values, which the meta device does not have.
        mask = torch.zeros(1, 1, length, length, dtype=dtype, device="meta")
        places = torch.zeros(targets, dtype=torch.long, device="meta")
        head = chunked_loss.plain_head(model)
        chunk = chunked_loss.rows_of(self.device, head.out_features) if head else targets
        self.model.train()
        with (
            as_on(self.device, dtype, model.config, length, mask),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        ):
            if head is not None and targets > chunk:
                selected = chunked_loss.select(model, head, ids, places, attention_mask=mask)
                assert selected is not None  # nothing is measured without values
                chunked_loss.losses(selected, places, head, targets)
                last = selected.hidden.untyped_storage().nbytes()  # their gradients are kept
                passing = last + 4 * chunked_loss.COPIES * chunk * head.out_features
            else:
                logits = logits_at(model, ids, places, attention_mask=mask).float()
                torch.nn.functional.cross_entropy(logits, places, reduction="none")
                last = passing = logits.untyped_storage().nbytes()
        self.model.eval()
        own = {p.untyped_storage()._cdata for p in self.model.parameters()}
        total = sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in own)
        if recompute:
            inside = total - last
            inputs = rows * length * model.config.get_text_config().hidden_size * dtype.itemsize
            total = last + inside // layers + inputs * layers
        return total + passing


def empty_adapter(config: PreTrainedConfig, lora: Lora) -> dict[str, tuple[int, ...]]:
    """Shapes of an adapter's parameters by their saved names, for an architecture.

    Raises:
        BackboneError: transformers has no causal language model of this kind.
        TrainingError: The model has no layer of one of the names.
    """
    peft = attach(_empty(config, "float32"), lora, 0)
    return {name: tuple(each.shape) for name, each in parameters(peft).items()}


def _empty(config: PreTrainedConfig, dtype: str) -> PreTrainedModel:
    """The frozen model on the meta device."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                config, dtype=getattr(torch, dtype)
            )
    except Exception as error:  # transformers raises any class for a wrong config
        raise BackboneError(f"backbone: {str(error).splitlines()[0]}") from error
    model.requires_grad_(False)
    return model


def config_of(shape: Mapping[str, Any]) -> PreTrainedConfig:
    """The configuration of an architecture, as `shape` in conf/backbone/*.yaml gives it.

    Args:
        shape: `model_type`, and the fields of that type's configuration.

    Raises:
        BackboneError: The type or a field is unknown.
    """
    from transformers import AutoConfig

    fields = dict(shape)
    try:
        return AutoConfig.for_model(fields.pop("model_type"), **fields)
    except Exception as error:  # KeyError, ValueError, or a class of transformers
        reason = " ".join(str(error).split())[:200]
        raise BackboneError(f"backbone.shape: {reason}") from error
