"""Where and how exactly to compute."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from elrea.errors import ConfigError

_MOST_THREADS = 1024


@dataclass(frozen=True)
class Device:
    """One device of one machine."""

    accelerator: str = "auto"
    """`auto` (a GPU where there is one), `cpu`, `gpu` or `mps`."""
    precision: str = "32-true"
    """Of the training, in Lightning's words: 32-true or bf16-mixed. Adapters are float32 in either."""
    threads: int | None = None
    """CPU threads; null takes every core that this process may use."""

    def __post_init__(self) -> None:
        if self.accelerator not in ("auto", "cpu", "gpu", "mps"):
            raise ValueError(f"accelerator={self.accelerator} must be auto, cpu, gpu or mps")
        if self.threads is not None and not 1 <= self.threads <= _MOST_THREADS:
            raise ValueError(f"threads={self.threads} must be 1 to {_MOST_THREADS}, or null")

    def resolve(self) -> str:
        """The torch device's name."""
        import torch

        if self.accelerator == "cpu":
            return "cpu"
        if self.accelerator in ("auto", "gpu") and torch.cuda.is_available():
            return "cuda"
        if self.accelerator in ("auto", "mps") and torch.backends.mps.is_available():
            return "mps"
        if self.accelerator != "auto":
            raise ConfigError(
                f"trainer.accelerator={self.accelerator}: torch finds none here; say cpu or auto"
            )
        return "cpu"

    def apply(self) -> None:
        """Sets the number of threads for this process."""
        import torch

        torch.set_num_threads(self.threads or len(os.sched_getaffinity(0)))

    def lightning(self) -> dict[str, Any]:
        """Arguments for Lightning's Trainer."""
        name = {"cuda": "gpu"}.get(self.resolve(), self.resolve())
        return {"accelerator": name, "devices": 1, "precision": self.precision}
