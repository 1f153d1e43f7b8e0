"""Chooses every row's rate from sweeps over `evaluation.rate` that were scored on dev.

    python -m experiments.fair_table.rates multirun/<day>/<time> ...           # the table, the chosen rates in bold
    python -m experiments.fair_table.rates multirun/<day>/<time> ... --words   # the override for the runs on test alone
    python -m experiments.fair_table.rates multirun/<day>/<time> ... --save rates.json   # serves in place of the sweeps

A row takes the rate at which it has the most dev questions right, the mean over seeds; of equal ones the lowest. The
first sweep has all rows at the same rates, with as many runs. Further ones have other rates, for the rows whose best
rate was at an end of their range; which these are is said.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from elrea.commands.config_files import config_folder
from elrea.commands.exit import one_line_errors
from elrea.errors import ConfigError, DataError
from elrea.pipeline.choices import RATES, strategy_nodes
from elrea.reporting.compare_table import read_sweep
from elrea.store.files import read_json, write_json

KEY = "evaluation.rate"
WITHOUT = ("backbone", "base")
"""Rows without a rate of their own."""
FREE = (KEY, "evaluation.strategies", "ensemble", "trainer.threads", "store", "name")
"""Keys in which sweeps that are read together may differ, beside Hydra's and W&B's."""


def accuracies(folder: Path) -> dict[str, dict[str, float]]:
    """Share of dev questions that each row has right at each rate, as it was typed; the lowest rate first.

    Raises:
        ElreaError: The sweep is not finished, varies anything but rate and seed, or was scored on test.
    """
    return read(folder)[0]


def read(folder: Path) -> tuple[dict[str, dict[str, float]], set[str]]:
    """`accuracies`, and what was typed for the jobs in which other sweeps must not differ.

    Args:
        folder: Of the sweep; or the file that `--save` has written of it.

    Raises:
        ElreaError: As `accuracies`; or the file is not one of these.
    """
    if folder.is_file():
        saved = read_json(folder)
        if not isinstance(saved, dict) or saved.keys() != {"accuracy", "words"}:
            raise DataError(f"{folder}: is no file of rates, as --save writes it")
        return dict(saved["accuracy"]), {*saved["words"]}
    keys, scores, jobs = read_sweep(folder, several=True)
    typed = [word for word in jobs[0]["words"] if word.startswith(f"{KEY}=")]
    if keys != [KEY] and (keys or not typed):
        raise ConfigError(f"{folder}: varies {', '.join(keys) or 'no setting'}; sweep {KEY} alone")
    if any("evaluation.split=dev" not in job["words"] for job in jobs):
        raise ConfigError(
            f"{folder}: was scored on test; choose rates on dev, with evaluation.split=dev"
        )
    one = [word.partition("=")[2] for word in typed]  # a sweep of a single rate varies none
    by_rate = {each.setting[0] if keys else one[0]: each.items for each in scores}
    rows = dict.fromkeys(name for items in by_rate.values() for name in items)
    found = {
        row: {rate: float(by_rate[rate][row].mean()) for rate in sorted(by_rate, key=float)}
        for row in rows
    }
    return found, overrides_of(jobs)


def overrides_of(jobs: Sequence[Mapping[str, Any]]) -> set[str]:
    """Overrides of a sweep's jobs, without those of `FREE`, and without Hydra's and W&B's."""
    words = [(word, word.partition("=")[0]) for job in jobs for word in job["words"]]
    return {
        word
        for word, key in words
        if key not in FREE and not key.startswith(("hydra.", "hydra/", "tracking"))
    }


def merged(folders: Sequence[Path]) -> dict[str, dict[str, float]]:
    """`accuracies` of several sweeps, by row and rate, the lowest rate first.

    Raises:
        ElreaError: As `accuracies`; or a sweep has a row or a rate that it must not have, or other seeds or data.
    """
    found, setting = read(folders[0])
    for folder in folders[1:]:
        more, other = read(folder)
        if differing := sorted(setting ^ other):
            raise ConfigError(f"{folder} and {folders[0]} differ in {', '.join(differing)}")
        for row, each in more.items():
            if row not in found:
                raise ConfigError(f"{folder}: has {row}, and {folders[0]} has not")
            if row not in WITHOUT and {*map(float, found[row])} & {*map(float, each)}:
                raise ConfigError(f"{folder}: has rates of {row} that another sweep has too")
            found[row] |= each
    return {row: dict(sorted(each.items(), key=lambda one: float(one[0]))) for row, each in found.items()}  # fmt: skip


def at_the_end(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Rows whose best rate is the lowest or highest of those they have tried."""
    return [
        row
        for row, each in found.items()
        if row not in WITHOUT and best(each) in (next(iter(each)), list(each)[-1])
    ]


def best(found: Mapping[str, float]) -> str:
    """The rate of the highest accuracy; of equal ones the first."""
    return max(found, key=found.__getitem__)


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Accuracies in % as Markdown, each row's best in bold; - where a row has not tried a rate."""
    rates = sorted({rate for each in found.values() for rate in each}, key=float)
    lines = [f"| row | {' | '.join(rates)} |", "|---" * (1 + len(rates)) + "|"]
    for row, each in found.items():
        shown = [f"{100 * each[rate]:.1f}" if rate in each else "-" for rate in rates]
        if row not in WITHOUT:
            place = rates.index(best(each))
            shown[place] = f"**{shown[place]}**"
        lines.append(f"| {row} | {' | '.join(shown)} |")
    return "\n".join(lines)


def words(found: Mapping[str, Mapping[str, float]]) -> str:
    """The override that gives each row its best rate, as `evaluation.rate` gave it on dev.

    Rows without a rate have none here. Of a row that is no choice of this project it is not known whether it has one:
    it has none if it scores alike at all of them.
    """
    rows = [row for row in found if row not in WITHOUT]
    here = {path.stem for path in (config_folder() / "ensemble").glob("*.yaml")}
    nodes = strategy_nodes(config_folder(), [row for row in rows if row in here])
    own = []
    for row in rows:
        keys = RATES if row in here else RATES[:1] if len(set(found[row].values())) > 1 else ()
        rates = [f"{key}: {best(found[row])}" for key in keys if key in nodes.get(row, RATES)]
        own += [f"{row}: {{{', '.join(rates)}}}"] if rates else []
    return f"evaluation.settings={{{', '.join(own)}}}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", type=Path, nargs="+", help="finished sweeps over evaluation.rate on dev"
    )
    parser.add_argument("--words", action="store_true", help="print the override alone")
    parser.add_argument("--save", type=Path, help="a JSON file that serves in place of the sweeps")
    given = parser.parse_args()
    found = merged(given.folders)
    if given.save:
        typed = sorted(read(given.folders[0])[1])
        write_json(given.save, {"words": typed, "accuracy": [*found.items()]})
    if given.words:
        print(words(found))
        return
    ends = ", ".join(at_the_end(found)) or "none"
    print(f"{table(found)}\n\nBest at an end of their range: {ends}\n\n{words(found)}")


if __name__ == "__main__":
    with one_line_errors():
        main()
