"""What lm-eval passes to a model, in the project's own terms."""

from __future__ import annotations

import logging
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs

from elrea.backbone.device import Device
from elrea.ensemble.decoding import Decoding
from elrea.ensemble.ensemble import BATCH
from elrea.errors import ConfigError

DEVICES = {"cpu": "cpu", "cuda": "gpu", "gpu": "gpu", "mps": "mps", "auto": "auto"}
USED = {"until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p"}
"""Of lm-eval's settings of a generation."""

log = logging.getLogger(__name__)


def decoding_of(given: dict[str, Any]) -> Decoding:
    """The settings of a generation, from those that lm-eval gives (`gen_kwargs`).

    Without a temperature, `do_sample` draws at 1, as transformers does.

    Raises:
        ConfigError: A value out of range.
    """
    found: dict[str, Any] = dict(normalize_gen_kwargs(given))
    if unused := sorted(found.keys() - USED):
        log.warning("not used: gen_kwargs %s", ", ".join(unused))
    sampled = found["do_sample"]
    top_k = found.get("top_k") or 0
    return Decoding(
        max_new_tokens=found["max_gen_toks"],
        temperature=float(found.get("temperature", 1.0)) if sampled else 0.0,
        top_k=top_k if sampled and top_k > 0 else None,
        top_p=float(found.get("top_p") or 1.0) if sampled else 1.0,
        stop=[text for text in found["until"] if text],
    )


def device_of(name: str | None) -> Device:
    """Where to compute, by torch's name of it; None takes a GPU where there is one.

    Raises:
        ConfigError: No such device.
    """
    kind, _, number = str(name or "auto").partition(":")
    if kind not in DEVICES or number not in ("", "0"):
        raise ConfigError(f"device={name}: wants cpu, cuda or mps")
    return Device(DEVICES[kind])


def batch_size_of(given: int | str | None) -> int:
    """Contexts in one pass; None and `auto` are the ensemble's own number.

    Raises:
        ConfigError: No such number.
    """
    if given is None or str(given).startswith("auto"):
        return BATCH
    if not str(given).isdecimal() or int(given) < 1:
        raise ConfigError(f"batch_size={given}: wants a number of 1 or more, or auto")
    return int(given)
