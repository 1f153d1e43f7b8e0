"""The student: a small model from a prompt's hidden states to its cosines with the clusters, and its training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from elrea.data.prompts import Encoded
from elrea.errors import DataError, StoreError, TrainingError
from elrea.method.clustering.centroids import blocks
from elrea.method.features.gradient import extract
from elrea.method.features.protocol import Advance
from elrea.method.features.to_disk import NAME, open_features, stream
from elrea.method.routing.distilled import Distilled
from elrea.models.seeds import seed_of
from elrea.store.files import read_json, write_json
from elrea.store.manifest import CHECKPOINT

if TYPE_CHECKING:
    from peft import PeftModel

WEIGHTS, ABOUT = "router.safetensors", "router.json"
BATCH = 64
"""Prompts to a step."""


class Student(nn.Module):
    """cos = centre + scale·f((x - mean) / spread), f linear or with one hidden layer.

    Args:
        inputs: H, of a prompt's states.
        clusters: C.
        width: Hidden units; None: linear.
    """

    mean: Tensor
    spread: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(self, inputs: int, clusters: int, width: int | None) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("spread", torch.ones(inputs))
        self.register_buffer("centre", torch.zeros(clusters))
        self.register_buffer("scale", torch.ones(()))
        self.net: nn.Module = nn.Linear(inputs, clusters)
        if width is not None:
            self.net = nn.Sequential(
                nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, clusters)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Cosines [b, C] of states [b, H]."""
        found: Tensor = self.net((x - self.mean) / self.spread)
        return self.centre + self.scale * found

    @torch.no_grad()
    def predict(self, states: np.ndarray) -> Tensor:
        """cos_c within [-1, 1] of every row [n, C]; 0 for a prompt without states (a row of zeros)."""
        found = torch.empty(len(states), len(self.centre))
        for rows, x in blocks(states):
            found[rows] = self(x).clamp(-1, 1) * x.any(dim=1, keepdim=True)
        return found


@dataclass(frozen=True)
class Lesson:
    """What a student learns from, or is judged by.

    Attributes:
        states: Of the prompts [n, H], possibly memory-mapped.
        cosines: cos_c by gradient [n, C]; rows of zeros had no gradient, and count for nothing.
    """

    states: np.ndarray
    cosines: Tensor

    @property
    def rows(self) -> Tensor:
        """Numbers of the prompts that have a gradient."""
        return self.cosines.any(dim=1).nonzero()[:, 0]

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """States and cosines of some prompts."""
        return torch.from_numpy(
            np.asarray(self.states[rows.numpy()], dtype=np.float32)
        ), self.cosines[rows]


def fit(
    train: Lesson,
    dev: Lesson | None,
    settings: Distilled,
    seed: int,
    advance: Callable[[int], object] = lambda _n: None,
) -> tuple[Student, dict[str, Any]]:
    """Trains a student by mean squared error of the cosines, all clusters weighing the same.

    Args:
        train: The training prompts.
        dev: Prompts to stop by; None, or none that has a gradient: a seeded share of the training prompts.
        settings: Of the student and its training.
        seed: Of its first weights, the order and the held-out share. The same seed makes the same student.
        advance: Told how many prompts an epoch has gone through.

    Returns:
        The student of the best epoch, and figures: `curve` (per epoch the mean squared error of both), `epoch` (the
        best one), `train`, `dev` (numbers of prompts), `held_out`, `explained` (1 - error/variance on dev).

    Raises:
        DataError: Fewer than two prompts to learn from.
    """
    rows = train.rows
    held_out = dev is None or not len(dev.rows)
    if held_out:
        if len(rows) < 2:
            raise DataError(
                f"routing=distilled: {len(rows)} training prompts with a gradient, too few to learn from; give more"
            )
        order = rows[torch.randperm(len(rows), generator=_generator(seed, "held out"))]
        count = min(max(1, round(settings.held_out * len(rows))), len(rows) - 1)
        judged, rows = train.batch(order[:count].sort().values), order[count:].sort().values
    else:
        assert dev is not None
        judged = dev.batch(dev.rows)
    student = _fresh(train, rows, settings, seed)
    optimiser = torch.optim.Adam(student.parameters(), lr=settings.learning_rate)
    curve: list[dict[str, float]] = []
    best, at, kept = float("inf"), 0, student.state_dict()
    for epoch in range(settings.epochs):
        order = rows[torch.randperm(len(rows), generator=_generator(seed, epoch))]
        total = 0.0
        for part in order.split(BATCH):
            x, y = train.batch(part)
            error = (student(x) - y).square().mean()
            optimiser.zero_grad()
            (error / student.scale.square()).backward()
            optimiser.step()
            total += float(error.detach()) * len(part)
            advance(len(part))
        with torch.no_grad():
            loss = float((student(judged[0]) - judged[1]).square().mean())
        curve.append({"epoch": epoch + 1, "train": total / len(rows), "dev": loss})
        if not math.isfinite(loss):
            raise TrainingError(
                f"the distilled router's error is {loss} after epoch {epoch + 1}: lower routing.learning_rate "
                f"({settings.learning_rate:g})"
            )
        if loss < best:
            best, at = loss, epoch
            kept = {name: tensor.clone() for name, tensor in student.state_dict().items()}
        elif epoch - at >= settings.patience:
            break
    student.load_state_dict(kept)
    variance = float((judged[1] - student.centre).square().mean())
    return student.eval(), {
        "curve": curve,
        "epoch": at + 1,
        "train": len(rows),
        "dev": len(judged[1]),
        "held_out": held_out,
        "explained": 1 - best / variance if variance > 0 else 0.0,
    }


def save(folder: Path, student: Student, settings: Distilled, figures: dict[str, Any]) -> None:
    """Writes `router.safetensors` and `router.json`."""
    save_file(student.state_dict(), folder / WEIGHTS)
    write_json(folder / ABOUT, {**figures, "settings": asdict(settings)})


def load(folder: Path) -> Student:
    """The student that `save` wrote; its shape is that of its tensors.

    Raises:
        StoreError: The file is not there, or holds something else.
    """
    path = folder / WEIGHTS
    try:
        tensors = load_file(path)
        width = len(tensors["net.0.bias"]) if "net.0.bias" in tensors else None
        student = Student(len(tensors["mean"]), len(tensors["centre"]), width)
        student.load_state_dict(tensors)
    except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0]
        raise StoreError(f"{path} is no distilled router: {line}") from error
    return student.eval()


def read_figures(folder: Path) -> dict[str, Any]:
    """`router.json`."""
    found: dict[str, Any] = read_json(folder / ABOUT)
    return found


def _fresh(train: Lesson, rows: Tensor, settings: Distilled, seed: int) -> Student:
    """A student whose inputs have mean 0 and variance 1, and whose guesses begin around the targets' means."""
    inputs = train.states.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "router"))
        student = Student(inputs, train.cosines.shape[1], settings.width)
    sums, squares = torch.zeros(2, inputs, dtype=torch.float64)
    for part in rows.split(4096):
        x = train.batch(part)[0].double()
        sums += x.sum(0)
        squares += x.square().sum(0)
    mean = sums / len(rows)
    spread = (squares / len(rows) - mean.square()).clamp(min=0).sqrt()
    student.mean.copy_(mean)
    student.spread.copy_(torch.where(spread > 1e-6 * (1 + mean.abs()), spread, 1.0))
    student.centre.copy_(train.cosines[rows].mean(0))
    scale = (train.cosines[rows] - student.centre).square().mean().sqrt()
    student.scale.copy_(scale.clamp(min=1e-6))
    return student


def _generator(seed: int, part: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(seed, "router", part))


COSINES = "cosines.safetensors"

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
Taught = tuple[Sequence[Encoded], Tensor]
"""Prompts, and their cosines by gradient [n, C]."""


def distil(
    folder: Path,
    model: PeftModel,
    adapter: Path,
    train: Taught,
    dev: Taught | None,
    settings: Distilled,
    *,
    seed: int,
    pad_id: int,
    progress: Progress,
) -> None:
    """Trains the router: writes `router.safetensors` and `router.json`.

    The training prompts' states are a memory-mapped file in `checkpoint/` while it works: a killed run finds them
    again, and the store drops them afterwards.

    Args:
        folder: Where to.
        model: A PEFT model of the base adapter's shape; its adapter is replaced by the finished one.
        adapter: PEFT folder of the base adapter.
        train: What is learned.
        dev: What the training is stopped by; None holds training prompts out.
        settings: Of the router.
        seed: Of the student.
        pad_id: The id that fills up short prompts.
        progress: Makes a progress bar.
    """
    states, (prompts, cosines) = settings.states, train
    place = folder / CHECKPOINT / "states"
    place.mkdir(parents=True, exist_ok=True)
    with progress("hidden states, train prompts", len(prompts)) as advance:
        reader = states.reader(model, [adapter], pad_id)
        stream(place, prompts, states, reader, advance=advance)
    judged = None
    if dev is not None:
        rows = extract(model, [adapter], dev[0], states, pad_id=pad_id)
        judged = Lesson(rows.numpy(), dev[1])
    lesson = Lesson(open_features(place / NAME, len(prompts)), cosines)
    with progress("train router", len(prompts) * settings.epochs) as advance:
        student, figures = fit(lesson, judged, settings, seed, advance)
    save(folder, student, settings, {**figures, "passes": round(reader.cost, 6)})


def predict(
    folder: Path,
    model: PeftModel,
    adapter: Path,
    prompts: Sequence[Encoded],
    settings: Distilled,
    *,
    pad_id: int,
    advance: Advance = lambda _n: None,
) -> Tensor:
    """cos_c of prompts by one forward pass of the base adapter each [n, C].

    Args:
        folder: Of the trained router.
        model, adapter, settings, pad_id: As above.
        prompts: Without responses.
        advance: Told how many prompts are done.
    """
    states = extract(model, [adapter], prompts, settings.states, pad_id=pad_id, advance=advance)
    return load(folder).predict(states.numpy())


def write_cosines(folder: Path, cosines: Tensor) -> None:
    """Keeps predicted cosines [n, C]."""
    save_file({"cosines": cosines}, folder / COSINES)


def read_cosines(folder: Path) -> Tensor:
    """The cosines [n, C] that `write_cosines` kept."""
    return load_file(folder / COSINES)["cosines"]
