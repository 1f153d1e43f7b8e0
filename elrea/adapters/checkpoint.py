"""Lightning checkpoints as safetensors + JSON: a folder that can be read, and trusted.

Lightning's own `.ckpt` is pickle, which runs what it reads, and holds the backbone. Here:
    adapter.safetensors     the adapter by parameter name
    optimizer.safetensors   Adam's state as KIND/NAME (exp_avg/…, exp_avg_sq/…, step/…)
    state.json              the loops' progress, the loss curve, the optimiser's settings; checksums of all three
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

from pytorch_lightning.plugins.io import CheckpointIO
from torch import Tensor

from elrea.adapters.folders import publish
from elrea.errors import StoreError, TrainingError
from elrea.files import canonical, jsonable, read_json, sha256, write_json

ADAPTER = "adapter.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"


class SafetensorsIO(CheckpointIO):
    """Reads and writes such folders; each is written aside and renamed into place."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write one checkpoint folder.

        Args:
            checkpoint: Lightning's, with one optimiser whose parameters are named.
            path: the folder to make.
            storage_options: not used.

        Raises:
            StoreError: the checkpoint holds what JSON cannot, or a file cannot be written.
            OSError: no space left, or no permission.
        """
        from safetensors.torch import save_file

        rest = dict(checkpoint)
        adapter = {name: _plain(tensor) for name, tensor in rest.pop("state_dict").items()}
        (optimizer,) = rest.pop("optimizer_states")
        (group,) = optimizer["param_groups"]
        names = group["param_names"]
        moments = {
            f"{kind}/{names[index]}": _plain(tensor)
            for index, entry in optimizer["state"].items()
            for kind, tensor in entry.items()
        }
        rest["optimizer"] = {key: value for key, value in group.items() if key != "params"}

        def write(folder: Path) -> None:
            save_file(adapter, folder / ADAPTER)
            save_file(moments, folder / OPTIMIZER)
            sums = {name: sha256(folder / name) for name in (ADAPTER, OPTIMIZER)}
            state = jsonable(rest)
            write_json(folder / STATE, {"state": state, "sha256": sums, "own_sha256": _sum(state)})

        publish(Path(path), write)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint folder back into Lightning's form, tensors on the CPU.

        Args:
            path: the folder.
            map_location: not used; Lightning moves the tensors to where the model is.
            weights_only: not used; there is nothing in the files that could run.

        Raises:
            TrainingError: a file is missing or not, to the bit, what `save_checkpoint` wrote.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(path)
        try:
            written = read_json(folder / STATE)
            checkpoint: dict[str, Any] = written["state"]
            sums = {name: sha256(folder / name) for name in (ADAPTER, OPTIMIZER)}
            if written["sha256"] != sums or written["own_sha256"] != _sum(checkpoint):
                raise ValueError("its checksums do not hold")
            group = checkpoint.pop("optimizer")
            group["betas"] = tuple(group["betas"])
            indices = {name: index for index, name in enumerate(group["param_names"])}
            state: dict[int, dict[str, Tensor]] = {index: {} for index in indices.values()}
            for key, tensor in load_file(folder / OPTIMIZER).items():
                kind, _, name = key.partition("/")
                state[indices[name]][kind] = tensor
            group["params"] = list(state)
            checkpoint["state_dict"] = load_file(folder / ADAPTER)
            checkpoint["optimizer_states"] = [{"state": state, "param_groups": [group]}]
        except (StoreError, OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
            raise TrainingError(f"checkpoint {folder} is damaged ({error})") from error
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint folder, if it is there."""
        shutil.rmtree(path, ignore_errors=True)


def _sum(state: Any) -> str:
    """SHA-256 of what state.json says."""
    return hashlib.sha256(canonical(state).encode()).hexdigest()


def _plain(tensor: Tensor) -> Tensor:
    """The tensor as safetensors takes it."""
    return tensor.detach().cpu().contiguous()
