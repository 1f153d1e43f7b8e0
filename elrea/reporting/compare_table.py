"""Compares strategies over finished runs and seeds: one table, written as JSON of one schema.

`read_sweep` or `scores_of` collect what strategies scored, `compare` computes the figures, `save` writes JSON and
`compare_markdown.markdown` a Markdown table. A difference is paired: both strategies answer the same items with the
same seeds. Each difference has three 95 % intervals, which answer different questions:

- `items_ci95`: bootstrap over test items, per item the mean over seeds. Other questions, these trained models.
- `seeds_ci95`: Student's t over the seeds' differences. Other seeds, these questions.
- `seeds_items_ci95`: bootstrap over seeds and items at once. Other seeds and other questions.

The JSON is a `Comparison`; `Comparison.model_json_schema()` is its schema. `VERSION` grows when a field changes its
meaning or is removed.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from elrea.errors import DataError, did_you_mean
from elrea.evaluation.seed_intervals import Interval, seeds_interval, seeds_items_interval
from elrea.evaluation.statistics import paired_interval
from elrea.reporting.runs import FinishedRun, finished_jobs, read_run
from elrea.reporting.sweeps import setting_keys, varied_values
from elrea.store.files import read_json, write_text

VERSION: Literal[1] = 1
RESAMPLES = 10_000
DIGITS = 6

Measure = Literal["accuracy", "loss"]


@dataclass(frozen=True)
class Scores:
    """Scores of strategies in one setting, on the same test items with the same seeds.

    Attributes:
        seeds: In the order of the rows of `items`.
        items: By strategy `[seeds, items]`: 1 or 0 for right or wrong, or losses in nats per token.
        setting: Values of the settings that vary between the rows of the table.
        macro: By strategy, each seed's accuracy averaged over tasks, as a share of 1; may be empty.
        passes: By strategy, forward passes per prompt, the mean over seeds; may be empty.
    """

    seeds: Sequence[int]
    items: Mapping[str, npt.NDArray[Any]]
    setting: tuple[str, ...] = ()
    macro: Mapping[str, Sequence[float]] = field(default_factory=dict)
    passes: Mapping[str, float] = field(default_factory=dict)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Difference(_Model):
    """Mean score of one strategy less that of another.

    Attributes:
        mean: Over items and seeds.
        per_seed: Over items, seed by seed.
        items_ci95: Paired bootstrap over items.
        seeds_ci95: Student's t over `per_seed`; None with one seed, or where all seeds' values are equal.
        seeds_items_ci95: Bootstrap over seeds and items; None with one seed, or where items were not kept.
    """

    mean: float
    per_seed: list[float]
    items_ci95: Interval
    seeds_ci95: Interval | None
    seeds_items_ci95: Interval | None

    @property
    def widest(self) -> Interval:
        """The interval over seeds and items, or where there is none, over items alone."""
        return self.seeds_items_ci95 or self.items_ci95

    @property
    def points(self) -> str:
        """In points of 100, with `widest`: "+1.2 [-0.3, +2.6]"."""
        low, high = self.widest
        return f"{100 * self.mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


class Row(_Model):
    """One strategy in one setting.

    Attributes:
        setting: Value of each key in the table's `settings`.
        strategy: Its name.
        items: Number of test items.
        seeds: Seeds, in the order of every `per_seed`.
        mean: Mean score over items and seeds (for accuracy: the micro average).
        per_seed: The same, seed by seed.
        macro: Mean over tasks of each task's accuracy, mean over seeds; None where runs have no tasks.
        macro_per_seed: The same, seed by seed.
        passes: Forward passes per prompt; None where not recorded.
        leader_minus_row: The leader's score less this row's; None without a leader, and for itself.
        row_minus_baseline: This row's score less the baseline's; None without a baseline, and for itself.
    """

    setting: dict[str, str]
    strategy: str
    items: int
    seeds: list[int]
    mean: float
    per_seed: list[float]
    macro: float | None = None
    macro_per_seed: list[float] | None = None
    passes: float | None = None
    leader_minus_row: Difference | None = None
    row_minus_baseline: Difference | None = None


class Comparison(_Model):
    """A table of strategies, as it is written to JSON.

    Attributes:
        schema_name: "elrea-comparison".
        version: Of the schema.
        command: The command that made the table.
        data: Name of the data.
        measure: "accuracy" (shares of 1) or "loss" (nats per token).
        settings: Keys that vary between rows, beside strategy and seed.
        leader: The strategy whose difference to each row is shown.
        baseline: The strategy whose score is subtracted from each row's.
        resamples: Of the bootstrap.
        rows: In the order of the table.
        details: What a study adds of its own; not part of the schema.
    """

    schema_name: Literal["elrea-comparison"] = "elrea-comparison"
    version: Literal[1] = VERSION
    command: str
    data: str
    measure: Measure = "accuracy"
    settings: list[str] = []
    leader: str | None = None
    baseline: str | None = None
    resamples: int = RESAMPLES
    rows: list[Row]
    details: dict[str, Any] = {}


def difference(a: npt.NDArray[Any], b: npt.NDArray[Any], resamples: int = RESAMPLES) -> Difference:
    """Mean of a less mean of b, with its intervals.

    Args:
        a: `[seeds, items]`.
        b: The same items and seeds in the same order.
        resamples: Of the bootstrap.
    """
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    each = left.mean(axis=1) - right.mean(axis=1)
    return Difference(
        mean=_rounded(left.mean() - right.mean()),
        per_seed=[_rounded(x) for x in each],
        items_ci95=_bounds(paired_interval(left, right, 0, resamples)),
        seeds_ci95=_maybe(seeds_interval(each)),
        seeds_items_ci95=_maybe(seeds_items_interval(left - right, 0, resamples)),
    )


def scores_of(runs: Sequence[FinishedRun], setting: tuple[str, ...] = ()) -> Scores:
    """Accuracies of finished runs that differ only in the seed.

    Args:
        runs: One per seed, at least one.
        setting: Values of the settings that vary between the rows of the table.

    Raises:
        DataError: A seed appears twice, or runs have different test items or strategies.
    """
    first = runs[0]
    known: dict[int, FinishedRun] = {}
    for run in runs:
        other = known.setdefault(run.seed, run)
        if other is not run:
            raise DataError(
                f"{run.folder} and {other.folder} have the same seed {run.seed}; give each seed once"
            )
        if run.items != first.items:
            raise DataError(f"{run.folder} and {first.folder} have different test items")
        if run.correct.keys() != first.correct.keys():
            raise DataError(f"{run.folder} and {first.folder} scored different strategies")
    figures = {name: [run.figures.get(name, {}) for run in runs] for name in first.correct}
    return Scores(
        [run.seed for run in runs],
        {
            name: np.array([run.correct[name] for run in runs], dtype=float)
            for name in first.correct
        },
        setting,
        {
            name: [float(row["macro"]) for row in rows]
            for name, rows in figures.items()
            if all("macro" in row for row in rows)
        },
        {
            name: float(np.mean([row["forward_passes"] for row in rows]))
            for name, rows in figures.items()
            if all("forward_passes" in row for row in rows)
        },
    )


def read_sweep(
    folder: Path, need: Sequence[str] = (), *, several: bool = False
) -> tuple[list[str], list[Scores], list[dict[str, Any]]]:
    """Reads a finished sweep.

    Args:
        folder: Of the sweep.
        need: Strategies that every job must have scored.
        several: Whether jobs may have several settings, instead of differing only in the seed.

    Returns:
        Keys of the settings that vary beside the seed; the scores of each setting; the jobs (`runs.finished_jobs`).

    Raises:
        ElreaError: The sweep is not finished, lacks a strategy, or its jobs cannot be compared.
    """
    jobs = finished_jobs(folder, need, several=several)
    runs: dict[tuple[str, ...], list[FinishedRun]] = defaultdict(list)
    for job in jobs:
        runs[job["setting"]].append(read_run(folder / job["number"]))
    scores = [scores_of(each, setting) for setting, each in runs.items()]
    return setting_keys(varied_values(jobs)), scores, jobs


def compare(
    scores: Sequence[Scores],
    *,
    command: str,
    data: str = "",
    settings: Sequence[str] = (),
    leader: str | None = None,
    baseline: str | None = None,
    measure: Measure = "accuracy",
    resamples: int = RESAMPLES,
) -> Comparison:
    """Every strategy of every setting, with its differences.

    Args:
        scores: One per setting.
        command: The command that makes the table.
        data: Name of the data.
        settings: Keys that the values in `Scores.setting` belong to.
        leader: A strategy; each row gets the leader's score less its own.
        baseline: A strategy; each row gets its own score less the baseline's.
        measure: What the scores are.
        resamples: Of the bootstrap.

    Raises:
        DataError: A setting has no scores of the leader or the baseline.
    """
    rows = []
    for each in scores:
        for reference in filter(None, (leader, baseline)):
            if reference not in each.items:
                raise DataError(
                    f"strategy {reference!r} was not scored{did_you_mean(reference, each.items)} (there is: "
                    f"{', '.join(each.items)})"
                )
        for name, scored in each.items.items():
            macro = [_rounded(x) for x in each.macro.get(name, [])] or None
            rows.append(
                Row(
                    setting=dict(zip(settings, each.setting, strict=True)),
                    strategy=name,
                    items=scored.shape[1],
                    seeds=list(each.seeds),
                    mean=_rounded(scored.mean()),
                    per_seed=[_rounded(x) for x in scored.mean(axis=1)],
                    macro=None if macro is None else _rounded(np.mean(macro)),
                    macro_per_seed=macro,
                    passes=None if name not in each.passes else round(each.passes[name], 2),
                    leader_minus_row=None
                    if leader in (None, name)
                    else difference(each.items[leader], scored, resamples),
                    row_minus_baseline=None
                    if baseline in (None, name)
                    else difference(scored, each.items[baseline], resamples),
                )
            )
    return Comparison(
        command=command, data=data, measure=measure, settings=list(settings), leader=leader,
        baseline=baseline, resamples=resamples, rows=rows,
    )  # fmt: skip


def part(table: Comparison, value: str) -> Comparison:
    """Selects the rows with a value of the first setting, and removes that setting from them."""
    key, *others = table.settings
    rows = [
        row.model_copy(update={"setting": {k: row.setting[k] for k in others}})
        for row in table.rows
        if row.setting[key] == value
    ]
    return table.model_copy(update={"settings": others, "rows": rows})


def save(table: Comparison, path: Path) -> None:
    """Writes a table as JSON, a line per row, atomically."""
    plain = table.model_dump(mode="json")
    rows = ",\n".join(f"    {_json(row)}" for row in plain.pop("rows"))
    details = _json(plain.pop("details"))
    head = "".join(f"  {_json(key)}: {_json(value)},\n" for key, value in plain.items())
    write_text(path, f'{{\n{head}  "rows": [\n{rows}\n  ],\n  "details": {details}\n}}\n')


def load(path: Path) -> Comparison:
    """Reads a table from JSON.

    Raises:
        ElreaError: There is no such file, or it does not follow the schema.
    """
    found = read_json(path)
    try:
        return Comparison.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(
            f"{path}: not a comparison of version {VERSION}: {where}: {first['msg']}"
        ) from error


def command_line() -> str:
    """The command line of this process as one would type it, without absolute paths of the script."""
    script = Path(sys.argv[0])
    spec = getattr(sys.modules["__main__"], "__spec__", None)  # of `python -m`, else None
    if spec is not None and spec.origin and script.exists() and script.samefile(spec.origin):
        return shlex.join(["python", "-m", spec.name.removesuffix(".__main__"), *sys.argv[1:]])
    try:
        shown = script.resolve().relative_to(Path.cwd())
    except ValueError:
        shown = Path(script.name)
    python = ["python"] if script.suffix == ".py" else []
    return shlex.join([*python, str(shown), *sys.argv[1:]])


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), DIGITS)


def _bounds(bounds: Interval) -> Interval:
    return _rounded(bounds[0]), _rounded(bounds[1])


def _maybe(bounds: Interval | None) -> Interval | None:
    return None if bounds is None else _bounds(bounds)
