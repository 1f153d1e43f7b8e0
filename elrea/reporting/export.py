"""What a run leaves in its folder beside its summary and predictions: plots and the finished ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from elrea.evaluation.statistics import paired_interval
from elrea.method.ensemble.saved import save_ensemble
from elrea.method.ensemble.strategy import expert_names
from elrea.method.features.to_disk import NAME, open_features
from elrea.pipeline.experiment import Result, described
from elrea.pipeline.run import Pipeline
from elrea.reporting.plots import run as plots
from elrea.reporting.summary import curves, data_name, source_counts


def draw(
    folder: Path, pipeline: Pipeline, result: Result, summary: dict[str, Any], chosen: str
) -> dict[str, Path]:
    """The run's pictures, by name; `chosen` is the strategy of interest."""
    folder.mkdir(exist_ok=True)
    note, test = data_name(pipeline), pipeline.it.corpus.test
    pictures = {name: folder / f"{name}.png" for name in ("accuracy", "training")}
    chance = float(np.mean([1 / len(e.choices) if e.choices else 0.0 for e in test]))
    plots.accuracy(summary["strategies"], pictures["accuracy"], chance, note)
    plots.training_curves(curves(pipeline), pictures["training"], note)
    subjects = by_subject(pipeline, result, chosen)
    if len(subjects) > 1 and chosen != "base":
        pictures["subjects"] = folder / "subjects.png"
        plots.differences(subjects, pictures["subjects"], chosen, note)
    clusters = result.routing.cosines.shape[1]
    if pipeline.plan.clustered:
        pictures["clusters"] = folder / "clusters.png"
        names = [f"cluster {c}" for c in range(clusters)]
        sources, counts = source_counts(pipeline, result)
        plots.heat_map(counts, sources, names, pictures["clusters"], note)
        pictures["features"] = folder / "features.png"
        rows = open_features(pipeline.plan.train_features.folder / NAME)
        kept = [example.source for example in pipeline.kept("train")]
        plots.scatter(rows, result.assignment, kept, pictures["features"], note)
    if pipeline.plan.routed:
        pictures["routing"] = folder / "routing.png"
        routing = torch.cat([result.routing.base[:, None], result.routing.experts()], dim=1).numpy()
        tested = sorted({example.source for example in test})
        places = np.array([tested.index(example.source) for example in test])
        means = np.stack([routing[places == i].mean(0) for i in range(len(tested))], axis=1)
        plots.routing(means, ["base", *expert_names(clusters)], tested, pictures["routing"], note)
    return pictures


def by_subject(
    pipeline: Pipeline, result: Result, chosen: str
) -> dict[str, tuple[float, tuple[float, float]]]:
    """By task of the test items, a strategy's accuracy less the base adapter's, and its paired 95 % interval."""
    it, found = pipeline.it, {}
    mine, base = (np.array(result.outcomes[name].correct) for name in (chosen, "base"))
    tasks = np.array([it.corpus.task_of(example) for example in it.corpus.test])
    for name in sorted(set(tasks.tolist())):
        a, b = (list(correct[tasks == name]) for correct in (mine, base))
        bounds = paired_interval(a, b, it.seed, it.evaluation.resamples)
        found[name] = (float(np.mean(a) - np.mean(b)), bounds)
    return found


def export(folder: Path, pipeline: Pipeline, summary: dict[str, Any]) -> None:
    """The finished ensemble, where experts were trained: base adapter, experts and routing state."""
    from elrea.models.training.train import epoch_folders

    stages = {"base": pipeline.plan.base, **pipeline.plan.adapters()}
    centroids = pipeline.plan.read_clusters()["centroids"]
    names = [name for name in ("base", *expert_names(len(centroids))) if name in stages]
    it = pipeline.it
    facts = {
        "backbone": {
            "name": it.backbone.shown_name,
            "fingerprint": it.backbone.identity(),
            "revision": it.backbone.revision,
            "max_length": it.backbone.max_length,
            "dtype": it.backbone.dtype,
            "quantise": it.backbone.quantise,
        },
        "use_chat_template": it.backbone.use_chat_template,
        "features": described(it.features),
        "router": described(it.router),
    }
    rows = "\n".join(
        f"| {name} | {100 * row['accuracy']:.2f} % | {row['n']} |"
        for name, row in summary["strategies"].items()
    )
    card = {
        "backbone": it.backbone.shown_name,
        "clusters": len(names) - 1,
        "data": data_name(pipeline),
        "rows": rows,
        "note": f"{data_name(pipeline)}, seed {it.seed}.",
    }
    save_ensemble(
        folder,
        {name: stages[name].folder / "adapter" for name in names},
        [] if pipeline.plan.distils else epoch_folders(pipeline.plan.base.folder),
        centroids,
        facts,
        card,
        pipeline.plan.router.folder if pipeline.plan.distils else None,
    )
