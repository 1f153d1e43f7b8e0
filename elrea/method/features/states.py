"""Hidden states of the base adapter's pass over a prompt: features, and inputs of the distilled router."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from elrea.data.batches import pad
from elrea.errors import ConfigError
from elrea.method.features.base import Advance, Features
from elrea.method.features.embedding import HiddenStates
from elrea.models.lora import load, set_state

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from elrea.data.prompts import Encoded

Layer = Literal["last", "early"] | int
Pooling = Literal["mean", "last", "both"]


@dataclass(frozen=True)
class PromptStates(Features):
    """Features from one forward pass with the base adapter.

    Attributes:
        where: Config group of the settings, for messages.
        layer: Number of decoder layers after which states are read; later layers are not computed. `last`: after all
            layers and the final norm; `early`: after a quarter of the layers.
        pooling: Mean over the prompt's tokens [H], the last token [H], or both concatenated [2·H].
    """

    layer: Layer = "last"
    pooling: Pooling = "both"
    batch_size: int = 32
    batch_tokens: int = 8192
    normalise: bool = False
    where: ClassVar[str] = "routing"

    def fits(self, model: PeftModel) -> None:
        self.depth(model)

    def depth(self, model: PeftModel) -> int | None:
        """Number of decoder layers after which states are read; None: after all layers and the final norm.

        Raises:
            ConfigError: There are not that many layers.
        """
        backbone = cast("PreTrainedModel", model.get_base_model())
        layers = int(backbone.config.get_text_config().num_hidden_layers)
        if isinstance(self.layer, int):
            if not 1 <= self.layer <= layers:
                raise ConfigError(
                    f"{self.where}.layer={self.layer}: the backbone has {layers} layers; "
                    f"give 1 to {layers}, early or last"
                )
            return self.layer if self.layer < layers else None
        return None if self.layer == "last" or layers == 1 else math.ceil(layers / 4)

    def reader(
        self,
        model: PeftModel,
        checkpoints: Sequence[Path],
        pad_id: int,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> AdaptedStates:
        """As for `Features`; the model gets the adapter of the last checkpoint."""
        set_state(model, load(checkpoints[-1])[0])
        return AdaptedStates(model, pad_id, self)


@dataclass(frozen=True)
class States(PromptStates):
    """Hidden states in place of gradients: what does the gradient add?

    One forward pass with the finished base adapter, up to `layer`; no backward pass and no moments.
    """

    layer: Layer = "last"
    """Decoder layers after which states are read, from 1; `last`: after all, `early`: after a quarter of them."""
    pooling: Pooling = "mean"
    """`mean` over the prompt's tokens, its `last` token, or `both`."""
    normalise: bool = True
    """Scale a feature to length 1."""
    batch_size: int = 32
    """Prompts in one pass at most. Speed and memory only."""
    batch_tokens: int = 8192
    """Tokens in one pass at most, padding included. Speed and memory only."""
    where: ClassVar[str] = "features"

    def __post_init__(self) -> None:
        self.check_sizes("batch_size", "batch_tokens")


class AdaptedStates(HiddenStates):
    """Computes `PromptStates` in one pass per batch, without output head and gradients.

    Args:
        model: A PEFT model with the adapter.
        pad_id: Token id of padding.
        states: Layer and pooling.

    Attributes:
        cost: Share of the decoder layers that are computed.
    """

    def __init__(self, model: PeftModel, pad_id: int, states: PromptStates) -> None:
        super().__init__(model, pad_id)
        self.depth, self.pooling = states.depth(model), states.pooling
        self.dimension *= 2 if states.pooling == "both" else 1
        self.layers = int(self.body.config.get_text_config().num_hidden_layers)
        self.cost = 1.0 if self.depth is None else self.depth / self.layers

    @torch.no_grad()
    def _rows(self, batch: Sequence[Encoded], advance: Advance) -> Tensor:
        ids, mask = pad([prompt.prompt for prompt in batch], self.pad_id)
        advance(len(batch))
        if not ids.shape[1]:
            return torch.zeros(len(batch), self.dimension)
        # A GPU sends the features alone, not every token's states.
        mask = mask.to(self.model.device)
        states = self._hidden(ids.to(self.model.device)).float() * mask[..., None]
        lengths = mask.sum(1)
        mean = states.sum(1) / lengths[:, None].clamp(min=1)
        rows = torch.arange(len(batch), device=states.device)
        last = states[rows, (lengths - 1).clamp(min=0)]
        parts = {"mean": [mean], "last": [last], "both": [mean, last]}[self.pooling]
        return torch.cat(parts, dim=1).cpu()

    def _hidden(self, ids: Tensor) -> Tensor:
        """States [b, t, H] of token ids [b, t]; later layers are not computed."""
        stop = None
        if self.depth is not None:
            lists = (m for m in self.body.modules() if isinstance(m, nn.ModuleList))
            layers = next(m for m in lists if len(m) == self.layers)
            stop = layers[self.depth - 1].register_forward_hook(_reached)
        try:
            # No attention mask: padding is on the right, which causal attention never reads.
            hidden: Tensor = self.body(input_ids=ids, use_cache=False).last_hidden_state
        except _ReachedError as reached:
            hidden = reached.states
        finally:
            if stop is not None:
                stop.remove()
        return hidden


class _ReachedError(Exception):
    """Ends a pass after the layer whose states are read."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = states


def _reached(_layer: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
    raise _ReachedError(output if isinstance(output, Tensor) else output[0])
