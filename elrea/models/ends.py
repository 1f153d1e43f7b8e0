"""Tokens that end a text for a backbone itself, without its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elrea.models.backbone import Pretrained


def own_ends(backbone: Pretrained) -> frozenset[int]:
    """The end-of-text tokens of generation_config.json, or of the configuration if there is no such file.

    Raises:
        BackboneError: The configuration cannot be loaded.
    """
    from transformers import GenerationConfig

    try:
        found = GenerationConfig.from_pretrained(
            backbone.location, revision=backbone.revision or "main"
        ).eos_token_id
    except OSError:  # no such file
        found = getattr(backbone.config().get_text_config(), "eos_token_id", None)
    return frozenset([found] if isinstance(found, int) else found or ())
