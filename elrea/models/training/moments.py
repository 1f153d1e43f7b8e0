"""Adam's moments at an epoch's end, by parameter name: m and v of equation (5.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from elrea.errors import StoreError, TrainingError
from elrea.store.files import read_json, write_json

if TYPE_CHECKING:
    from torch.nn import Parameter
    from torch.optim import Optimizer

TENSORS = "moments.safetensors"
NUMBERS = "moments.json"


@dataclass(frozen=True)
class Moments:
    """Adam's state after `step` steps, for the gradient features (step 2 of the method)."""

    exp_avg: dict[str, Tensor]
    """m: running mean of the gradient, not bias-corrected, by adapter parameter name."""
    exp_avg_sq: dict[str, Tensor]
    """v: running mean of the squared gradient, not bias-corrected."""
    step: int
    """Optimiser steps taken since the adapter's start; a feature uses t = step + 1."""
    learning_rate: float
    """η_e: the mean learning rate of the epoch's steps. With linear decay the last step's is about 0."""
    betas: tuple[float, float]
    """β1 and β2, the decay rates of the moments."""
    eps: float
    """ε, added to the square root of v in Adam's denominator."""

    def save(self, folder: Path) -> None:
        """Writes `moments.safetensors` (exp_avg/NAME, exp_avg_sq/NAME) and `moments.json`."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            f"{kind}/{name}": tensor.contiguous()
            for kind, group in (("exp_avg", self.exp_avg), ("exp_avg_sq", self.exp_avg_sq))
            for name, tensor in group.items()
        }
        save_file(tensors, folder / TENSORS, metadata={"format": "pt"})
        numbers = {
            "step": self.step,
            "learning_rate": self.learning_rate,
            "betas": list(self.betas),
            "eps": self.eps,
        }
        write_json(folder / NUMBERS, numbers)

    @classmethod
    def load(cls, folder: Path) -> Moments:
        """Reads what `save` wrote.

        Raises:
            TrainingError: A file is missing or cannot be read.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            numbers = read_json(folder / NUMBERS)
            groups: dict[str, dict[str, Tensor]] = {"exp_avg": {}, "exp_avg_sq": {}}
            for key, tensor in load_file(folder / TENSORS).items():
                kind, _, name = key.partition("/")
                groups[kind][name] = tensor
            step, rate, eps = (numbers[name] for name in ("step", "learning_rate", "eps"))
            beta1, beta2 = numbers["betas"]
            if type(step) is not int or not {float, int}.issuperset(
                map(type, (rate, eps, beta1, beta2))
            ):
                raise ValueError(f"{NUMBERS} holds values that are not numbers")
            if not (0 <= step < 2**53 and 0 <= rate < 1e9 and 0 < eps < 1e9):
                raise ValueError(f"{NUMBERS}: step, learning_rate or eps is out of range")
            if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
                raise ValueError(f"{NUMBERS}: betas must be at least 0 and less than 1")
            return cls(step=step, learning_rate=rate, betas=(beta1, beta2), eps=eps, **groups)
        except (StoreError, OSError, ValueError, TypeError, LookupError, SafetensorError) as error:
            raise TrainingError(f"{folder} holds no readable moments: {error}") from error


def gather(
    optimizer: Optimizer,
    parameters: Mapping[str, Parameter],
    *,
    step: int,
    learning_rate: float,
    betas: tuple[float, float],
    eps: float,
) -> Moments:
    """Copies Adam's moments to the CPU, by parameter name.

    Args:
        optimizer: An Adam that has taken at least one step on every parameter.
        parameters: The adapter by name (`lora.parameters`).
        step: Optimiser steps taken.
        learning_rate: The epoch's mean learning rate.
        betas: The optimiser's decay rates.
        eps: The optimiser's ε.
    """
    copies: dict[str, dict[str, Tensor]] = {"exp_avg": {}, "exp_avg_sq": {}}
    for name, parameter in parameters.items():
        entry = optimizer.state[parameter]
        for kind, group in copies.items():
            group[name] = entry[kind].detach().to("cpu", copy=True)
    return Moments(**copies, step=step, learning_rate=learning_rate, betas=betas, eps=eps)
