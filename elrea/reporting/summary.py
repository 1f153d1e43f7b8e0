"""summary.json: what a run came to, in figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from elrea.evaluation.strategy_figures import strategy_figures
from elrea.method.ensemble.strategy import Layerwise, Voting
from elrea.method.routing.distilled import agreement
from elrea.method.routing.student import read_figures
from elrea.models.training.early_stop import best_epoch, dev_losses
from elrea.pipeline.experiment import Result
from elrea.pipeline.run import Pipeline
from elrea.store.files import read_json
from elrea.store.manifest import versions


def data_name(pipeline: Pipeline) -> str:
    """The corpus' name with what a reader must know of it."""
    corpus = pipeline.it.corpus
    return f"{corpus.name} ({corpus.note})" if corpus.note else corpus.name


def forward_passes(pipeline: Pipeline, result: Result) -> dict[str, float]:
    """Passes per prompt of each strategy: one per member that weighs anything, as often as texts are drawn, and what
    the prompt's feature costs."""
    it, distils = pipeline.it, pipeline.plan.distils
    routing = it.features.passes(len(pipeline.epochs))
    if distils:
        routing = read_figures(pipeline.plan.router.folder)["passes"]
    passes = {}
    for name, strategy in it.strategies.items():
        asked = float((result.weights[name] != 0).sum(1).float().mean())
        own = 1.0 if isinstance(strategy, Layerwise) else asked
        if isinstance(strategy, Voting) and (texts := result.outcomes[name].text):
            own *= 1 + (strategy.samples - 1) * (1 - texts.count(None) / len(texts))
        passes[name] = own + routing * bool(strategy.routed)
    for part in pipeline.parts.values():
        passes |= forward_passes(part, result)
    return passes


def summarise(pipeline: Pipeline, result: Result) -> dict[str, Any]:
    """The contents of summary.json.

    Args:
        pipeline: Finished.
        result: What it came to.
    """
    it = pipeline.it
    return {
        "data": data_name(pipeline),
        "backbone": it.backbone.shown_name,
        "seed": it.seed,
        "strategies": strategy_figures(
            result.outcomes,
            forward_passes(pipeline, result),
            it.seed,
            it.evaluation.resamples,
            [it.corpus.task_of(example) for example in it.corpus.test],
        ),
        "clusters": _cluster_figures(pipeline, result),
        "routing": _routing_figures(pipeline, result) if pipeline.plan.routed else {},
        "examples": {
            "train": len(it.corpus.train),
            "train_dropped_too_long": len(result.dropped),
            "test": len(it.corpus.test),
            "test_too_long": result.too_long,
            **_shots(pipeline, result),
            **{
                f"{split}_without_feature": {"count": len(ids), "ids": ids}
                for split, ids in result.skipped.items()
            },
            **({"left_out": list(it.corpus.left_out)} if it.corpus.left_out else {}),
        },
        "stages": {
            name: {
                "key": stage.key,
                "seconds": round(stage.seconds, 3),
                "reused": result.reused[name],
            }
            for name, stage in pipeline.stages().items()
            if stage.done()
        },
        **({"early_stop": stops} if (stops := early_stops(pipeline)) else {}),
        "versions": versions(),
    }


def _shots(pipeline: Pipeline, result: Result) -> dict[str, Any]:
    """How many solved examples test prompts were to have at most, and how many they had room for."""
    if not result.shots:
        return {}
    wanted = [len(example.shots) for example in pipeline.it.corpus.test]
    lost = sum(shown < most for shown, most in zip(result.shots, wanted, strict=True))
    mean = sum(result.shots) / len(result.shots)
    return {
        "test_shots": {"wanted": max(wanted), "mean": round(mean, 4), "prompts_with_fewer": lost}
    }


def _cluster_figures(pipeline: Pipeline, result: Result) -> dict[str, Any]:
    """What the clusters are like, and `by_source`: how many of each source's training examples each of them holds."""
    if not pipeline.plan.clustered:
        return result.quality
    sources, counts = source_counts(pipeline, result)
    return {**result.quality, "by_source": dict(zip(sources, counts.tolist(), strict=True))}


def _routing_figures(pipeline: Pipeline, result: Result) -> dict[str, Any]:
    """Mean w_base, mean entropy of the experts' weights, how many prompts lie nearest to each cluster; of a distilled
    router its training, and how it agrees with the gradients."""
    experts, cosines = result.routing.experts(), result.routing.cosines
    entropy = -(experts * experts.clamp_min(1e-30).log()).sum(1)
    distilled: dict[str, Any] = {}
    if pipeline.plan.distils:
        figures = read_figures(pipeline.plan.router.folder)
        distilled = {name: figures[name] for name in ("epoch", "explained", "dev", "held_out")}
    if result.gradient is not None:
        distilled |= agreement(result.routing, result.gradient)
    return {
        "w_base": round(float(result.routing.base.mean()), 6),
        "entropy_nats": round(float(entropy.mean()), 6),
        "nearest": torch.bincount(cosines.argmax(1), minlength=cosines.shape[1]).tolist(),
        **({"distilled": distilled} if distilled else {}),
    }


def curves(pipeline: Pipeline) -> dict[str, list[dict[str, Any]]]:
    """Training curve of every adapter by name."""
    adapters = pipeline.plan.adapters()
    stages = {"base": pipeline.plan.base, **adapters}
    for name, gates in pipeline.plan.gates(adapters).items():
        stages[f"gates-{name}"] = gates
    return {name: read_json(stage.folder / "curve.json") for name, stage in stages.items()}


def early_stops(pipeline: Pipeline) -> dict[str, dict[str, Any]]:
    """Of each adapter that was trained with early stop: epochs that were trained, the one that was kept, its loss on
    dev (nats per token)."""
    found = {}
    for name, rows in curves(pipeline).items():
        if losses := dev_losses(rows):
            kept = best_epoch(rows)
            found[name] = {"trained": max(losses), "kept": kept, "dev_loss": round(losses[kept], 6)}
    return found


def source_counts(pipeline: Pipeline, result: Result) -> tuple[list[str], np.ndarray]:
    """Sources, and how many of their training examples each cluster holds [sources, C]."""
    kept = pipeline.kept("train")
    sources = sorted({example.source for example in kept})
    counts = np.zeros((len(sources), result.routing.cosines.shape[1]), dtype=int)
    for example, cluster in zip(kept, result.assignment, strict=True):
        if cluster >= 0:
            counts[sources.index(example.source), cluster] += 1
    return sources, counts
