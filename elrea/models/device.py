"""The device to compute on, and the precision."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

from elrea.errors import ConfigError

_MOST_THREADS = 1024
PRECISIONS = ("32-true", "32", "bf16-mixed")  # "32" is Lightning's other name of "32-true"


@dataclass(frozen=True)
class Device:
    """One device of this machine, or several of the same kind."""

    accelerator: str = "auto"
    """`auto` (a GPU where there is one), `cpu`, `gpu` or `mps`."""
    precision: str = "32-true"
    """Of the training, by Lightning's names: 32-true or bf16-mixed. Adapters are float32 in both."""
    threads: int | None = None
    """CPU threads per process; null uses every core that this process may use, divided among `devices`."""
    devices: int = 1
    """Number of GPUs, or of processes on a CPU. They share the extraction of features and, with `strategy`, the
    training; scoring uses the first."""
    strategy: Literal["one", "ddp", "sharded"] = "one"
    """`one`: each adapter trains on one device. `ddp`: on all `devices`, each with the whole backbone. `sharded`: on
    all, each with a part of the backbone's weights, for one that does not fit on a device; features and scores are
    then not possible."""

    def __post_init__(self) -> None:
        if self.accelerator not in ("auto", "cpu", "gpu", "mps"):
            raise ValueError(f"accelerator={self.accelerator} must be auto, cpu, gpu or mps")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision={self.precision} must be 32-true or bf16-mixed "
                "(a bfloat16 backbone with its float32 adapter is 32-true)"
            )
        if self.threads is not None and not 1 <= self.threads <= _MOST_THREADS:
            raise ValueError(f"threads={self.threads} must be 1 to {_MOST_THREADS}, or null")
        if not 1 <= self.devices <= _MOST_THREADS:
            raise ValueError(f"devices={self.devices} must be 1 to {_MOST_THREADS}")
        if self.strategy not in ("one", "ddp", "sharded"):
            raise ValueError(f"strategy={self.strategy} must be one, ddp or sharded")

    @property
    def together(self) -> int:
        """Number of processes that train one adapter."""
        return 1 if self.strategy == "one" else self.devices

    def resolve(self) -> str:
        """The name of the torch device; of several, this process's current one.

        Raises:
            ConfigError: There is no such device here, or fewer than `devices`.
        """
        import torch

        if self.accelerator == "cpu":
            return "cpu"
        if self.accelerator in ("auto", "gpu") and torch.cuda.is_available():
            self._need(torch.cuda.device_count())
            return "cuda"
        if self.accelerator in ("auto", "mps") and torch.backends.mps.is_available():
            self._need(1)
            return "mps"
        if self.accelerator != "auto":
            raise ConfigError(
                f"trainer.accelerator={self.accelerator}: torch finds none here; say cpu or auto"
            )
        return "cpu"

    def _need(self, there: int) -> None:
        if self.devices > there:
            raise ConfigError(
                f"trainer.devices={self.devices}: torch finds {there} here; say {there}"
            )

    def apply(self, processes: int = 1) -> None:
        """Sets the number of threads of this process, one of `processes` that run at the same time."""
        import torch

        torch.set_num_threads(self.threads or max(1, len(os.sched_getaffinity(0)) // processes))

    def take(self, job: int) -> None:
        """Chooses a GPU by the job's number, so that jobs of a sweep that run at the same time use different ones.

        A job to which a scheduler has given its own GPUs sees only those.
        """
        if self.devices == 1 and self.resolve() == "cuda":
            import torch

            torch.cuda.set_device(job % torch.cuda.device_count())

    def lightning(self) -> dict[str, Any]:
        """How to train by Lightning on this device: accelerator and precision."""
        name = {"cuda": "gpu"}.get(self.resolve(), self.resolve())
        return {"accelerator": name, "precision": self.precision}
