"""From a composed config to an experiment of plain objects."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from elrea.config import Misfit, build, fit, load_config, spell
from elrea.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from elrea.data.corpus import Corpus
    from elrea.method.ensemble.ensemble import Ensemble
    from elrea.pipeline.experiment import Experiment

ALWAYS = "base"
"""Every difference is taken to it."""

FIXED = ("backbone", ALWAYS)
"""What the others are held against: no setting makes anything else of them."""

PARTS = (
    "adapter", "backbone", "clustering", "data", "evaluation", "features", "routing", "seed", "store", "trainer",
    "training",
)  # fmt: skip
"""Keys that a run's config has."""

LIGHT = ("adapter", "training", "trainer", "backbone", "clustering", "evaluation", "tracking")
"""Parts whose classes do not import torch."""

ROOT = {"seed": int, "store": str, "plan": bool, "until": str | None, "debug": bool}
"""Keys that belong to no group, and their types."""


def assemble(cfg: DictConfig, chosen: str, folder: Path, words: Sequence[str] = ()) -> Experiment:
    """Builds every part of a run and reads its data.

    Args:
        cfg: The composed config.
        chosen: Name of the strategy that `ensemble=` picks.
        folder: The config folder, where the other strategies' files are.
        words: What was typed: where `ensemble.<field>` is among it, evaluation.settings may not say it too.

    Raises:
        ElreaError: Whatever is wrong, in one line.
    """
    _check(cfg, folder)
    for name in LIGHT:  # first what can be refused without importing torch
        build(cfg.get(name), name)
    corpus = build(cfg.data, "data").load()

    from elrea.evaluation.judging import check

    evaluation, strategies = _judged(cfg, chosen, folder, words)
    if evaluation.split == "dev":
        if not corpus.dev:
            raise DataError("evaluation.split=dev: this data has no dev examples; score test")
        note = f"{corpus.note}; scored on dev" if corpus.note else "scored on dev"
        corpus = replace(corpus, test=corpus.dev, dev=(), note=note)
    check(corpus.test, evaluation.by, strategies)
    experiment = _experiment(cfg, corpus, strategies, evaluation)
    _check_early_stop(experiment)
    return experiment


def ahead(cfg: DictConfig, chosen: str, folder: Path, words: Sequence[str] = ()) -> Experiment:
    """The same without data, which would have to be fetched first: for a plan.

    Raises:
        ElreaError: As `assemble`.
    """
    from elrea.data.corpus import Corpus

    evaluation, strategies = _judged(cfg, chosen, folder, words)
    data = build(cfg.data, "data")
    return _experiment(cfg, Corpus(data.name, (), (), ()), strategies, evaluation)


def of_run(folder: Path) -> tuple[Experiment, Path]:
    """The experiment of a finished run, without strategies, and its store.

    Args:
        folder: What a run left; its `config.yaml` is read. Relative paths in there begin at the working folder.

    Raises:
        ElreaError: Whatever is wrong, in one line.
    """
    cfg = _config_of(folder)
    corpus = build(cfg.data, "data").load()
    evaluation = build(cfg.evaluation, "evaluation")
    return _experiment(cfg, corpus, {}, evaluation), Path(cfg.store)


def backbone_of(folder: Path) -> str:
    """Folder or hub id of the backbone that a run had."""
    return str(build(_config_of(folder).backbone, "backbone").name)


def ensemble_of(folder: Path, backbone: str | None = None, **options: Any) -> Ensemble:
    """The ensemble of a finished run, on the backbone that the run had.

    Args:
        folder: What a run left, or `ensemble/` in there.
        backbone: Folder or hub id of the model, where it has moved.
        options: As `Ensemble.load` takes them.

    Raises:
        ElreaError: Whatever is wrong, in one line.
    """
    from elrea.method.ensemble.ensemble import Ensemble

    inside = folder / "ensemble"
    if not inside.is_dir():
        return Ensemble.load(folder, backbone=backbone, **options)
    return Ensemble.load(inside, backbone=backbone or backbone_of(folder), **options)


def _judged(
    cfg: DictConfig, chosen: str, folder: Path, words: Sequence[str]
) -> tuple[Any, dict[str, Any]]:
    from elrea.method.ensemble.strategy import Strategy

    evaluation = build(cfg.evaluation, "evaluation")
    nodes = strategy_nodes(folder, [*evaluation.strategies, chosen])
    files = {name: build(nodes[name], f"ensemble[{name}]") for name in FIXED if name in nodes}
    keys = {name: f"ensemble[{name}]" for name in nodes} | {chosen: "ensemble"}
    typed = {word.lstrip("+~").partition("=")[0] for word in words}
    nodes[chosen] = OmegaConf.create(OmegaConf.to_container(cfg.ensemble))
    for name, own in (evaluation.settings or {}).items():
        if name not in nodes:
            near = did_you_mean(name, nodes) or "; name it in evaluation.strategies"
            raise ConfigError(f"evaluation.settings: no strategy {name!r} is scored{near}")
        for key in own if name == chosen else ():
            if f"ensemble.{key}" in typed:
                raise ConfigError(
                    f"evaluation.settings.{name}.{key}: ensemble.{key} is given too; leave one of them out"
                )
        keys[name] = f"evaluation.settings.{name}"
        nodes[name] = OmegaConf.merge(nodes[name], own)
    strategies = {name: build(node, keys[name], Strategy) for name, node in nodes.items()}
    for name, file in files.items():
        if strategies[name] != file:
            raise ConfigError(f"{keys[name]}: {name} is what the others are held against; leave it")
    cfg.ensemble = nodes[chosen]  # what is written down is what was used
    return evaluation, strategies


def _config_of(folder: Path) -> DictConfig:
    path = folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(
            f"{folder}: no config.yaml there; give a run's folder, as outputs/<day>/<time>"
        )
    cfg = load_config(path)
    if not set(PARTS).issubset(cfg):
        raise ConfigError(f"{path} is no config of a run")
    try:
        for name in PARTS:
            fit(cfg[name], ROOT.get(name, Any))
    except (Misfit, OmegaConfBaseException) as error:
        line = str(error).splitlines()[0]
        raise ConfigError(f"{path}: {name} cannot be used ({line})") from error
    return cfg


def _experiment(
    cfg: DictConfig, corpus: Corpus, strategies: dict[str, Any], evaluation: Any
) -> Experiment:
    from elrea.method.clustering.points import Clustering
    from elrea.method.features.protocol import Features
    from elrea.method.routing.weights import Router
    from elrea.pipeline.experiment import Experiment

    return Experiment(
        corpus=corpus,
        backbone=build(cfg.backbone, "backbone"),
        lora=build(cfg.adapter, "adapter"),
        training=build(cfg.training, "training"),
        features=build(cfg.features, "features", Features),
        clustering=build(cfg.clustering, "clustering", Clustering),
        router=build(cfg.routing, "routing", Router),
        strategies=strategies,
        evaluation=evaluation,
        device=build(cfg.trainer, "trainer"),
        seed=cfg.seed,
    )


def _check_early_stop(experiment: Experiment) -> None:
    """It needs dev examples that are not scored, and leaves open how many epochs there will be."""
    if experiment.training.early_stop is None:
        return
    if not experiment.corpus.dev:
        why = (
            "evaluation.split=dev scores them"
            if experiment.evaluation.split == "dev"
            else "this data has none"
        )
        raise ConfigError(
            f"training.early_stop looks at the dev examples, and {why}; say training.early_stop=null"
        )
    experiment.features.check(None)


def _check(cfg: DictConfig, folder: Path) -> None:
    """What belongs to no group: each key known, each value of its kind."""
    for name, value in ((str(key), cfg[key]) for key in cfg):
        if isinstance(value, DictConfig) and "_target_" in value:
            continue
        if name not in ROOT:
            known = [*ROOT, *(path.name for path in folder.iterdir() if path.is_dir())]
            raise ConfigError(f"{name}: unknown key{did_you_mean(name, known)}")
        try:
            fit(value, ROOT[name])
        except Misfit as misfit:
            raise ConfigError(
                f"{name}: wants {spell(ROOT[name])}, not {misfit.args[0]}"
            ) from misfit
    if not cfg.store.strip():
        raise ConfigError("store='': wants the folder in which stages are kept")
    if cfg.seed < 0:
        raise ConfigError(f"seed={cfg.seed} must be 0 or more")


def strategy_nodes(folder: Path, names: list[str]) -> dict[str, Any]:
    """Config nodes of strategies by name, composed by Hydra with what their files inherit.

    Args:
        folder: The config folder; inside a job, Hydra's own search path counts.
        names: The wanted strategies, to which base is added; `all` means every choice of the group `ensemble`.

    Raises:
        ConfigError: A name that is no choice of `ensemble`.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.object_type import ObjectType

    hydra = GlobalHydra.instance()
    with (
        nullcontext()
        if hydra.is_initialized()
        else initialize_config_dir(str(folder.resolve()), version_base="1.3")
    ):
        choices = hydra.config_loader().get_group_options("ensemble", ObjectType.CONFIG)
        wanted = dict.fromkeys(name for n in names for name in (choices if n == "all" else [n]))
        if ALWAYS not in wanted:
            wanted = {ALWAYS: None, **wanted}
        for name in wanted:
            if name not in choices:
                raise ConfigError(
                    f"evaluation.strategies: no strategy {name!r} (there is: {', '.join(choices)})"
                )
        # One composition for all of them, each in a package of its own.
        cfg = compose(None, [f"+ensemble@s{i}={name}" for i, name in enumerate(wanted)])
    nodes = (OmegaConf.to_container(cfg[f"s{i}"], resolve=False) for i in range(len(wanted)))
    return dict(zip(wanted, map(OmegaConf.create, nodes), strict=True))
