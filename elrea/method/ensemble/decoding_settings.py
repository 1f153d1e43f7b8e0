"""Settings of text generation. Importing this module does not import torch, so that commands can check them first."""

from __future__ import annotations

from dataclasses import dataclass, field

from elrea.errors import ConfigError


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen from the mixed logits.

    Raises:
        ConfigError: A value is out of range.
    """

    max_new_tokens: int = 128
    """Maximum number of tokens of an answer."""
    temperature: float = 0.0
    """0 takes the likeliest token (greedy decoding, as in the paper). Otherwise the mixed logits are divided by it and
    a token is drawn. The members' weights need not sum to 1, and their sum acts as an inverse temperature too."""
    top_k: int | None = None
    """Draw from this number of likeliest tokens only; None: from all."""
    top_p: float = 1.0
    """Draw from the smallest set of likeliest tokens whose probabilities sum to this share."""
    stop: list[str] = field(default_factory=list)
    """Stop texts: an answer ends before the first of them."""
    ends: tuple[int, ...] = ()
    """Tokens that end an answer beside the tokenizer's end of text and the model's own: a chat template's end of
    turn."""
    seed: int = 0
    """Seed of the draws."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens={self.max_new_tokens}: must be at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature={self.temperature}: must be 0 or more, and finite")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k={self.top_k}: must be at least 1, or null")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p={self.top_p}: must be above 0 and at most 1")
        if not 0 <= self.seed < 2**62:
            raise ConfigError(f"seed={self.seed}: must be 0 or more, and below 2**62")
        if not all(self.stop):
            raise ConfigError("stop: an empty text would end every answer at once")
