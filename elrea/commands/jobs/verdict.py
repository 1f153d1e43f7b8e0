"""A verdict before the whole training: runs all candidates on parts of the data, and writes what follows from them.

python run.py +experiment=does_it_pay
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf, open_dict

from elrea.config import VERDICT, build, save_config
from elrea.errors import ConfigError
from elrea.evaluation.verdict import Verdict
from elrea.reporting.progress import say, screen
from elrea.reporting.sweeps import SUMMARY
from elrea.store.files import read_json, write_json

if TYPE_CHECKING:
    from elrea.commands.jobs.sweep import Record
    from elrea.pipeline.experiment import Experiment
    from elrea.pipeline.ladder import Ladder, Part

FOUND = "verdict.json"


def settings_of(cfg: DictConfig) -> Verdict:
    """The settings of a verdict, checked before anything is read or imported that takes long.

    Raises:
        ConfigError: Settings with which there can be no verdict.
    """
    settings: Verdict = build(cfg[VERDICT], VERDICT, Verdict)
    if cfg.evaluation.get("split") != "dev":
        raise ConfigError(
            "verdict: chooses by what it scores, so it must not look at test: say evaluation.split=dev"
        )
    if cfg.until is not None:
        raise ConfigError(f"until={cfg.until}: a verdict has no stages of its own; say until=null")
    return settings


def judge(
    experiment: Experiment,
    settings: Verdict,
    cfg: DictConfig,
    folder: Path,
    command: Sequence[str],
    record: Record,
    key: str,
    run_part: Callable[[int, DictConfig, list[str]], Path],
) -> None:
    """Runs the parts, then fits, writes and shows the verdict.

    Args:
        experiment: On all of the data.
        settings: Of the verdict.
        cfg: The composed config.
        folder: Of the verdict; the parts have folders in it, by number.
        command: The command line after `run.py`.
        record: Of the verdict.
        key: Names all that can change it.
        run_part: Makes one part, or finds that it is made: number, config, words -> folder of the run.

    Raises:
        ElreaError: There can be no verdict, or a part fails. The same command resumes.
    """
    from elrea.pipeline.ladder import ladder_of
    from elrea.reporting import verdict as report
    from elrea.reporting.terminal import wrapped

    if not cfg.plan:
        experiment.backbone.check()
    ladder, out = ladder_of(experiment, settings, measured=not cfg.plan), screen()
    out.print(report.ladder_table(ladder))
    for line in report.ladder_sentences(ladder, settings):
        say(out, wrapped(line))
    if experiment.training.max_steps is not None:
        say(out, "training.max_steps ends all trainings early: this is a try, and no verdict")
    if cfg.plan:
        _say_time(experiment, cfg, ladder)
        return
    record.begin(key)
    save_config(cfg, folder / "config.yaml")
    folders = []
    for number, part in enumerate(ladder.parts):
        say(out, f"Part {number}: {part.rows:,} of {ladder.rows:,} examples, seed {part.seed}")
        words = [f"data.rows={part.rows}", f"seed={part.seed}"]
        folders.append(run_part(number, part_config(cfg, part, folder.name), words))
    found = report.verdict_of(
        settings, ladder, folders, data=experiment.corpus.title,
        judged=all(example.choices or example.judge for example in experiment.corpus.test),
        seed=experiment.seed, resamples=experiment.evaluation.resamples,
    )  # fmt: skip
    write_json(folder / FOUND, found, ordered=True)
    write_json(folder / SUMMARY, {**read_json(folders[-1] / SUMMARY), VERDICT: found}, ordered=True)
    report.write_report(folder, found, command)
    out.print(report.verdict_table(found))
    for line in report.sentences(found):
        say(out, wrapped(line))
    say(out, f"Everything is in {os.path.relpath(folder)}")
    record.end(key)


def _say_time(experiment: Experiment, cfg: DictConfig, ladder: Ladder) -> None:
    """Says how long the parts will take, if the backbone is here."""
    from elrea.pipeline.run import Pipeline
    from elrea.reporting.plan import ladder_time
    from elrea.reporting.terminal import wrapped
    from elrea.store.stage import Store

    if experiment.backbone.here:
        pipeline = Pipeline(experiment, Store(cfg.store))
        say(screen(), wrapped(ladder_time(pipeline, ladder)))


def part_config(cfg: DictConfig, part: Part, group: str) -> DictConfig:
    """The config of one part: a plain run on fewer training examples.

    Args:
        cfg: Of the verdict.
        part: The part.
        group: Of its W&B run, if the config names none.
    """
    made = copy.deepcopy(cfg)
    data = OmegaConf.to_container(made.data, resolve=False)
    with open_dict(made):
        del made[VERDICT]
        made.seed = part.seed
        made.data = {"_target_": "elrea.data.sources.nested.Nested", "of": data, "rows": part.rows}
        if made.tracking.group is None:
            made.tracking.group = group
    return made
