"""One job from its config to its folder: plan, run, write down, log, show."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from elrea.commands.sweep import Record, failed, typed
from elrea.config import build, plain, save_config
from elrea.data.readers.hub import fetching
from elrea.errors import ConfigError, NotHere
from elrea.method.clustering.points import known_k
from elrea.models.device import Device
from elrea.pipeline.assemble import ahead, assemble
from elrea.pipeline.experiment import Result
from elrea.pipeline.run import Pipeline
from elrea.pipeline.until import check, needed
from elrea.reporting.export import draw, export
from elrea.reporting.html import run_report
from elrea.reporting.plan import show, show_ahead
from elrea.reporting.predictions import write_predictions
from elrea.reporting.progress import bar, say, screen
from elrea.reporting.summary import data_name, summarise
from elrea.reporting.terminal import results_table
from elrea.reporting.wandb.run import log_run
from elrea.reporting.wandb.tracker import Tracker
from elrea.store.files import key_of, read_json, write_json
from elrea.store.stage import Store
from elrea.version import __version__


def run(cfg: DictConfig) -> float | None:
    """Runs one job; one of a sweep fails without stopping its siblings.

    Returns:
        The accuracy of the strategy that `ensemble=` names, for a sweeper that chooses by it; None for a plan, and
        for a job that failed.

    Raises:
        ElreaError: Whatever a user can mend, in one line, where the job is alone.
    """
    hydra = HydraConfig.get()
    if hydra.mode != RunMode.MULTIRUN:
        return _run(cfg)
    try:
        return _run(cfg, Path(hydra.sweep.dir))
    except Exception as error:
        if cfg.debug:
            raise
        failed(hydra.job.num, error)
    return None


def _run(cfg: DictConfig, sweep: Path | None = None) -> float | None:
    hydra = HydraConfig.get()
    folder, chosen = Path(hydra.runtime.output_dir), str(hydra.runtime.choices["ensemble"])
    words = typed(hydra)
    # What was typed, Hydra's own words too; a job of a sweep is typed by nobody.
    command = words if sweep else sys.argv[1:]
    with Record(folder, {"words": words, "command": command, "chosen": chosen}) as record:
        if sweep and "optuna" in hydra.sweeper._target_ and cfg.evaluation.split != "dev":
            raise ConfigError(
                "hydra/sweeper=optuna chooses by what a job scores: say evaluation.split=dev, and look at test once"
            )
        sources = [s.path for s in hydra.runtime.config_sources if s.provider == "main"]
        conf, token = Path(sources[0]), fetching.set(not cfg.plan)
        try:
            experiment = assemble(cfg, chosen, conf, words)
        except NotHere as missing:
            if not cfg.plan:
                raise
            show_ahead(cfg, ahead(cfg, chosen, conf, words), missing)
            return None
        finally:
            fetching.reset(token)
        experiment.device.apply()
        if sweep:
            _alone(experiment.device, str(hydra.runtime.choices["hydra/launcher"]))
            experiment.device.take(hydra.job.num)
        tracker = build(cfg.tracking, "tracking")
        if sweep and tracker.group is None:
            tracker.group = "/".join(sweep.parts[-2:])
        pipeline = Pipeline(experiment, Store(Path(cfg.store)), bar)
        try:
            key = job_key(cfg, pipeline)
        except NotHere as missing:
            if not cfg.plan:
                raise
            show_ahead(cfg, experiment, missing)
            return None
        needed = {name: stage.key for name, stage in pipeline.stages().items()}
        if cfg.until is not None:
            check(cfg.until, pipeline.plan.stages(), pipeline.plan.counted)
        _check_processes(pipeline, cfg.until)
        if sweep and not cfg.plan and record.finished(key):
            say(screen(), f"Job {hydra.job.num} is done already: {os.path.relpath(folder)}")
            return float(read_json(folder / "summary.json")["strategies"][chosen]["accuracy"])
        show(pipeline, last=cfg.plan)
        if cfg.plan:
            return None
        if cfg.until is not None:
            record.begin(key, needed)
            pipeline.prepare(cfg.until)
            say(
                screen(),
                f"{cfg.until} is made, in the store {cfg.store}; until={cfg.until} ends here",
            )
            record.prepared()
            return None
        record.begin(key, needed)
        _work(cfg, folder, pipeline, tracker, chosen)
        run_report(folder)
        record.end(job_key(cfg, pipeline))
    return float(read_json(folder / "summary.json")["strategies"][chosen]["accuracy"])


def job_key(cfg: DictConfig, pipeline: Pipeline) -> str:
    """Names all that can change what a job leaves: its config, its stages' keys, this version."""
    settings = {
        name: value for name, value in plain(cfg).items() if name not in ("debug", "plan", "until")
    }
    keys = {name: stage.key for name, stage in pipeline.stages().items()}
    return key_of({"config": settings, "stages": keys, "version": __version__})


def _alone(device: Device, launcher: str) -> None:
    """Refuses several processes in each of several jobs that share this one."""
    if device.strategy != "one" and not launcher.startswith("submitit"):
        raise ConfigError(
            f"trainer.strategy={device.strategy} in a sweep: its jobs share this machine's devices and this process, "
            "which one failed group of processes would block; run the jobs one by one, sweep with trainer=auto, or "
            "give each job a machine of its own (hydra/launcher=submitit_slurm)"
        )


def _check_processes(pipeline: Pipeline, until: str | None) -> None:
    """Refuses what a backbone in parts cannot do, before anything is trained."""
    device = pipeline.it.device
    if device.strategy != "sharded":
        return
    if pipeline.it.backbone.quantise:
        raise ConfigError(
            "trainer.strategy=sharded cuts up plain weights: say backbone.quantise=null, or trainer=ddp"
        )
    for name, stage in pipeline.stages().items():
        trained = name in ("base", "clusters") or stage.name == "adapter"
        if not trained and (until is None or needed(name, until)) and not stage.done():
            raise ConfigError(
                f"trainer.strategy=sharded trains adapters and nothing else, and {name} needs the whole backbone: say "
                "until=base (or until=expert-0, ...), and make the rest with trainer=auto, on the CPU if need be"
            )


def _work(cfg: DictConfig, folder: Path, pipeline: Pipeline, tracker: Tracker, chosen: str) -> None:
    out = screen()
    save_config(cfg, folder / "config.yaml")
    with tracker:
        tracker.start(plain(cfg), folder)
        result = pipeline.run()
        summary = summarise(pipeline, result)
        write_json(folder / "summary.json", summary, ordered=True)
        write_predictions(folder / "predictions.jsonl", pipeline, result)
        if pipeline.plan.routed:
            export(folder / "ensemble", pipeline, summary)
        pictures = draw(folder / "plots", pipeline, result, summary, chosen)
        log_run(tracker, pipeline, result, summary, pictures, folder, chosen)
    out.print(
        results_table(
            summary["strategies"],
            "Results",
            f"{data_name(pipeline)}; {len(pipeline.it.corpus.test):,} test items; seed {pipeline.it.seed}",
        )
    )
    for line in (*_fewer(pipeline), *_notices(result, summary)):
        say(out, line)
    say(out, f"Everything is in {os.path.relpath(folder)}")
    if line := tracker.sync_line():
        say(out, f"To send this run to W&B: {line}")


def _fewer(pipeline: Pipeline) -> Iterator[str]:
    """Says where clusters that were asked for are not there: too small or empty ones are given up."""
    parts = {f"{name}: ": part.plan for name, part in pipeline.parts.items()}
    for name, plan in {"": pipeline.plan, **parts}.items():
        if not plan.clustered or (wanted := known_k(plan.it.clustering)) is None:
            continue
        if (found := plan.count or wanted) < wanted:
            yield (
                f"{name}{found} cluster{'s' * (found > 1)} instead of {wanted}: the others would have had too few "
                "training examples (clustering.min_size, or an equal share)"
            )


def _notices(result: Result, summary: dict[str, Any]) -> Iterator[str]:
    if (agrees := summary["routing"].get("distilled", {})).get("prompts"):
        yield (
            f"Distilled router and {agrees['prompts']:,} test prompts' gradients: nearest cluster the same for "
            f"{100 * agrees['top1']:.1f} %,\nrank correlation {agrees['spearman']:.3f}, "
            f"w_base off by {agrees['w_base']:.3f}"
        )
    for name, stop in summary.get("early_stop", {}).items():
        yield (
            f"{name}: {stop['trained']} epochs trained, the one after epoch {stop['kept']} kept (loss on dev "
            f"{stop['dev_loss']:.4g})"
        )
    if result.dropped:
        yield f"{len(result.dropped)} training examples were too long and left out (backbone.max_length)"
    if long := result.too_long:
        yield f"{len(long)} test prompts were too long and count as wrong: {_shown(long)}"
    shots = summary["examples"].get("test_shots", {})
    if shots.get("prompts_with_fewer"):
        yield (
            f"{shots['prompts_with_fewer']:,} test prompts had no room for all {shots['wanted']} solved examples: "
            f"{shots['mean']:.1f} on average (backbone.max_length)"
        )
    without = {
        name: row["unparsed"] for name, row in summary["strategies"].items() if row.get("unparsed")
    }
    if without:
        each = ", ".join(f"{count:,} of {name}" for name, count in without.items())
        yield f"Texts without an answer count as wrong (they stand in predictions.jsonl): {each}"
    effects = {"train": "are in no cluster", "test": "weigh all experts alike"}
    for split, effect in effects.items():
        if ids := result.skipped[split]:
            yield f"{len(ids)} {split} prompts have a zero or non-finite gradient and {effect}: {_shown(ids)}"


def _shown(ids: list[str]) -> str:
    return ", ".join(ids[:3]) + (" ..." if len(ids) > 3 else "")
