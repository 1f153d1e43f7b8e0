"""Balanced draws and projected gradients, each against the same thing written out by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from elrea.models import lora as lora_files
from elrea.models.adapter_shape import Lora
from elrea.models.lora import attach
from elrea.models.seeds import seed_of
from elrea.models.training.balanced import balanced
from elrea.models.training.batches import collate, items
from elrea.models.training.schedule import Schedule
from elrea.models.training.surgery import project
from tests.models.builders import BUILDERS, examples, train
from tests.models.test_loss import by_hand

CLUSTERS = [0, 2, 1, 0, 0, 2, 1, 0, 2, 0]


def by_the_paper(gradients: Tensor, seed: int) -> Tensor:
    """Algorithm 1 of Yu et al. (2020), line by line."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros_like(gradients[0])
    for i, gradient in enumerate(gradients):
        projected = gradient.clone()
        for j in torch.randperm(len(gradients), generator=generator).tolist():
            inner = projected @ gradients[j]
            if j != i and inner < 0:
                projected -= inner / gradients[j].square().sum() * gradients[j]
        total += projected
    return total


@pytest.mark.parametrize("seed", range(4))
def test_projection_follows_the_papers_algorithm(seed: int) -> None:
    torch.manual_seed(seed)
    gradients = torch.randn(5, 40)
    gradients[3] = -gradients[0] + 0.1 * gradients[1]  # conflicts for certain
    got = project(gradients, torch.Generator().manual_seed(seed))
    torch.testing.assert_close(got, by_the_paper(gradients, seed), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(got, gradients.sum(0), atol=0.1)


def test_gradients_that_agree_or_vanish_are_summed() -> None:
    agree = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    assert torch.equal(project(agree, torch.Generator()), torch.tensor([2.0, 1.0]))
    against = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert torch.equal(project(against, torch.Generator()), torch.zeros(2))


def test_training_takes_adams_step_on_the_projected_sum(tmp_path: Path) -> None:
    """Clusters' gradients by hand, of steps that several forward passes make up."""
    train(tmp_path, "llama", batch_size=2, accumulate=2, clusters=CLUSTERS)
    model = attach(BUILDERS["llama"](), Lora(r=2, dropout=0.0), 3)
    weights, made = lora_files.parameters(model), examples(10)
    plan = Schedule(10, 3, 4, 0.02, 0.0, 3, "base")
    m, v = ({name: torch.zeros_like(p) for name, p in weights.items()} for _ in range(2))
    step, conflicts = 0, 0
    for epoch in (1, 2, 3):
        for indices in plan.order(epoch):
            step += 1
            rows = []
            for cluster in sorted({CLUSTERS[i] for i in indices}):
                model.zero_grad()
                losses = [
                    by_hand(model, made[i], "response") for i in indices if CLUSTERS[i] == cluster
                ]
                (torch.stack(losses).sum() / len(indices)).backward()
                rows.append(torch.cat([p.grad.flatten() for p in weights.values()]))  # type: ignore[union-attr]
            gradients = torch.stack(rows)
            total = by_the_paper(gradients, plan.dropout_seed(step))
            conflicts += not torch.allclose(total, gradients.sum(0))
            parts = total.split([p.numel() for p in weights.values()])
            for (name, p), part in zip(weights.items(), parts, strict=True):
                gradient = part.view_as(p)
                m[name] = 0.9 * m[name] + 0.1 * gradient
                v[name] = 0.999 * v[name] + 0.001 * gradient**2
                m_hat, v_hat = m[name] / (1 - 0.9**step), v[name] / (1 - 0.999**step)
                with torch.no_grad():
                    p.sub_(0.02 * (9 - step + 1) / 9 * m_hat / (v_hat.sqrt() + 1e-8))
    assert conflicts, "no step had a conflict"
    adapter, _ = lora_files.load(tmp_path / "adapter")
    for name, p in weights.items():
        torch.testing.assert_close(adapter[name], p.detach(), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("loss_on", ["response", "all"])
def test_a_groups_rows_are_a_batch_of_its_examples(loss_on: str) -> None:
    made = items(examples(10), loss_on, CLUSTERS)
    for group in set(CLUSTERS):
        got = collate(made, 0, 10).of_group(group)
        wanted = collate([item for item in made if item.group == group], 0, 10)
        assert all(map(torch.equal, got, wanted))


def test_a_step_that_is_cut_into_passes_gives_the_same_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "whole", clusters=CLUSTERS)
    monkeypatch.setattr("elrea.models.training.loop.pass_cost", lambda _model: 0.0)
    train(tmp_path / "cut", clusters=CLUSTERS)
    whole, cut = (lora_files.load(tmp_path / name / "adapter")[0] for name in ("whole", "cut"))
    for name, tensor in whole.items():
        torch.testing.assert_close(cut[name], tensor, rtol=1e-3, atol=1e-5)


def test_one_cluster_trains_as_without_any(tmp_path: Path) -> None:
    train(tmp_path / "plain")
    train(tmp_path / "one", clusters=[0] * 10)
    plain, one = (lora_files.load(tmp_path / name / "adapter")[0] for name in ("plain", "one"))
    for name, tensor in plain.items():
        torch.testing.assert_close(one[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("draws", [10, 30, 32, 7])
def test_every_cluster_is_drawn_as_often(draws: int) -> None:
    drawn = balanced(CLUSTERS, draws, 0)
    assert len(drawn) == draws
    of_clusters = Counter(CLUSTERS[i] for i in drawn)
    assert {*of_clusters.values()} <= {draws // 3, draws // 3 + 1}
    counts = Counter(drawn)
    for cluster in range(3):
        often = [counts[i] for i, c in enumerate(CLUSTERS) if c == cluster]
        assert max(often) - min(often) <= 1
    assert drawn == balanced(CLUSTERS, draws, 0) != balanced(CLUSTERS, draws, seed_of(0, "other"))


def test_each_example_of_a_cluster_is_drawn_with_the_same_probability() -> None:
    """P(i) = 1 / (C n_c): over many seeds, 20 draws of 3 clusters of 5, 2 and 3 examples."""
    total = Counter[int]()
    for seed in range(600):
        total.update(balanced(CLUSTERS, 20, seed))
    for i, cluster in enumerate(CLUSTERS):
        wanted = 20 / (3 * CLUSTERS.count(cluster))
        assert total[i] / 600 == pytest.approx(wanted, rel=0.07)
