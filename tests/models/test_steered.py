"""Steered training, held against one cluster at a time, plain LoRA, and PEFT's own reading of its folders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from elrea.models import lora as lora_files
from elrea.models.adapter_shape import Lora
from elrea.models.log import OnlyProgress
from elrea.models.lora import attach
from elrea.models.training.batches import collate, items
from elrea.models.training.checkpoint import latest
from elrea.models.training.settings import Recipe, Training
from elrea.models.training.steered import FACTORS, ClusterFactors, SteeredModule, train_steered
from elrea.models.training.steering import Steering
from tests.models.architectures import built
from tests.models.builders import (
    BUILDERS,
    PAD,
    contents,
    examples,
    gpt2,
    llama,
    random_state,
    train,
)
from tests.models.test_loss import by_hand

THREE = [0, 2, 1, 1, 0, 2, 2, 0, 1, 2]
"""Clusters of the ten examples."""


def steered(
    folder: Path, steering: Steering, kind: str = "llama", clusters: Any = THREE, **given: Any
) -> PeftModel:
    """Trains as `builders.train` does."""
    lora = Lora(r=2, dropout=given.pop("dropout", 0.0)).of_rank(steering.rank)
    fields = {k: given.pop(k) for k in list(given) if k in Training.__dataclass_fields__}
    training = Training(**{"learning_rate": 0.02, "batch_size": 4, **fields})
    model = attach(BUILDERS[kind](), lora, 0)
    recipe = Recipe(training.epochs, training.learning_rate, training)
    train_steered(
        model, examples(10), clusters, recipe, steering, pad_id=PAD, lora=lora, base_name="made-up", seed=3,
        stage="base", folder=folder, **given,
    )  # fmt: skip
    return model


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in json.loads((folder / "curve.json").read_text())]


def module_of(steering: Steering, kind: str, seed: int = 5) -> SteeredModule:
    """A module in training whose A, B and factors are all random, in float64."""
    lora = Lora(r=2, dropout=0.0).of_rank(steering.rank)
    backbone = BUILDERS[kind]() if kind in BUILDERS else built(kind)
    model = attach(backbone.double(), lora, 0)
    lora_files.set_state(model, {n: 0.3 * t for n, t in random_state(model).items()})
    factors = ClusterFactors(model, steering).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in factors.values:
            value.copy_(torch.randn(value.shape, generator=generator))
    training = Training(batch_size=4)
    found = [
        item._replace(group=c)
        for item, c in zip(items(examples(10), "response"), THREE, strict=True)
    ]
    schedule = Recipe(1, 0.1, training).schedule(found, 0, "x")
    module = SteeredModule(model.double(), factors, schedule, found, training, PAD)
    model.double()
    return module


def gradients(module: SteeredModule, groups: list[list[int]]) -> dict[str, Tensor]:
    """Gradients of the mean loss of all examples, in batches of these examples; and "loss"."""
    total = torch.zeros((), dtype=torch.float64)
    module.zero_grad()
    with module.factors.acting(module.model):
        for some in groups:
            batch = collate([module.examples[i] for i in some], PAD, 10)
            loss = module.training_step(batch, 0)
            loss.backward()
            total += loss.detach()
    found = {name: p.grad.clone() for name, p in module.trained.items() if p.grad is not None}
    return {**found, "loss": total}


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize(("form", "added"), [("full", 0), ("diagonal", 0), ("full", 1)])
def test_mixed_batches_are_one_cluster_at_a_time(kind: str, form: Any, added: int) -> None:
    module = module_of(Steering(form, 3.0, 3, "found", 2, added), kind)
    alone = [[i for i in range(10) if THREE[i] == cluster] for cluster in range(3)]
    mixed = gradients(module, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]])
    single = gradients(module, alone)
    assert mixed.keys() == single.keys() and len(mixed) == len(module.trained) + 1
    for name in mixed:
        torch.testing.assert_close(mixed[name], single[name], rtol=1e-6, atol=1e-9)
    # A cluster's factors have no gradient from the others' rows.
    for name, value in gradients(module, [alone[1]]).items():
        if name.endswith(".steering"):
            assert not value[[0, 2]].any() and value[1].any()


@pytest.mark.parametrize("kind", ["opt", "rwkv"])
def test_rows_without_a_dimension_of_their_own_are_steered_too(kind: str) -> None:
    """Some architectures flatten a batch before their layers; others have no attention."""
    module = module_of(Steering("full", 3.0, 3, "found", 2, 1), kind)
    mixed = gradients(module, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]])
    single = gradients(module, [[i] for i in range(10)])
    for name in mixed:
        torch.testing.assert_close(mixed[name], single[name], rtol=1e-5, atol=1e-8)
    assert float(mixed["loss"]) > 0


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize(("form", "added"), [("full", 0), ("diagonal", 0), ("full", 2)])
def test_a_cluster_alone_is_its_folded_adapter_by_hand(kind: str, form: Any, added: int) -> None:
    """The loss of PEFT's model with A' = [A; A_c], B' = [B M_c, B_c], by the loss's definition."""
    steering = Steering(form, 3.0, 3, "found", 2, added)
    module = module_of(steering, kind)
    tensors = lora_files.state(module.model)
    factors = lora_files.copied(module.factors.by_name())
    scale = Lora(r=2).scale
    for cluster in range(3):
        mine = [i for i in range(10) if THREE[i] == cluster]
        got = gradients(module, [mine])["loss"] * 10 / len(mine)
        plain = attach(
            BUILDERS[kind]().double(), Lora(r=2 + added, alpha=scale * (2 + added), dropout=0), 0
        )
        wanted = {}
        first = 2 + cluster * added
        for name, a in tensors.items():
            if ".lora_A." in name:
                layer = name.removesuffix(".lora_A.weight")
                b, m = tensors[f"{layer}.lora_B.weight"], factors[f"{layer}.steering"][cluster]
                m = torch.diag(m) if form == "diagonal" else m
                own = slice(first, first + added)
                wanted[name] = torch.cat([a[:2], a[own]])
                wanted[f"{layer}.lora_B.weight"] = torch.cat([b[:, :2] @ m, b[:, own]], dim=1)
        plain.double()
        lora_files.set_state(plain, wanted)
        made = examples(10)
        hand = torch.stack([by_hand(plain, made[i], "response") for i in mine]).mean()
        torch.testing.assert_close(got, hand.detach().double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("form", ["full", "diagonal"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_without_factors_rate_it_is_the_wide_adapter(
    form: Any, dropout: float, tmp_path: Path
) -> None:
    """The corner of the family: M_c = 1 for all clusters, up to the rounding of products in another order."""
    steered(tmp_path / "one", Steering(form, 0.0, 3, "found", 4), dropout=dropout)
    train(tmp_path / "wide", lora=Lora(r=4, dropout=dropout), keep_moments=False)
    wide, _ = lora_files.load(tmp_path / "wide" / "adapter")
    assert losses(tmp_path / "one") == pytest.approx(losses(tmp_path / "wide"), rel=1e-5)
    for cluster in range(3):
        member, _ = lora_files.load(tmp_path / "one" / f"steered-{cluster}")
        for name in wide:
            torch.testing.assert_close(member[name], wide[name], rtol=0, atol=1e-4)


def test_experts_alone_are_trained_on_their_own_examples(tmp_path: Path) -> None:
    """The other corner: without A and B, an expert's first update is Adam's on its cluster's examples alone."""
    steering = Steering("full", 3.0, 3, "found", 0, 2)
    steered(tmp_path, steering, batch_size=10, epochs=1)
    model = attach(llama(), Lora(r=2, dropout=0.0).of_rank(6), 0)
    lora_files.initialise(model, 3)
    start = lora_files.state(model)
    made = examples(10)
    for cluster in range(3):
        alone = attach(llama(), Lora(r=2, dropout=0.0), 0)
        rows = slice(2 * cluster, 2 * cluster + 2)
        lora_files.set_state(
            alone, {n: t[rows] if ".lora_A." in n else t[:, rows] for n, t in start.items()}
        )
        mine = [i for i in range(10) if THREE[i] == cluster]
        (torch.stack([by_hand(alone, made[i], "response") for i in mine]).sum() / 10).backward()
        member, _ = lora_files.load(tmp_path / f"steered-{cluster}")
        for name, p in lora_files.parameters(alone).items():
            assert p.grad is not None
            step = 0.02 * p.grad / (p.grad.abs() + 1e-8)  # Adam's first one
            torch.testing.assert_close(member[name], (p - step).detach(), rtol=1e-3, atol=1e-4)


def test_factors_have_a_rate_of_their_own(tmp_path: Path) -> None:
    """Adam's steps are of about the rate's size, so factors move `rate` times as far in the first one that B allows."""
    model = steered(tmp_path, Steering("full", 5.0, 3, "found", 2), batch_size=10, epochs=2)
    found = load_file(tmp_path / FACTORS)
    # B is 0 in the first step, and so is the gradient of M; Adam's second step is (1 - β1)·g over √((1 - β2)·g²),
    # both corrected for two steps, at half the rate.
    size = 5.0 * 0.01 * (0.1 / (1 - 0.9**2)) / (0.001 / (1 - 0.999**2)) ** 0.5
    moved = torch.cat([(m - torch.eye(2)).abs().flatten() for m in found.values()])
    assert float(moved.median()) == pytest.approx(size, rel=1e-3)
    assert len(found) == len(lora_files.parameters(model)) / 2


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize(("form", "added"), [("full", 0), ("diagonal", 0), ("full", 1)])
def test_folders_give_peft_the_logits_of_the_training(
    kind: str, form: Any, added: int, tmp_path: Path
) -> None:
    steering = Steering(form, 3.0, 3, "found", 2, added)
    model = steered(tmp_path, steering, kind, epochs=6)
    model.double()  # the folders hold float32, so that only their own rounding is left
    factors = ClusterFactors(model, steering).double()
    with torch.no_grad():
        for name, value in factors.by_name().items():
            value.copy_(load_file(tmp_path / FACTORS)[name])
    ids = torch.tensor([[2, 5, 9, 14], [2, 8, 8, 30], [2, 20, 6, 31]])
    with factors.acting(model), torch.no_grad():
        factors.clusters = torch.tensor([2, 0, 1])
        trained = model(input_ids=ids).logits
    spread = trained.std()
    for row, cluster in enumerate([2, 0, 1]):
        plain = PeftModel.from_pretrained(
            {"llama": llama, "gpt2": gpt2}[kind](), str(tmp_path / f"steered-{cluster}")
        ).double()
        with torch.no_grad():
            alone = plain(input_ids=ids[[row]]).logits[0]
        torch.testing.assert_close(trained[row] / spread, alone / spread, rtol=1e-6, atol=1e-6)
    others = (trained[0] - trained[1]).abs().max()
    assert float(others) > 1e-3


def test_recomputed_activations_are_steered_too(tmp_path: Path) -> None:
    steering = Steering("full", 3.0, 3, "found", 2, 1)
    steered(tmp_path / "kept", steering, dropout=0.2)
    steered(tmp_path / "again", steering, dropout=0.2, recompute=True)
    assert losses(tmp_path / "kept") == pytest.approx(losses(tmp_path / "again"), rel=1e-5)
    assert losses(tmp_path / "kept")[0] > losses(tmp_path / "kept")[-1]


SCRIPT = """
import os, signal, sys, torch
from pathlib import Path
from elrea.models.log import OnlyProgress
from tests.models.test_steered import STEERING, steered
torch.set_num_threads(1)
steps = []
def count(examples):
    steps.append(examples)
    if len(steps) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
steered(Path(sys.argv[1]), STEERING, dropout=0.2, checkpoint_minutes=1e-9, task=OnlyProgress(count))
"""
STEERING = Steering("full", 3.0, 3, "found", 2, 1)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_killed_and_resumed_training_equals_an_unbroken_one(tmp_path: Path) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    root = Path(__file__).parents[2]
    killed = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(broken)],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, stderr=subprocess.PIPE,
    )  # fmt: skip
    counts: list[int] = []
    steered(whole, STEERING, dropout=0.2, task=OnlyProgress(counts.append))  # at the same time
    _, errors = killed.communicate(timeout=300)
    assert killed.returncode == -signal.SIGKILL, errors.decode()
    found = latest(broken / "checkpoint")
    assert found is not None and len(found.progress["curve"]) == 5
    groups = found.optimizer["param_groups"]
    assert [group.get("multiple") for group in groups] == [None, 3.0]
    assert not (broken / "steered-0").exists()
    steered(broken, STEERING, dropout=0.2)
    assert contents(broken) == contents(whole)
    assert counts == [4, 4, 2] * 3


@pytest.mark.usefixtures("forked")
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Each takes its share of a batch's rows, with their clusters."""
    from elrea.models.backbone import Pretrained
    from elrea.models.device import Device
    from elrea.models.training.parallel import TrainingTask, train_shares

    llama().save_pretrained(tmp_path / "model")
    from tests.small_models import byte_tokenizer

    byte_tokenizer().save_pretrained(tmp_path / "model")
    steering = Steering("full", 3.0, 3, "found", 2)
    lora = Lora(r=2, dropout=0.0)
    training = Training(learning_rate=0.02, batch_size=4)
    work = TrainingTask(
        tmp_path / "two", examples(10), Recipe(1, 0.02, training), Pretrained(str(tmp_path / "model")), lora, 3, "base",
        None, False, Device("cpu", devices=2, threads=1), steering=steering, clusters=THREE,
    )  # fmt: skip
    train_shares(work)
    steered(tmp_path / "one", steering, epochs=1)
    for name, value in load_file(tmp_path / "one" / FACTORS).items():
        torch.testing.assert_close(
            load_file(tmp_path / "two" / FACTORS)[name], value, rtol=1e-4, atol=1e-5
        )
