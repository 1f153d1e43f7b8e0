"""What a backbone and its adapters take, by its architecture alone: nothing is downloaded, no weight is made.

The model is built on torch's meta device, whose tensors have shapes and no memory. What a training step keeps for its
backward pass is added up by a hook on every saved tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from elrea.errors import BackboneError
from elrea.models.lora import Lora, attach, parameters

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

NF4 = 4.127 / 8
"""Bytes per weight of QLoRA's 4 bits: the code, and constants of constants (Dettmers et al. 2023, section 3)."""
LOADED = {"4bit": NF4, "8bit": 1.0}
OPTIMISED = 16
"""Bytes per trained parameter: itself, its gradient and Adam's two moments, in float32."""


@dataclass(frozen=True)
class Footprint:
    """A backbone's and one adapter's size.

    Attributes:
        parameters: Of the backbone, tied ones once.
        weights: Bytes that they take.
        adapter: Parameters of one adapter.
        cache: Bytes of keys and values per token and row.
    """

    parameters: int
    weights: int
    adapter: int
    cache: int
    _model: PeftModel
    _layers: int

    @classmethod
    def of(
        cls, config: PreTrainedConfig, lora: Lora, dtype: str, quantise: str | None
    ) -> Footprint:
        """Of an architecture.

        Args:
            config: transformers'.
            lora: The adapters' shape.
            dtype: Of what is not quantised, `float32` or `bfloat16`.
            quantise: `4bit`, `8bit` or None.

        Raises:
            BackboneError: transformers has no causal language model of this kind.
        """
        import torch
        from torch import nn
        from transformers import AutoModelForCausalLM
        from transformers.pytorch_utils import Conv1D

        try:
            with torch.device("meta"):
                model: PreTrainedModel = AutoModelForCausalLM.from_config(
                    config, dtype=getattr(torch, dtype)
                )
        except Exception as error:  # whatever a config makes go wrong there
            raise BackboneError(f"backbone: {str(error).splitlines()[0]}") from error
        model.requires_grad_(False)
        size = next(model.parameters()).element_size()
        total = sum(p.numel() for p in model.parameters())
        head = model.get_output_embeddings()
        linear = sum(
            module.weight.numel()
            for module in model.modules()
            if isinstance(module, nn.Linear | Conv1D) and module is not head
        )
        small = LOADED.get(quantise or "", size)
        text = config.get_text_config()
        whole = getattr(text, "num_attention_heads", 0)  # none: it keeps no keys
        heads = getattr(text, "num_key_value_heads", None) or whole
        width = getattr(text, "head_dim", None) or text.hidden_size // max(1, whole)
        layers = text.num_hidden_layers
        peft = attach(model, lora, 0)
        return cls(
            total, int((total - linear) * size + linear * small),
            sum(p.numel() for p in parameters(peft).values()), 2 * layers * heads * width * size, peft, layers,
        )  # fmt: skip

    def saved(self, rows: int, length: int, targets: int, recompute: bool = False) -> int:
        """Bytes that one forward pass keeps for the backward pass, and the gradient of its logits.

        Args:
            rows: Sequences in it.
            length: Tokens of each.
            targets: Tokens that carry loss, of all rows together.
            recompute: Keep the layers' inputs alone, and one layer's insides.

        Raises:
            BackboneError: The model cannot be run without values, or not at that length.
        """
        try:
            return self._saved(rows, length, targets, recompute)
        except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
            raise BackboneError(f"backbone: {str(error).splitlines()[0]}") from error

    def _saved(self, rows: int, length: int, targets: int, recompute: bool) -> int:
        import torch

        from elrea.models.loss import logits_at

        kept: dict[int, Tensor] = {}

        def pack(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage()._cdata] = tensor
            return tensor

        model: Any = self._model.get_base_model()
        size = next(model.parameters()).dtype
        ids = torch.zeros(rows, length, dtype=torch.long, device="meta")
        # A mask of four dimensions is taken as it is; to make one, values would have to be looked at.
        mask = torch.zeros(1, 1, length, length, dtype=size, device="meta")
        places = torch.zeros(targets, dtype=torch.long, device="meta")
        self._model.train()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            logits = logits_at(model, ids, places, attention_mask=mask).float()
            torch.nn.functional.cross_entropy(logits, places, reduction="none")
        self._model.eval()
        own = {p.untyped_storage()._cdata for p in self._model.parameters()}
        total = sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in own)
        logits_bytes = logits.untyped_storage().nbytes()
        if recompute:
            inside = total - logits_bytes
            inputs = (
                rows * length * model.config.get_text_config().hidden_size * logits.element_size()
            )
            total = logits_bytes + inside // self._layers + inputs * self._layers
        return total + logits_bytes


def config_of(shape: Mapping[str, Any]) -> PreTrainedConfig:
    """transformers' config of an architecture, as conf/backbone/*.yaml words it.

    Args:
        shape: `model_type`, and the fields of that type's config.

    Raises:
        BackboneError: No such type, or a field that it does not take.
    """
    from transformers import AutoConfig

    fields = dict(shape)
    try:
        return AutoConfig.for_model(fields.pop("model_type"), **fields)
    except Exception as error:  # a KeyError, a ValueError, or transformers' own
        said = " ".join(str(error).split())[:200]
        raise BackboneError(f"backbone.shape: {said}") from error
