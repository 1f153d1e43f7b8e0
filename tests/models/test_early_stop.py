"""Early stop: when it stops, which epoch it keeps, and that a killed run ends like an unbroken one."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from elrea.errors import ConfigError, TrainingError
from elrea.models.log import OnlyProgress
from elrea.models.lora import attach, load, set_state
from elrea.models.training import early_stop
from elrea.models.training.early_stop import EarlyStop, best_epoch, dev_losses
from elrea.store.files import read_json
from tests.models.builders import BUILDERS, PAD, contents, examples, train
from tests.models.test_resume import LORA, Died, dying_after

DEV = examples(7, seed=9)
LONG: dict[str, Any] = {
    "epochs": 12,
    "learning_rate": 0.15,
    "dev": DEV,
    "lora": LORA,
    "early_stop": 2,
}
"""A learning rate at which training overfits: the loss on dev rises after a few epochs."""


def curve_of(*losses: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for epoch, loss in enumerate(losses, 1):
        rows += [{"epoch": epoch, "loss": 0.0}, {"epoch": epoch, "loss": 0.0, "dev_loss": loss}]
    return rows


@pytest.mark.parametrize(
    ("losses", "patience", "over", "best"),
    [
        ([3.0], 1, False, 1),
        ([3.0, 2.0], 1, False, 2),
        ([3.0, 3.5], 1, True, 1),
        ([3.0, 3.5], 2, False, 1),
        ([3.0, 3.5, 2.9], 2, False, 3),
        ([3.0, 3.5, 3.0], 2, True, 1),  # equal is not lower
        ([3.0, 2.0, 2.5, 2.4], 2, True, 2),
        ([3.0, 2.0, 2.5, 2.4], 3, False, 2),
    ],
)
def test_it_stops_when_patience_is_over(
    losses: list[float], patience: int, over: bool, best: int, tmp_path: Path
) -> None:
    curve = curve_of(*losses)
    assert EarlyStop([], patience, tmp_path, lambda _: None).over(curve) is over
    assert best_epoch(curve) == best
    assert dev_losses(curve) == dict(enumerate(losses, 1))


def by_hand(folder: Path) -> float:
    """Mean over the dev examples of the mean over their response's tokens, computed one example at a time."""
    model = attach(BUILDERS["llama"](), LORA, 0)
    set_state(model, load(folder)[0])
    model.eval()
    each = []
    with torch.no_grad():
        for example in DEV:
            tokens = torch.tensor([*example.prompt, *example.response])
            logits = model(input_ids=tokens[None]).logits[0]
            first = len(example.prompt)
            each.append(cross_entropy(logits[first - 1 : -1], tokens[first:]).item())
    return sum(each) / len(each)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    train(folder, **LONG)
    return folder


def test_the_best_epoch_is_kept(stopped: Path) -> None:
    curve = read_json(stopped / "curve.json")
    losses, best = dev_losses(curve), best_epoch(curve)
    assert 1 < best < 10 and max(losses) == best + 2  # it stopped, and not at once
    folders = sorted(path.name for path in stopped.glob("epoch_*"))
    assert folders == [f"epoch_{epoch}" for epoch in range(1, best + 1)]
    kept, _ = load(stopped / "adapter")
    last, _ = load(stopped / f"epoch_{best}")
    assert all(torch.equal(kept[name], last[name]) for name in kept)
    assert losses[best] == pytest.approx(by_hand(stopped / "adapter"), rel=1e-5)
    assert losses[1] == pytest.approx(by_hand(stopped / "epoch_1"), rel=1e-5)


def test_all_processes_take_the_first_ones_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each one's own sum may differ in the last digit: one would stop while the others wait for it."""
    monkeypatch.setattr(early_stop, "agreed", lambda loss: loss + 1)
    train(tmp_path, **LONG)
    curve = read_json(tmp_path / "curve.json")
    monkeypatch.undo()
    assert dev_losses(curve)[1] == pytest.approx(by_hand(tmp_path / "epoch_1") + 1, rel=1e-5)


def test_until_it_stops_the_losses_are_those_without_early_stop(
    stopped: Path, tmp_path: Path
) -> None:
    """Measuring draws no random numbers and leaves dropout on."""
    train(tmp_path, **{**LONG, "early_stop": None})
    whole = read_json(tmp_path / "curve.json")
    short = read_json(stopped / "curve.json")
    assert [row["loss"] for row in short] == [row["loss"] for row in whole[: len(short)]]
    assert len(short) < len(whole) and not dev_losses(whole)


def test_without_dev_all_epochs_are_trained(tmp_path: Path) -> None:
    train(tmp_path / "a", **{**LONG, "epochs": 3, "dev": ()})
    train(tmp_path / "b", **{**LONG, "epochs": 3, "dev": (), "early_stop": None})
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_the_model_has_the_best_adapter_afterwards(stopped: Path, tmp_path: Path) -> None:
    model = train(tmp_path, **LONG)
    kept, _ = load(stopped / "adapter")
    from elrea.models.lora import state

    assert all(torch.equal(tensor, kept[name]) for name, tensor in state(model).items())
    assert not model.training


def test_dying_again_and_again(stopped: Path, tmp_path: Path) -> None:
    """Killed every few steps, with checkpoints at epochs' ends only or after every step."""
    for minutes, steps in itertools.islice(itertools.cycle([(0, 3), (10, 7), (0, 2)]), 40):
        try:
            train(tmp_path, **LONG, checkpoint_minutes=minutes, task=dying_after(steps))
        except Died:
            continue
        break
    else:
        pytest.fail("it never ended")
    assert contents(tmp_path) == contents(stopped)


def test_a_finished_training_takes_no_step_again(stopped: Path, tmp_path: Path) -> None:
    train(tmp_path, **LONG)
    steps: list[int] = []
    train(tmp_path, **LONG, task=OnlyProgress(steps.append))
    assert len(steps) == 1  # of all steps before, and no new one
    assert contents(tmp_path) == contents(stopped)


def test_batch_size_changes_the_loss_on_dev_by_rounding_only(stopped: Path) -> None:
    from elrea.models.training.batches import items
    from elrea.models.training.settings import Training

    class Module:
        model = attach(BUILDERS["llama"](), LORA, 0)
        pad_id = PAD
        device = torch.device("cpu")

    set_state(Module.model, load(stopped / "adapter")[0])
    found = []
    for size in (1, 2, 7):
        module: Any = Module()
        module.settings = Training(batch_size=size)
        stop = EarlyStop(items(DEV, "response"), 1, stopped, lambda _: None)
        found.append(stop.measure(module))
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)


def test_a_loss_on_dev_that_is_not_finite_is_an_error(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(EarlyStop, "measure", lambda *_: float("nan"))
    with pytest.raises(TrainingError, match=r"^base: the loss on dev is nan after epoch 1; lower"):
        train(tmp_path, **LONG)


def test_no_patience_is_refused() -> None:
    from elrea.models.training.settings import Training

    with pytest.raises(ConfigError, match=r"^training.early_stop=0: must be at least 1, or null$"):
        Training(early_stop=0)
