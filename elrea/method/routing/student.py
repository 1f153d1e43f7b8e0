"""The student: a small model that predicts a prompt's cosines from its hidden states; its training and its files."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from elrea.errors import DataError, StoreError, TrainingError
from elrea.method.clustering.centroids import blocks
from elrea.method.features.gradient import extract
from elrea.method.features.to_disk import NAME, open_features, stream
from elrea.method.routing.files import COSINES, FIGURES, WEIGHTS
from elrea.models.seeds import seed_of
from elrea.store.files import read_json, write_json
from elrea.store.manifest import CHECKPOINT

if TYPE_CHECKING:
    from peft import PeftModel

    from elrea.data.prompts import Encoded
    from elrea.method.features.base import Advance
    from elrea.method.features.states import PromptStates
    from elrea.method.routing.weights import Labelled, Progress

BATCH = 64
"""Prompts in one optimiser step."""


class Settings(Protocol):
    """Settings of a student; `Distilled` has and documents them."""

    @property
    def states(self) -> PromptStates: ...

    @property
    def width(self) -> int | None: ...

    @property
    def epochs(self) -> int: ...

    @property
    def patience(self) -> int: ...

    @property
    def learning_rate(self) -> float: ...

    @property
    def held_out(self) -> float: ...


class Student(nn.Module):
    """cos = centre + scale·f((x - mean) / spread), with f linear or with one hidden layer.

    Args:
        inputs: H, the length of a prompt's states.
        clusters: C.
        width: Hidden units; None makes f linear.
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
        normalised: Tensor = self.net((x - self.mean) / self.spread)
        return self.centre + self.scale * normalised

    @torch.no_grad()
    def predict(self, states: np.ndarray) -> Tensor:
        """cos_c of every row of [n, H], clamped to [-1, 1]: [n, C]; 0 for a prompt without states (a row of zeros)."""
        cosines = torch.empty(len(states), len(self.centre))
        for rows, x in blocks(states):
            cosines[rows] = self(x).clamp(-1, 1) * x.any(dim=1, keepdim=True)
        return cosines


def save(folder: Path, student: Student, settings: Any, figures: dict[str, Any]) -> None:
    """Writes `router.safetensors`, and `router.json` with the figures and the settings (a dataclass)."""
    save_file(student.state_dict(), folder / WEIGHTS)
    write_json(folder / FIGURES, {**figures, "settings": asdict(settings)})


def load(folder: Path) -> Student:
    """Reads the student that `save` wrote; its shape follows from its tensors.

    Raises:
        StoreError: The file is missing, or is no student.
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
    """The contents of `router.json`."""
    figures: dict[str, Any] = read_json(folder / FIGURES)
    return figures


def write_cosines(folder: Path, cosines: Tensor) -> None:
    """Writes predicted cosines [n, C]."""
    save_file({"cosines": cosines}, folder / COSINES)


def read_cosines(folder: Path) -> Tensor:
    """Reads the cosines [n, C] that `write_cosines` wrote."""
    return load_file(folder / COSINES)["cosines"]


@dataclass(frozen=True)
class Lesson:
    """Inputs and targets of a student, to train on or to evaluate with.

    Attributes:
        states: Hidden states of the prompts [n, H], possibly memory-mapped.
        cosines: cos_c by gradient [n, C]; rows of zeros are prompts without a gradient, and are not used.
    """

    states: np.ndarray
    cosines: Tensor

    @property
    def rows(self) -> Tensor:
        """Numbers of the prompts that have a gradient."""
        return self.cosines.any(dim=1).nonzero()[:, 0]

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """States [b, H] and cosines [b, C] of some prompts."""
        states = np.asarray(self.states[rows.numpy()], dtype=np.float32)
        return torch.from_numpy(states), self.cosines[rows]


def fit(
    train: Lesson,
    dev: Lesson | None,
    settings: Settings,
    seed: int,
    advance: Callable[[int], object] = lambda _n: None,
) -> tuple[Student, dict[str, Any]]:
    """Trains a student by the mean squared error of the cosines, with all clusters weighted alike.

    Args:
        train: Training prompts.
        dev: Prompts to stop by. If None, or if none of them has a gradient, a seeded share of the training prompts.
        settings: Settings of the student and its training.
        seed: Seed of the initial weights, the order and the held-out share. The same seed gives the same student.
        advance: Called with the number of prompts after each step.

    Returns:
        The student of the best epoch, and figures: `curve` (mean squared error on both sets after each epoch),
        `epoch` (the best one), `train` and `dev` (numbers of prompts), `held_out` (whether dev prompts are held-out
        training prompts), `explained` (1 - error/variance on dev).

    Raises:
        DataError: Fewer than two prompts to learn from.
        TrainingError: The error is not finite.
    """
    rows, judged, held_out = _split(train, dev, settings, seed)
    student = _fresh(train, rows, settings, seed)
    optimiser = torch.optim.Adam(student.parameters(), lr=settings.learning_rate)
    curve: list[dict[str, float]] = []
    lowest, best, kept = float("inf"), 0, student.state_dict()
    for epoch in range(settings.epochs):
        error = _epoch(student, optimiser, train, rows, _generator(seed, epoch), advance)
        with torch.no_grad():
            loss = float((student(judged[0]) - judged[1]).square().mean())
        curve.append({"epoch": epoch + 1, "train": error, "dev": loss})
        if not math.isfinite(loss):
            raise TrainingError(
                f"the distilled router's error is {loss} after epoch {epoch + 1}: lower routing.learning_rate "
                f"({settings.learning_rate:g})"
            )
        if loss < lowest:
            lowest, best = loss, epoch
            kept = {name: tensor.clone() for name, tensor in student.state_dict().items()}
        elif epoch - best >= settings.patience:
            break
    student.load_state_dict(kept)
    variance = float((judged[1] - student.centre).square().mean())
    return student.eval(), {
        "curve": curve,
        "epoch": best + 1,
        "train": len(rows),
        "dev": len(judged[1]),
        "held_out": held_out,
        "explained": 1 - lowest / variance if variance > 0 else 0.0,
    }


def _split(
    train: Lesson, dev: Lesson | None, settings: Settings, seed: int
) -> tuple[Tensor, tuple[Tensor, Tensor], bool]:
    """Rows to train on, states and cosines to stop by, and whether the latter are held-out training prompts."""
    rows = train.rows
    if dev is not None and len(dev.rows):
        return rows, dev.batch(dev.rows), False
    if len(rows) < 2:
        raise DataError(
            f"routing=distilled: {len(rows)} training prompts with a gradient, too few to learn from; give more"
        )
    order = rows[torch.randperm(len(rows), generator=_generator(seed, "held out"))]
    count = min(max(1, round(settings.held_out * len(rows))), len(rows) - 1)
    return order[count:].sort().values, train.batch(order[:count].sort().values), True


def _fresh(train: Lesson, rows: Tensor, settings: Settings, seed: int) -> Student:
    """A student whose inputs have mean 0 and variance 1, and whose first predictions are near the targets' means."""
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


def _epoch(
    student: Student,
    optimiser: torch.optim.Optimizer,
    train: Lesson,
    rows: Tensor,
    generator: torch.Generator,
    advance: Callable[[int], object],
) -> float:
    """Trains for one epoch; returns the mean squared error of its steps."""
    total = 0.0
    for part in rows[torch.randperm(len(rows), generator=generator)].split(BATCH):
        x, y = train.batch(part)
        error = (student(x) - y).square().mean()
        optimiser.zero_grad()
        (error / student.scale.square()).backward()
        optimiser.step()
        total += float(error.detach()) * len(part)
        advance(len(part))
    return total / len(rows)


def _generator(seed: int, part: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(seed, "router", part))


def distil(
    folder: Path,
    model: PeftModel,
    adapter: Path,
    train: Labelled,
    dev: Labelled | None,
    settings: Settings,
    *,
    seed: int,
    pad_id: int,
    progress: Progress,
) -> None:
    """Computes the prompts' hidden states and trains a student on them: `LearnedRouter.train` of `Distilled`.

    Writes `router.safetensors` and `router.json`. The training prompts' states are a memory-mapped file in
    `checkpoint/` meanwhile: a resumed run reuses them, and the store deletes them with that folder.
    """
    prompts, cosines = train
    place = folder / CHECKPOINT / "states"
    place.mkdir(parents=True, exist_ok=True)
    with progress("hidden states, train prompts", len(prompts), "prompts") as advance:
        reader = settings.states.reader(model, [adapter], pad_id)
        stream(place, prompts, settings.states, reader, advance=advance)
    judged = None
    if dev is not None:
        rows = extract(model, [adapter], dev[0], settings.states, pad_id=pad_id)
        judged = Lesson(rows.numpy(), dev[1])
    lesson = Lesson(open_features(place / NAME, len(prompts)), cosines)
    with progress("train router", len(prompts) * settings.epochs, "prompts x epochs") as advance:
        student, figures = fit(lesson, judged, settings, seed, advance)
    save(folder, student, settings, {**figures, "passes": round(reader.cost, 6)})


def predict(
    folder: Path,
    model: PeftModel,
    adapter: Path,
    prompts: Sequence[Encoded],
    settings: Settings,
    *,
    pad_id: int,
    advance: Advance = lambda _n: None,
) -> Tensor:
    """Predicts cos_c [n, C] by one forward pass of the base adapter per prompt: `predict` of `Distilled`."""
    states = extract(model, [adapter], prompts, settings.states, pad_id=pad_id, advance=advance)
    return load(folder).predict(states.numpy())
