"""Builds an `Experiment` of plain objects from a composed config, or from the config of a finished run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from elrea.config import PACKAGE, Misfit, build, fit, leaves, load_config, spell
from elrea.errors import ConfigError, DataError, did_you_mean
from elrea.method.ensemble.strategy import BACKBONE, BASE
from elrea.pipeline.choices import RATES, strategy_nodes
from elrea.pipeline.data_needed import dev_advice, why_no_dev, with_dev, with_sources

if TYPE_CHECKING:
    from elrea.data.corpus import Corpus
    from elrea.method.ensemble.ensemble import Ensemble
    from elrea.method.ensemble.strategy import Strategy
    from elrea.models.adapter_shape import Lora
    from elrea.pipeline.experiment import Experiment

REFERENCES = (BACKBONE, BASE)
"""Reference strategies; their settings cannot be changed, so that results of different runs stay comparable."""

PARTS = (
    "adapter", "backbone", "clustering", "data", "evaluation", "features", "routing", "seed", "store", "trainer",
    "training",
)  # fmt: skip
"""Keys that the config of every run has."""

ROOT = {
    "name": str | None,
    "seed": int,
    "store": str,
    "plan": bool,
    "until": str | None,
    "debug": bool,
    "plugins": list[str] | str,
}
"""Types of the keys that belong to no config group."""


def assemble(
    cfg: DictConfig,
    chosen: str,
    folder: Path,
    words: Sequence[str] = (),
    announce: Callable[[str], None] = lambda line: None,
) -> Experiment:
    """Builds every part of a run and reads its data.

    Args:
        cfg: The composed config; `cfg.ensemble` is replaced by the settings that are used.
        chosen: Name of the strategy that `ensemble=` selects.
        folder: The config folder, which has a file for each strategy.
        words: Overrides from the command line. A field that is set as `ensemble.<field>` there must not be set in
            evaluation.settings as well.
        announce: Called before anything that takes longer than two seconds.

    Raises:
        ElreaError: A setting or the data is wrong.
    """
    _check_root_keys(cfg, folder)
    parts = _light_parts(
        cfg, words
    )  # its errors come before torch is imported, which takes seconds
    corpus = _corpus(cfg)
    announce("Importing torch")
    parts |= _torch_parts(cfg)

    from elrea.evaluation.judging import check

    evaluation, strategies = _evaluation_and_strategies(cfg, chosen, folder, words)
    if evaluation.split == "dev":
        if not corpus.dev:
            raise DataError(
                f"evaluation.split=dev: this data has no dev examples; {dev_advice(cfg, or_test=True)}"
            )
        note = f"{corpus.note}; scored on dev" if corpus.note else "scored on dev"
        short = f"{corpus.short}; scored on dev" if corpus.short else ""
        corpus = replace(corpus, test=corpus.dev, dev=(), note=note, short=short)
    strategies = with_dev(strategies, corpus, cfg, chosen)
    strategies = with_sources(strategies, corpus, cfg, chosen)
    check(corpus.test, evaluation.by, strategies)
    experiment = _experiment(cfg, parts, corpus, strategies, evaluation)
    _check_early_stop(experiment)
    _check_serving(experiment)
    return experiment


def assemble_without_data(
    cfg: DictConfig, chosen: str, folder: Path, words: Sequence[str] = ()
) -> Experiment:
    """As `assemble`, but with an empty corpus: plans a run whose data is not on this machine.

    Raises:
        ElreaError: A setting is wrong.
    """
    from elrea.data.corpus import Corpus

    evaluation, strategies = _evaluation_and_strategies(cfg, chosen, folder, words)
    data = build(cfg.data, "data")
    parts = _light_parts(cfg, words) | _torch_parts(cfg)
    return _experiment(cfg, parts, Corpus(data.name, (), (), ()), strategies, evaluation)


def experiment_of(folder: Path) -> tuple[Experiment, Path]:
    """Rebuilds the experiment of a finished run from its `config.yaml`.

    Args:
        folder: Of the run. Relative paths in its config are relative to the working folder.

    Returns:
        The experiment without strategies, and the path of the run's store.

    Raises:
        ElreaError: The config or the data cannot be read.
    """
    cfg = _run_config(folder)
    corpus = _corpus(cfg)
    evaluation = build(cfg.evaluation, "evaluation")
    parts = _light_parts(cfg) | _torch_parts(cfg)
    return _experiment(cfg, parts, corpus, {}, evaluation), Path(cfg.store)


def strategy_of(folder: Path) -> Strategy:
    """The strategy that a finished run is about.

    Args:
        folder: Of the run.

    Raises:
        ElreaError: The config cannot be read, or names a class that may not be used.
    """
    strategy: Strategy = build(_run_config(folder).ensemble, "ensemble")
    return strategy


def ensemble_of(folder: Path, backbone: str | None = None, **options: Any) -> Ensemble:
    """Loads the ensemble of a finished run on the run's backbone.

    Args:
        folder: Of the run, or its `ensemble/`.
        backbone: Folder or hub id of the backbone if it is not found.
        options: Passed to `Ensemble.load`.

    Raises:
        ElreaError: The ensemble or its backbone cannot be loaded.
    """
    from elrea.method.ensemble.ensemble import Ensemble

    return Ensemble.load(folder, backbone=backbone, **options)


def _evaluation_and_strategies(
    cfg: DictConfig, chosen: str, folder: Path, words: Sequence[str]
) -> tuple[Any, dict[str, Any]]:
    """The evaluation and the scored strategies, whose settings come from files, words and evaluation.settings."""
    from elrea.method.ensemble.strategy import Strategy

    evaluation = build(cfg.evaluation, "evaluation")
    nodes = strategy_nodes(folder, [*evaluation.strategies, chosen])
    references = {
        name: build(nodes[name], f"ensemble[{name}]") for name in REFERENCES if name in nodes
    }
    keys = {name: f"ensemble[{name}]" for name in nodes} | {chosen: "ensemble"}
    typed = _typed(words)
    typed_own = sorted(each for each in typed if each.startswith("ensemble."))
    nodes[chosen] = OmegaConf.create(OmegaConf.to_container(cfg.ensemble))
    for name, node in nodes.items():
        for rate in {*RATES}.intersection(map(str, node)) if evaluation.rate else ():
            if not (name == chosen and f"ensemble.{rate}" in typed):
                node[rate] = evaluation.rate
    for name, changes in _changes(cfg).items():
        if name not in nodes:
            near = did_you_mean(name, nodes) or "; name it in evaluation.strategies"
            raise ConfigError(f"evaluation.settings: no strategy {name!r} is scored{near}")
        for key in leaves(changes) if name == chosen else ():
            own = f"ensemble.{key}."
            twice = [
                each for each in typed_own if own.startswith(f"{each}.") or each.startswith(own)
            ]
            if twice:
                raise ConfigError(
                    f"evaluation.settings.{name}.{key}: {twice[0]} is set too; remove one of the two"
                )
        keys[name] = f"evaluation.settings.{name}"
        nodes[name] = OmegaConf.merge(nodes[name], changes)
    strategies = {name: build(node, keys[name], Strategy) for name, node in nodes.items()}
    for name, reference in references.items():
        if strategies[name] != reference:
            raise ConfigError(
                f"{keys[name]}: {name} is a reference strategy; its settings cannot be changed"
            )
    cfg.ensemble = nodes[chosen]  # config.yaml has to show the settings that are used
    return evaluation, strategies


def _changes(cfg: DictConfig) -> dict[str, DictConfig]:
    """`evaluation.settings` by strategy, as it is written: classes in it are made with the strategy that has them."""
    given = cfg.evaluation.get("settings") or {}
    return {str(name): given[name] for name in given}


def _corpus(cfg: DictConfig) -> Corpus:
    """The examples; what the class of a plugin returns is checked, as our sources check theirs themselves."""
    from elrea.data.corpus import Corpus

    source = build(cfg.data, "data")
    if type(source).__module__.startswith(f"{PACKAGE}."):
        found: Corpus = source.load()
        return found
    load = getattr(source, "load", None)
    if not callable(load) or not isinstance(getattr(source, "name", None), str):
        raise ConfigError(
            f"data._target_: {type(source).__name__} is no data source: it needs a name and load() -> Corpus"
        )
    found = load()
    if not isinstance(found, Corpus):
        raise DataError(f"data={source.name}: load() returned {type(found).__name__}, not a Corpus")
    found.check()
    return found


def _run_config(folder: Path) -> DictConfig:
    path = folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(
            f"{folder}: no config.yaml there; give the folder of a run, such as outputs/<day>/<time>"
        )
    cfg = load_config(path)
    if not set(PARTS).issubset(cfg):
        missing = ", ".join(sorted(set(PARTS).difference(cfg)))
        raise ConfigError(f"{path}: not the config of a run (missing keys: {missing})")
    try:
        for name in PARTS:
            fit(cfg[name], ROOT.get(name, Any))
    except (Misfit, OmegaConfBaseException) as error:
        line = str(error).splitlines()[0]
        raise ConfigError(f"{path}: invalid value of {name} ({line})") from error
    return cfg


def _typed(words: Sequence[str]) -> set[str]:
    """The keys of overrides from the command line."""
    return {word.lstrip("+~").partition("=")[0] for word in words}


def _lora(cfg: DictConfig, words: Sequence[str]) -> Lora:
    """The adapters' shape; that of `adapter.start` is written into the config, which has to show what is used."""
    from elrea.models.start import TAKEN, started

    given: Lora = build(cfg.adapter, "adapter")
    found = started(given, _typed(words))
    if found != given:
        for name in TAKEN:
            OmegaConf.update(cfg, f"adapter.{name}", getattr(found, name), force_add=True)
    return found


def _light_parts(cfg: DictConfig, words: Sequence[str] = ()) -> dict[str, Any]:
    """Fields of the experiment whose classes do not import torch; evaluation and tracking are only checked here."""
    from elrea.method.clustering.points import Clustering

    parts = {
        "lora": _lora(cfg, words),
        "training": build(cfg.training, "training"),
        "device": build(cfg.trainer, "trainer"),
        "backbone": build(cfg.backbone, "backbone"),
        "clustering": build(cfg.clustering, "clustering", Clustering),
    }
    for name in ("evaluation", "tracking"):
        build(cfg.get(name), name)
    return parts


def _torch_parts(cfg: DictConfig) -> dict[str, Any]:
    """The others."""
    from elrea.method.features.base import Features
    from elrea.method.routing.weights import Router

    return {
        "features": build(cfg.features, "features", Features),
        "router": build(cfg.routing, "routing", Router),
    }


def _experiment(
    cfg: DictConfig,
    parts: dict[str, Any],
    corpus: Corpus,
    strategies: dict[str, Any],
    evaluation: Any,
) -> Experiment:
    from elrea.pipeline.experiment import Experiment

    return Experiment(
        corpus=corpus, strategies=strategies, evaluation=evaluation, seed=cfg.seed, **parts
    )


def _check_early_stop(experiment: Experiment) -> None:
    """Refuses early stopping without dev examples to stop by, or with features that need the number of epochs."""
    if experiment.training.early_stop is None:
        return
    if not experiment.corpus.dev:
        why = why_no_dev(experiment.evaluation.split)
        raise ConfigError(
            f"training.early_stop needs dev examples, but {why}; set training.early_stop=null"
        )
    experiment.features.check(None)


def _check_serving(experiment: Experiment) -> None:
    """Refuses a gate that names a cluster which there will not be, as far as their number is known."""
    known = experiment.clustering.known_k()
    for name, strategy in experiment.strategies.items():
        wrong = [c for c in getattr(strategy, "serves", None) or () if known and c >= known]
        if known and wrong:
            raise ConfigError(
                f"ensemble={name}: serves names cluster {wrong[0]}, and there will be 0 to {known - 1}"
            )


def _check_root_keys(cfg: DictConfig, folder: Path) -> None:
    """Checks the names and types of the keys that belong to no config group."""
    for name, value in ((str(key), cfg[key]) for key in cfg):
        if isinstance(value, DictConfig) and "_target_" in value:
            continue
        if name not in ROOT:
            known = [*ROOT, *(path.name for path in folder.iterdir() if path.is_dir())]
            raise ConfigError(f"{name}: unknown key{did_you_mean(name, known)}")
        try:
            fit(_contained(value), ROOT[name])
        except Misfit as misfit:
            raise ConfigError(
                f"{name}: wants {spell(ROOT[name])}, not {misfit.args[0]}"
            ) from misfit
    if not cfg.store.strip():
        raise ConfigError("store='': give the folder in which stages are kept")
    if cfg.seed < 0:
        raise ConfigError(f"seed={cfg.seed} must be 0 or more")


def _contained(value: Any) -> Any:
    return OmegaConf.to_container(value) if isinstance(value, ListConfig) else value
