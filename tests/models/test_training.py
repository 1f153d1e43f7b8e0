"""Training compared with the same training written out by hand, and the files it writes."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

from elrea.errors import ConfigError, TrainingError
from elrea.models import lora as lora_files
from elrea.models.adapter_shape import Lora
from elrea.models.device import Device
from elrea.models.log import OnlyProgress
from elrea.models.lora import attach
from elrea.models.training.module import AdapterModule
from elrea.models.training.moments import Moments
from elrea.models.training.schedule import Schedule
from elrea.models.training.settings import Recipe, Training
from elrea.models.training.train import epoch_folders
from tests.models.builders import BUILDERS, examples, llama, train
from tests.models.test_loss import by_hand

# The losses of `train(folder)`, a two-layer Llama with weights from one seed. If they change, adapters are trained
# differently: raise the version of the stage.
RECORDED = [4.13473, 4.07612, 5.0064, 3.61985, 3.00421, 3.1827, 3.17385, 2.27254, 2.5375]


def curve(folder: Path) -> list[dict]:
    return json.loads((folder / "curve.json").read_text())


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_adapter_and_moments_equal_adam_by_hand(kind: str, tmp_path: Path) -> None:
    """9 steps of Adam as in its paper, on gradients of the loss by its definition."""
    train(tmp_path, kind)
    model = attach(BUILDERS[kind](), Lora(r=2, dropout=0.0), 3)  # train's seed
    weights, made = lora_files.parameters(model), examples(10)
    plan = Schedule(10, 3, 4, 0.02, 0.0, 3, "base")
    m = {name: torch.zeros_like(p) for name, p in weights.items()}
    v = {name: torch.zeros_like(p) for name, p in weights.items()}
    step = 0
    for epoch in (1, 2, 3):
        rates = []
        for indices in plan.order(epoch):
            step += 1
            model.zero_grad()
            torch.stack([by_hand(model, made[i], "response") for i in indices]).mean().backward()
            rates.append(0.02 * (9 - step + 1) / 9)
            for name, p in weights.items():
                assert p.grad is not None
                m[name] = 0.9 * m[name] + 0.1 * p.grad
                v[name] = 0.999 * v[name] + 0.001 * p.grad**2
                m_hat, v_hat = m[name] / (1 - 0.9**step), v[name] / (1 - 0.999**step)
                with torch.no_grad():
                    p.sub_(rates[-1] * m_hat / (v_hat.sqrt() + 1e-8))
        kept = Moments.load(tmp_path / f"epoch_{epoch}")
        assert kept.step == step == 3 * epoch
        assert kept.learning_rate == pytest.approx(sum(rates) / 3)
        assert kept.betas == (0.9, 0.999) and kept.eps == 1e-8
        adapter, _ = lora_files.load(tmp_path / f"epoch_{epoch}")
        assert kept.exp_avg.keys() == kept.exp_avg_sq.keys() == adapter.keys() == weights.keys()
        for name, p in weights.items():
            torch.testing.assert_close(kept.exp_avg[name], m[name], rtol=1e-3, atol=1e-6)
            torch.testing.assert_close(kept.exp_avg_sq[name], v[name], rtol=1e-3, atol=1e-8)
            torch.testing.assert_close(adapter[name], p.detach(), rtol=1e-3, atol=1e-5)


def test_recorded_losses(tmp_path: Path) -> None:
    train(tmp_path)
    rows = curve(tmp_path)
    assert [row["loss"] for row in rows] == pytest.approx(RECORDED, abs=2e-4)
    assert [row["step"] for row in rows] == list(range(1, 10))
    assert [row["epoch"] for row in rows] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [row["examples"] for row in rows] == [4, 8, 10, 14, 18, 20, 24, 28, 30]
    assert [row["learning_rate"] for row in rows] == pytest.approx(
        [0.02 * k / 9 for k in range(9, 0, -1)]
    )


def test_files_and_reports(tmp_path: Path) -> None:
    counts: list[int] = []
    model = train(tmp_path, task=OnlyProgress(counts.append))
    assert counts == [4, 4, 2] * 3
    names = [path.name for path in epoch_folders(tmp_path)]
    assert names == ["epoch_1", "epoch_2", "epoch_3"]
    last, final = (lora_files.load(tmp_path / f)[0] for f in ("epoch_3", "adapter"))
    now = lora_files.state(model)
    assert all(torch.equal(last[n], final[n]) and torch.equal(now[n], final[n]) for n in now)
    assert not model.training and all(p.grad is None for p in model.parameters())
    steps = [path.name for path in (tmp_path / "checkpoint").iterdir()]
    assert steps == ["step_00000009"]  # only the newest, and no unfinished one
    train(tmp_path / "expert", keep_moments=False)
    assert epoch_folders(tmp_path / "expert") == []
    assert (tmp_path / "expert" / "adapter" / lora_files.WEIGHTS).is_file()


def test_accumulation_trains_like_the_large_batch(tmp_path: Path) -> None:
    train(tmp_path / "whole", batch_size=4)
    train(tmp_path / "parts", batch_size=2, accumulate=2)
    train(tmp_path / "uneven", batch_size=3, accumulate=2, epochs=1)  # steps of 3+3 and 3+1
    train(tmp_path / "six", batch_size=6, epochs=1)
    for one, other in [("whole", "parts"), ("six", "uneven")]:
        first, second = (lora_files.load(tmp_path / f / "adapter")[0] for f in (one, other))
        for name in first:
            torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=1e-4)
        losses = [[row["loss"] for row in curve(tmp_path / f)] for f in (one, other)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_recomputing_activations_does_not_change_the_training(tmp_path: Path) -> None:
    """With dropout. Each layer runs twice per step while it is enabled, and once afterwards."""
    passes = []
    lora = Lora(r=2, dropout=0.2)
    for name, recompute in (("kept", False), ("again", True)):
        model = attach(llama(), lora, 0)
        calls: list[int] = []
        layer = model.get_submodule("base_model.model.model.layers.0.mlp")
        layer.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        train(tmp_path / name, model=model, lora=lora, recompute=recompute)
        passes.append(len(calls))
        calls.clear()
        model.train()(input_ids=torch.tensor([[2, 3, 4]])).logits.sum().backward()
        assert len(calls) == 1
    assert passes == [9, 18]
    kept, again = (curve(tmp_path / name) for name in ("kept", "again"))
    assert kept == again
    tensors = [lora_files.load(tmp_path / name / "adapter")[0] for name in ("kept", "again")]
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())


def test_the_outcome_depends_on_the_arguments_alone(tmp_path: Path) -> None:
    """The same adapter with a used model and another global seed, with dropout."""
    lora = Lora(r=2, dropout=0.3)
    model = train(tmp_path / "a", lora=lora)
    torch.manual_seed(77)
    expected = torch.get_rng_state()
    train(tmp_path / "b", lora=lora, model=model)
    assert torch.equal(torch.get_rng_state(), expected)
    assert curve(tmp_path / "a") == curve(tmp_path / "b")
    train(tmp_path / "c", lora=lora, model=model, stage="other")
    assert curve(tmp_path / "a") != curve(tmp_path / "c")


def test_an_expert_starts_from_the_given_adapter(tmp_path: Path) -> None:
    train(tmp_path / "base")
    start, _ = lora_files.load(tmp_path / "base" / "adapter")
    train(tmp_path / "still", start=start, learning_rate=1e-12, epochs=1)
    after, _ = lora_files.load(tmp_path / "still" / "adapter")
    for name in start:
        torch.testing.assert_close(after[name], start[name], rtol=0, atol=1e-9)


def test_max_steps_ends_the_run_and_its_last_epoch(tmp_path: Path) -> None:
    train(tmp_path, max_steps=4)
    assert [row["epoch"] for row in curve(tmp_path)] == [1, 1, 1, 2]
    assert [row["learning_rate"] for row in curve(tmp_path)] == pytest.approx(
        [0.02, 0.015, 0.01, 0.005]
    )
    assert [Moments.load(path).step for path in epoch_folders(tmp_path)] == [3, 4]
    training = Training(batch_size=4, epochs=3, max_steps=4)
    assert Recipe(3, 0.02, training).epochs_begun(10) == 2


def test_a_loss_that_is_not_finite_is_an_error_with_step_and_examples(tmp_path: Path) -> None:
    model = attach(llama(), Lora(r=2, dropout=0.0), 0)
    broken = {name: torch.full_like(t, 1e30) for name, t in lora_files.state(model).items()}
    with pytest.raises(TrainingError, match=r"base: the loss is nan at step 1 \(examples made/\d"):
        train(tmp_path, model=model, start=broken)
    assert not (tmp_path / "adapter").exists()
    assert not model.training


@pytest.mark.parametrize(
    ("taken", "minutes", "kept"),
    [(8, 30.0, ["step_00000006"]), (1, 0.0, ["step_00000001"])],
    ids=["the last step", "before a checkpoint"],
)
def test_a_gradient_that_no_later_loss_shows_leaves_nothing(
    taken: int, minutes: float, kept: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is finite, its gradient is not: neither adapter nor checkpoint is written."""

    def spoil(module: AdapterModule, _: object) -> None:
        if len(module.curve) == taken:
            next(iter(module.trained.values())).grad.fill_(float("inf"))  # type: ignore[union-attr]

    monkeypatch.setattr(AdapterModule, "on_before_optimizer_step", spoil)
    said = rf"base: the adapter is not finite after step {taken + 1} \(examples made/\d.*clip=1$"
    with pytest.raises(TrainingError, match=said):
        train(tmp_path, checkpoint_minutes=minutes)
    assert not (tmp_path / "adapter").exists() and not (tmp_path / "epoch_3").exists()
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == kept


def test_clipping_bounds_the_first_moment(tmp_path: Path) -> None:
    train(tmp_path, max_steps=1, clip=1e-3)
    squares = [
        (m / 0.1).square().sum() for m in Moments.load(tmp_path / "epoch_1").exp_avg.values()
    ]
    assert float(sum(squares)) ** 0.5 == pytest.approx(1e-3, rel=1e-3)


def test_bf16_autocast_trains_a_float32_adapter(tmp_path: Path) -> None:
    train(tmp_path / "a", trainer={"accelerator": "cpu", "precision": "bf16-mixed"})
    train(tmp_path / "b")
    losses = [[row["loss"] for row in curve(tmp_path / f)] for f in "ab"]
    assert losses[0] != losses[1]
    assert losses[0][0] == pytest.approx(losses[1][0], rel=0.05)
    tensors, _ = lora_files.load(tmp_path / "a" / "adapter")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_lightning_is_silent(tmp_path: Path, capsys, caplog, recwarn) -> None:
    with caplog.at_level(logging.INFO):
        train(tmp_path, epochs=1)
    assert capsys.readouterr() == ("", "")
    assert caplog.text == "" and not recwarn.list


def test_a_precision_that_training_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^precision=16-mixed must be 32-true or bf16-mixed"):
        Device(precision="16-mixed")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("inf")),
        ("warmup", 1.0),
        ("loss_on", "prompt"),
        ("clip", 0.0),
        ("checkpoint_minutes", -1.0),
        ("max_steps", 0),
    ],
)
def test_settings_that_cannot_train_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"training\.{field}={value}"):
        Training(**{field: value})  # type: ignore[arg-type]
