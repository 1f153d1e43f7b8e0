"""One job, from its config to its folder: plan, make the stages, write the results, show them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from elrea.commands.config_files import check_added
from elrea.commands.exit import announce, one_line_errors, output_closed
from elrea.commands.jobs.checks import check_device, check_plugins, check_processes
from elrea.commands.jobs.leftovers import LOG, clear
from elrea.commands.jobs.run_folder import check_run_folder, check_version, difference, resolved
from elrea.commands.jobs.sweep import Record, Sweep, failed, typed
from elrea.config import VERDICT, build, leaves, load_config, plain, save_config
from elrea.data.readers.hub import fetching
from elrea.errors import ConfigError, NotHere
from elrea.pipeline.assemble import assemble, assemble_without_data
from elrea.plugins import allow
from elrea.reporting.log import Logs
from elrea.reporting.progress import Terminal, say, screen
from elrea.reporting.sweeps import SUMMARY
from elrea.store.files import key_of, read_json, write_json
from elrea.version import __version__

if TYPE_CHECKING:
    from elrea.pipeline.experiment import Experiment
    from elrea.pipeline.run import Pipeline
    from elrea.reporting.report import Report
    from elrea.reporting.wandb.tracker import Tracker

log = logging.getLogger(__name__)

NOT_RESULTS = ("debug", "plan", "until", "name", "plugins")
"""Keys that only look at a job, end it early or name it, or allow what other keys name."""


@dataclass(frozen=True)
class Job:
    """What Hydra says of a job.

    Attributes:
        cfg: The composed config.
        folder: Where its results go.
        conf: The folder of the config files.
        sweep: Folder of the sweep that it is a part of, if it is one.
        number: Within the sweep.
        launcher: Name of the sweep's launcher.
        chosen: The strategy that `ensemble=` names.
        words: What was typed for this job.
        part: Whether it is one of a verdict's trainings.
    """

    cfg: DictConfig
    folder: Path
    conf: Path
    sweep: Path | None
    number: int
    launcher: str
    chosen: str
    words: list[str]
    part: bool = False

    @classmethod
    def of(cls, cfg: DictConfig) -> Job:
        """The job that Hydra has started.

        Raises:
            ConfigError: A file of an added config folder has the name of one of ours.
        """
        hydra = HydraConfig.get()
        sweep = Path(hydra.sweep.dir) if hydra.mode == RunMode.MULTIRUN else None
        sources = hydra.runtime.config_sources
        (conf,) = [s.path for s in sources if s.provider == "main"]
        added = [s.path for s in sources if s.provider != "main" and s.schema == "file"]
        check_added(Path(conf), map(Path, added))
        choices = hydra.runtime.choices
        return cls(
            cfg, Path(hydra.runtime.output_dir), Path(conf), sweep, hydra.job.num if sweep else 0,
            str(choices["hydra/launcher"]), str(choices["ensemble"]), typed(hydra),
        )  # fmt: skip

    @property
    def command(self) -> list[str]:
        """What was typed, Hydra's own words too; a job of a sweep has no command line of its own: its overrides."""
        return self.words if self.sweep else sys.argv[1:]

    def record(self, *, kept: bool = True) -> Record:
        """Of its states; `kept`: as for `Record`."""
        facts = {"words": self.words, "command": self.command, "chosen": self.chosen}
        store = str(self.cfg.store)  # what is no path at all is refused later
        return Record(self.folder, facts, kept=kept, store=Path(store))

    @property
    def accuracy(self) -> float:
        """Of the chosen strategy, once the job is done; minus its loss where all of test is plain text."""
        row = read_json(self.folder / SUMMARY)["strategies"][self.chosen]
        return float(-row["loss"] if row["accuracy"] is None else row["accuracy"])


@dataclass(frozen=True)
class HydraTask:
    """What Hydra calls for each job, in this process or in a launcher's: it takes along what the user allowed.

    Attributes:
        plugins: As they were typed; a config file could have set those of the config.
    """

    plugins: tuple[str, ...] = ()

    def __call__(self, cfg: DictConfig) -> float | None:
        """As `run`."""
        with one_line_errors():
            allow(self.plugins)
        return run(cfg)


def run(cfg: DictConfig) -> float | None:
    """Runs one job.

    Returns:
        The accuracy of the strategy that `ensemble=` names, for a sweeper that chooses by it; None for a plan, and
        for a job that failed.

    Raises:
        ElreaError: Whatever a user can mend, in one line, where the job is alone.
    """
    accuracy = None
    with one_line_errors(), _started(cfg) as (job, record):  # else Hydra adds a line to every error
        _check_optuna(job)
        check_plugins(cfg)
        if cfg.get(VERDICT) is None:
            accuracy = _make(job, record)
        else:
            _judge(job, record)
    return accuracy


def _make(job: Job, record: Record) -> float | None:
    """Makes the stages and the results; returns what `run` does.

    Raises:
        ElreaError: As `run`.
    """
    cfg = job.cfg
    experiment, log = _experiment(job), Logs(Terminal())
    pipeline = _pipeline(job, experiment, log) if experiment else None
    if pipeline is None:
        return None  # a plan of what is not here
    key = job_key(plain(cfg), pipeline)
    repeats = (job.sweep or job.part) and not cfg.plan
    if repeats and (record.finished(key) or _was_done(job, record, pipeline)):
        name = "Part" if job.part else "Job"
        say(screen(), f"{name} {job.number} is done already: {os.path.relpath(job.folder)}")
        return job.accuracy
    check_device(pipeline, cfg)
    _show_plan(pipeline, cfg)
    if cfg.plan:
        return None
    check_version(job.folder, cfg, pipeline.graph.keys)
    record.begin(key, pipeline.graph.keys)
    on_stages = _on_stages(pipeline, record)
    if cfg.until is not None:
        pipeline.run(cfg.until, on_stages)
        _show_stage(pipeline, cfg)
        record.prepared()
        return None
    with _tracker(job) as tracker:
        log.add(tracker)
        pipeline.run(on_stages=on_stages)
        report = _write(job, pipeline, tracker, record)
    _show(report, job, tracker.sync_line())
    record.end(job_key(plain(cfg), pipeline))
    return job.accuracy


def _on_stages(pipeline: Pipeline, record: Record) -> Callable[[Mapping[str, str]], None]:
    """What to do when more stages are known: record them, and say where clusters are fewer than was asked for.

    Clusters of an earlier run are known at once, so that it is said here too.
    """
    from elrea.reporting.fewer_clusters import fewer_clusters
    from elrea.reporting.terminal import wrapped

    told: set[str] = set()

    def tell() -> None:
        for line in fewer_clusters(pipeline.graph):
            if line not in told:
                say(screen(), wrapped(f"note: {line}"))
                told.add(line)

    def on_stages(keys: Mapping[str, str]) -> None:
        record.needs(keys)
        tell()

    tell()
    return on_stages


def _judge(job: Job, record: Record) -> None:
    """Trains on parts of the data, each in a run's folder within the job's, and says what they tell of all of it.

    Raises:
        ElreaError: As `run`.
    """
    from elrea.commands.jobs.verdict import judge, settings_of

    def run_part(number: int, cfg: DictConfig, words: list[str]) -> Path:
        folder = job.folder / str(number)
        check_run_folder(folder, cfg, "hydra.run.dir")
        part = replace(
            job, cfg=cfg, folder=folder, words=[*job.words, *words], number=number, part=True
        )
        with part.record() as part_record:
            _make(part, part_record)
        return folder

    settings = settings_of(job.cfg)
    experiment = _experiment(job)
    if experiment is not None:
        key = key_of({"config": _settings(plain(job.cfg)), "version": __version__})
        judge(experiment, settings, job.cfg, job.folder, job.command, record, key, run_part)


@contextmanager
def _started(cfg: DictConfig) -> Iterator[tuple[Job, Record]]:
    """A job and its record; one of a sweep fails without stopping its siblings.

    It works in the folder in which the command was started, with hydra.job.chdir=true too: the store, and the paths of
    data and models, are relative to that folder.

    Raises:
        ConfigError: Its folder has results of another configuration. It ends a sweep: the jobs' folders are not told
            apart by hydra.sweep.subdir, or the config files were changed since the sweep was begun.
    """
    hydra = HydraConfig.get()
    if hydra.job.chdir:
        os.chdir(hydra.runtime.cwd)
    job = Job.of(cfg)
    if job.sweep:  # a single run was checked before Hydra wrote to its folder
        check_run_folder(job.folder, cfg, "hydra.sweep.subdir")
    record = job.record(kept=job.sweep is not None and not cfg.plan)
    try:
        with record:
            yield job, record
    except Exception as error:
        if job.sweep is None or cfg.debug or output_closed(error):
            raise
        failed(job.number, error)
    finally:
        if not record.begun:
            clear(job.folder, (str(hydra.output_subdir), LOG), _made(job))


def _made(job: Job) -> Sequence[Path]:
    """The folders that were made for the job, its own first; the sweep removes those that it made."""
    if job.sweep is None:
        return Sweep.made
    sweep = job.sweep.absolute()
    return [path for path in (job.folder, *job.folder.parents) if sweep in path.parents]


def job_key(config: Mapping[str, Any], pipeline: Pipeline) -> str:
    """Names all that can change what a job leaves: its config, its stages' keys, this version."""
    settings = _settings(config)
    return key_of({"config": settings, "stages": pipeline.graph.keys, "version": __version__})


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without the keys that cannot change a figure."""
    return {name: value for name, value in config.items() if name not in NOT_RESULTS}


def _was_done(job: Job, record: Record, pipeline: Pipeline) -> bool:
    """Whether an older version finished the same job: its config has fewer keys, and names classes by old modules."""
    if not (path := job.folder / "config.yaml").is_file():
        return False
    then = load_config(path)
    same = difference(leaves(then), leaves(resolved(job.cfg))) is None
    return same and record.finished(job_key(plain(then), pipeline))


def _check_optuna(job: Job) -> None:
    sweeper = HydraConfig.get().sweeper._target_
    if job.sweep and "optuna" in sweeper and job.cfg.evaluation.split != "dev":
        raise ConfigError(
            "hydra/sweeper=optuna chooses by what a job scores: say evaluation.split=dev, and look at test once"
        )


def _experiment(job: Job) -> Experiment | None:
    """What the job is to do; None where plan=true has shown the plan of what is not here."""
    cfg, token = job.cfg, fetching.set(not job.cfg.plan)
    try:
        return assemble(cfg, job.chosen, job.conf, job.words, announce)
    except NotHere as missing:
        if not cfg.plan:
            raise
        _show_ahead(cfg, assemble_without_data(cfg, job.chosen, job.conf, job.words), missing)
        return None
    finally:
        fetching.reset(token)


def _pipeline(job: Job, experiment: Experiment, log: Logs) -> Pipeline | None:
    """Its stages; None where plan=true has shown the plan of a backbone that is not here."""
    from elrea.pipeline.run import Pipeline
    from elrea.store.stage import Store

    cfg, device = job.cfg, experiment.device
    device.apply()
    if job.sweep:
        check_processes(job.launcher, device.strategy)
        if not cfg.plan:
            device.take(job.number)
    try:
        pipeline = Pipeline(experiment, Store(Path(cfg.store)), log)
    except NotHere as missing:
        if not cfg.plan:
            raise
        _show_ahead(cfg, experiment, missing)
        return None
    pipeline.check(cfg.until)
    return pipeline


@contextmanager
def _tracker(job: Job) -> Iterator[Tracker]:
    """The job's W&B run."""
    tracker: Tracker = build(job.cfg.tracking, "tracking")
    if job.sweep and tracker.group is None:
        tracker.group = "/".join(job.sweep.parts[-2:])
    tracker.name = tracker.name or job.cfg.name
    save_config(job.cfg, job.folder / "config.yaml")
    with tracker:
        tracker.start(plain(job.cfg), job.folder)
        yield tracker


def _write(job: Job, pipeline: Pipeline, tracker: Tracker, record: Record) -> Report:
    """Everything that the job leaves in its folder, and in W&B."""
    from elrea.reporting.collect import report_of
    from elrea.reporting.export import export
    from elrea.reporting.html import run_report
    from elrea.reporting.plots.draw import draw
    from elrea.reporting.predictions import write_predictions
    from elrea.reporting.summary import summary_of
    from elrea.reporting.wandb.run import log_run

    folder, report = job.folder, report_of(pipeline, job.chosen, job.command, job.cfg.name or "")
    write_json(folder / SUMMARY, summary_of(report), ordered=True)
    write_predictions(folder / "predictions.jsonl", report)
    ensemble = export(folder / "ensemble", report)
    pictures = draw(folder / "plots", report)
    run_report(folder, report, pictures)
    log_run(tracker, report, pictures, ensemble, record.seconds)
    return report


def _show(report: Report, job: Job, sync_line: str) -> None:
    from elrea.reporting.ending import show_results

    show_results(report, job.folder, sync_line)


def _show_stage(pipeline: Pipeline, cfg: DictConfig) -> None:
    from elrea.reporting.ending import show_stage

    show_stage(pipeline.graph, cfg.until, cfg.store)


def _show_plan(pipeline: Pipeline, cfg: DictConfig) -> None:
    from elrea.reporting.plan import show

    show(pipeline, cfg.plan, cfg.until)


def _show_ahead(cfg: DictConfig, experiment: Experiment, missing: NotHere) -> None:
    from elrea.reporting.plan import show_ahead

    show_ahead(cfg, experiment, missing)
