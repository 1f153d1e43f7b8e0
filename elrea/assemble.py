"""From a composed config to an experiment of plain objects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from elrea.config import build
from elrea.errors import ConfigError, DataError

if TYPE_CHECKING:
    from elrea.experiment import Experiment

ALWAYS = "base"
"""Every difference is taken to it."""


def assemble(cfg: DictConfig, chosen: str, folder: Path) -> Experiment:
    """Builds every part of a run and reads its data.

    Args:
        cfg: The composed config.
        chosen: Name of the strategy that `ensemble=` picks.
        folder: The config folder, where the other strategies' files are.

    Raises:
        ElreaError: Whatever is wrong, in one line.
    """
    from elrea.experiment import Experiment

    evaluation = build(cfg.evaluation, "evaluation")
    strategies = {
        name: build(cfg.ensemble if name == chosen else node, f"ensemble[{name}]")
        for name, node in strategy_nodes(folder, [*evaluation.strategies, chosen]).items()
    }
    seed = cfg.seed
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ConfigError(f"seed={seed} must be a whole number, 0 or more")
    corpus = build(cfg.data, "data").load()
    if evaluation.split == "dev":
        if not corpus.dev:
            raise DataError("evaluation.split=dev: this data has no dev examples; score test")
        note = f"{corpus.note}; scored on dev" if corpus.note else "scored on dev"
        corpus = replace(corpus, test=corpus.dev, dev=(), note=note)
    return Experiment(
        corpus=corpus,
        backbone=build(cfg.backbone, "backbone"),
        lora=build(cfg.adapter, "adapter"),
        training=build(cfg.training, "training"),
        features=build(cfg.features, "features"),
        clustering=build(cfg.clustering, "clustering"),
        router=build(cfg.routing, "routing"),
        strategies=strategies,
        evaluation=evaluation,
        device=build(cfg.trainer, "trainer"),
        seed=seed,
    )


def strategy_nodes(folder: Path, names: list[str]) -> dict[str, Any]:
    """Config nodes of strategies by name: the wanted ones and base, `all` standing for every file there is.

    Raises:
        ConfigError: A name without a file in conf/ensemble.
    """
    files = {path.stem: path for path in sorted((folder / "ensemble").glob("*.yaml"))}
    wanted = [name for n in names for name in (files if n == "all" else [n])]
    wanted = list(dict.fromkeys(wanted))
    if ALWAYS not in wanted:
        wanted.insert(0, ALWAYS)
    for name in wanted:
        if name not in files:
            raise ConfigError(
                f"evaluation.strategies: no strategy {name!r} (there is: {', '.join(files)})"
            )
    return {name: OmegaConf.load(files[name]) for name in wanted}
