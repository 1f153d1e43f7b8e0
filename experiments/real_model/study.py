"""Runs the study of SmolLM2-135M on seven real sources: chooses every row's rate on dev, then scores the test set.

    python -m experiments.real_model.study --data <folder of flan_cot/, t0/, gsm8k/> \
        --model models/SmolLM2-135M-Instruct --work <folder for data, runs and stages>

In order: four rates of the base adapter; two or three rates of every other row; then a run per seed with the chosen
rates, and one more per seed in which a distilled router weights the same experts. Then one adapter that ELREA's
clusters steer, in the form that is best on dev. Last, ELREA once more with a base adapter that is trained less and a
rate of the experts that is chosen together with it, if dev finds it better.
`--rows first` has the rows that cost least, on half the test questions, in about a third of the time; what it has
trained serves the run of all rows.
All rates are chosen on dev with seed 10, which no other run uses, by the mean over sources of the loss per token. The
same command goes on where it was stopped, since finished runs and stages are kept. `--jobs 2` runs two at a time, one
thread each; `--until rates` stops before the test set is looked at. `table.py` writes the table.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from omegaconf import OmegaConf

from elrea.commands.exit import one_line_errors
from elrea.errors import ElreaError
from elrea.reporting.runs import read_run
from elrea.store.files import write_json
from experiments.real_model.mixture import SIZES, write
from experiments.real_model.rows import (
    DISTILLED,
    EXPERT_RATES,
    FACTORS,
    FIRST,
    FORMS,
    JOINT,
    MATCHED,
    OF_EXPERTS,
    ROWS,
    SHARED,
    STEERED,
    TRUNKS,
)

ROOT = Path(__file__).parents[2]
TUNED = 10
"""Seed and draw of the runs that choose rates."""
EPOCHS = 2
"""Of the base adapter, as `training=paper` has them."""
BASE_RATES = (2.5e-4, 5e-4, 1e-3, 2e-3)
"""Of `training.learning_rate`."""
SETTINGS = (
    "backbone=smollm2_135m", "backbone.dtype=mixed", "backbone.max_length=256", "data=jsonl", "data.options=text",
    "data.overlap=drop", "adapter=lora", "adapter.dropout=0", "training=paper", "training.batch_size=4",
    "clustering.pca=64", "evaluation.by=likelihood", "evaluation.mean_logits=true", "trainer.accelerator=cpu",
    "trainer.threads=1", "tracking.mode=disabled",
)  # fmt: skip


@dataclass(frozen=True)
class Study:
    """Where things are.

    Attributes:
        model: Folder of the model.
        work: Folder for data, stages and runs.
        jobs: Runs at the same time.
        size: Of the training data, of `mixture.SIZES`.
        clusters: C.
        first: Whether only `FIRST` are compared, on half the test questions.
    """

    model: Path
    work: Path
    jobs: int
    size: str
    clusters: int
    first: bool = False

    @property
    def at(self) -> str:
        """Size and number of clusters, as names of runs have them."""
        return f"{'first-' if self.first else ''}{self.size}-{self.clusters}"

    def command(
        self, name: str, draw: int, strategies: Sequence[str], *more: str, test: str = "test"
    ) -> list[str]:
        """The command of one run, into `<work>/runs/<name>`; `test` names the file of its test questions."""
        data = self.work / "data"
        return [
            sys.executable, str(ROOT / "run.py"), *SETTINGS, f"backbone.name={self.model}",
            f"data.train={data}/train-{self.size}-{draw}.jsonl", f"data.dev={data}/dev.jsonl",
            f"data.test={data}/{test}.jsonl", f"clustering.k={self.clusters}",
            f"seed={draw}", f"evaluation.strategies=[{','.join(strategies)}]", f"store={self.work}/store",
            f"hydra.run.dir={self.work}/runs/{name}", *more,
        ]  # fmt: skip

    def run(self, commands: Mapping[str, Sequence[str]]) -> None:
        """Runs what is not finished yet.

        Raises:
            ElreaError: A run failed; the others have gone on. Or one was finished with other settings.
        """
        missing = [name for name, command in commands.items() if not self._finished(name, command)]
        print(f"{len(commands) - len(missing)} of {len(commands)} runs are finished", flush=True)
        with ThreadPoolExecutor(self.jobs) as pool:
            codes = list(pool.map(lambda name: self._one(name, commands[name]), missing))
        if failed := [name for name, code in zip(missing, codes, strict=True) if code]:
            raise ElreaError(
                f"{self.work}/logs/{failed[0]}.txt says why this run failed; {len(failed)} did"
            )

    def _finished(self, name: str, command: Sequence[str]) -> bool:
        folder = self.work / "runs" / name
        if not (folder / "summary.json").is_file():
            return False
        if differ := {*settings_of(command)} ^ {
            *OmegaConf.load(folder / ".hydra" / "overrides.yaml")
        }:
            raise ElreaError(
                f"{folder} is of other settings ({', '.join(sorted(differ))}); move it away, and this command makes "
                "it anew"
            )
        return True

    def _one(self, name: str, command: Sequence[str]) -> int:
        log = self.work / "logs" / f"{name}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        print(f"{name}: begins; its progress is in {log}", flush=True)
        with log.open("a", encoding="utf-8") as file:
            alone = {**os.environ, "OMP_NUM_THREADS": "1"}
            code = subprocess.run(command, cwd=ROOT, env=alone, stdout=file, stderr=file).returncode
        print(f"{name}: {'done' if code == 0 else f'failed ({code})'}", flush=True)
        return code

    def dev_loss(self, name: str) -> dict[str, float]:
        """Of a run scored on dev, by strategy: the mean over sources of the loss per token, in nats."""
        run = read_run(self.work / "runs" / name)
        found = {}
        for strategy, losses in run.losses.items():
            by_source = defaultdict(list)
            for source, loss in zip(run.sources, losses, strict=True):
                if loss is not None:
                    by_source[source].append(loss)
            found[strategy] = fmean(fmean(each) for each in by_source.values())
        return found

    def rates(self) -> dict[str, Any]:
        """The chosen rates, and the losses that they were chosen by."""
        dev, setting = "evaluation.split=dev", f"{self.size}-{self.clusters}"
        names = [f"base-{self.size}-{number}" for number in range(len(BASE_RATES))]
        self.run(
            {
                name: self.command(
                    name,
                    TUNED,
                    ["backbone"],
                    "ensemble=base",
                    f"training.learning_rate={rate}",
                    dev,
                )
                for name, rate in zip(names, BASE_RATES, strict=True)
            }
        )
        losses = {"base": [self.dev_loss(name)["base"] for name in names]}
        base = BASE_RATES[_least(losses["base"])]
        tried: dict[str, dict[str, float]] = defaultdict(dict)
        for row, own in FACTORS.items():
            kind = "matched-dev" if row in MATCHED else "rows"
            for number, rate in enumerate(own):
                tried[f"{kind}-{setting}-{number}"][row] = rate
        self.run(
            {
                name: self.command(
                    name,
                    TUNED,
                    ["base", *rates],
                    f"ensemble={'elrea' if 'elrea' in rates else 'base'}",
                    dev,
                    *_overrides(base, rates),
                )
                for name, rates in tried.items()
            }
        )
        for name, rates in tried.items():
            found = self.dev_loss(name)
            for row in rates:
                losses.setdefault(row, []).append(found[row])
        chosen = {row: rates[_least(losses[row])] for row, rates in FACTORS.items()}
        result = {"base": base, "factors": chosen, "tried": FACTORS, "dev_loss": losses}
        write_json(self.work / f"rates-{setting}.json", result)
        return result

    def joint(self, rates: Mapping[str, Any]) -> dict[str, Any]:
        """The base adapter and the experts' rate that are best for ELREA on dev, of all that were tried together.

        Returns:
            `rate` and `epochs` of the base adapter, `expert_rate`, and `dev_loss`, by what was tried.
        """
        own = _own(rates)
        least = min(rates["dev_loss"]["elrea"])
        setting = f"{self.size}-{self.clusters}"
        tried = {
            f"joint-dev-{setting}-{number}-{place}": (rate, epochs, expert)
            for number, (rate, epochs) in enumerate(TRUNKS)
            for place, expert in enumerate(EXPERT_RATES)
        }
        rows = ["base", *(row for row in JOINT.values() if row.startswith("elrea"))]
        self.run(
            {
                name: self.command(name, TUNED, rows, *_trunk(*each), "evaluation.split=dev")
                for name, each in tried.items()
            }
        )
        losses = {
            own: least,
            **{each: self.dev_loss(name)["elrea"] for name, each in tried.items()},
        }
        rate, epochs, expert = min(losses, key=losses.__getitem__)
        found = {
            "rate": rate, "epochs": epochs, "expert_rate": expert,
            "dev_loss": {f"{a:g} for {b} epochs, experts {c:g}": loss for (a, b, c), loss in losses.items()},
        }  # fmt: skip
        write_json(self.work / f"joint-{setting}.json", found)
        return found

    def steered(self, rates: Mapping[str, Any]) -> dict[str, float]:
        """The settings of `steered` that are best on dev, of `FORMS`."""
        setting = f"{self.size}-{self.clusters}"
        names = [f"steered-dev-{setting}-{number}" for number in range(len(FORMS))]
        self.run(
            {
                name: self.command(
                    name, TUNED, ["base", "steered"], *_steered(rates["base"], form, "steered"), "evaluation.split=dev"
                )
                for name, form in zip(names, FORMS, strict=True)
            }
        )  # fmt: skip
        losses = [self.dev_loss(name)["steered"] for name in names]
        best = FORMS[_least(losses)]
        found = {"chosen": best, "tried": FORMS, "dev_loss": losses}
        write_json(self.work / f"steered-{setting}.json", found)
        return best

    def final_steered(self, rates: Mapping[str, Any], seeds: Sequence[int]) -> None:
        """A run per seed of the rows of `STEERED`."""
        form = self.steered(rates)
        self._per_seed("steered", seeds, STEERED, *_steered(rates["base"], form, *STEERED))

    def final(self, rates: Mapping[str, Any], seeds: Sequence[int]) -> None:
        """A run per seed, on its own draw of the training data, scored on test.

        One more each has the distilled rows, or, for the first rows, those of `MATCHED`.
        """
        rows = FIRST if self.first else ROWS
        base, factors = rates["base"], rates["factors"]
        self._per_seed("test", seeds, rows, *_chosen(rates, rows))
        if self.first:
            own = {row: factors[row] for row in MATCHED}
            self._per_seed("matched", seeds, MATCHED, "ensemble=base", *_overrides(base, own))
        else:
            router = ["routing=distilled", "routing.compare=false"]
            elrea = _overrides(base, {"elrea": factors["elrea"]})
            self._per_seed("distilled", seeds, list(DISTILLED.values()), *elrea, *router)

    def final_joint(self, rates: Mapping[str, Any], seeds: Sequence[int]) -> None:
        """A run per seed of the rows of `JOINT`; none if what the other rows have is the best."""
        found = self.joint(rates)
        best = (found["rate"], found["epochs"], found["expert_rate"])
        if best != _own(rates):
            self._per_seed("joint", seeds, list(JOINT.values()), *_trunk(*best))

    def _per_seed(self, kind: str, seeds: Sequence[int], rows: Sequence[str], *more: str) -> None:
        test = "test-half" if self.first else "test"
        names = {f"{kind}-{self.at}-{seed}": seed for seed in seeds}
        self.run(
            {name: self.command(name, seed, rows, *more, test=test) for name, seed in names.items()}
        )


def settings_of(command: Sequence[str]) -> list[str]:
    """The overrides of one of `Study.command`'s, without Hydra's own."""
    return [word for word in command[2:] if not word.startswith("hydra.")]


def _least(losses: Sequence[float]) -> int:
    return min(range(len(losses)), key=losses.__getitem__)


def _chosen(rates: Mapping[str, Any], rows: Sequence[str]) -> list[str]:
    """Overrides for the chosen rates."""
    own = {row: factor for row, factor in rates["factors"].items() if row in rows}
    shared = {row: own[of] for row, of in SHARED.items() if row in rows}
    return _overrides(rates["base"], own | shared)


def _own(rates: Mapping[str, Any]) -> tuple[float, int, float]:
    """Rate and epochs of the base adapter that the other rows have, and ELREA's experts' rate on it."""
    return rates["base"], EPOCHS, rates["base"] * rates["factors"]["elrea"]


def _trunk(rate: float, epochs: int, expert_rate: float) -> list[str]:
    """Overrides for a base adapter that is tuned together with the experts."""
    return [
        f"training.learning_rate={rate}", f"training.epochs={epochs}", f"training.expert_learning_rate={expert_rate}",
    ]  # fmt: skip


def _steered(base: float, form: Mapping[str, float], *rows: str) -> list[str]:
    """Overrides for one adapter that is steered by the clusters that ELREA has, those of the run's base adapter."""
    words = ", ".join(
        ["clusters_from: null", *(f"{name}: {value}" for name, value in form.items())]
    )
    settings = ", ".join(f"{row}: {{{words}}}" for row in rows)
    return [
        "ensemble=base", f"training.learning_rate={base}", f"evaluation.settings={{{settings}}}",
    ]  # fmt: skip


def _overrides(base: float, own: Mapping[str, float]) -> list[str]:
    expert = own.get("elrea", 1.0)
    settings = []
    for row, factor in own.items():
        if row in ("elrea", "elrea_states", "instruction_embedding"):
            continue  # they train by training.expert_learning_rate
        of_experts = row in OF_EXPERTS or SHARED.get(row) in OF_EXPERTS
        settings.append(f"{row}: {{rate: {factor / expert if of_experts else factor}}}")
    return [
        f"training.learning_rate={base}", f"training.expert_learning_rate={base * expert}",
        f"evaluation.settings={{{', '.join(settings)}}}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of flan_cot/, t0/, gsm8k/")
    parser.add_argument(
        "--model", type=Path, required=True, help="the folder that make smollm2 writes"
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for data, stages and runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the final runs")
    parser.add_argument("--size", choices=SIZES, default="small", help="of the training data")
    parser.add_argument("--clusters", type=int, default=4, help="C")
    parser.add_argument(
        "--rows", choices=("first", "all"), default="all", help="first: those that cost least"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="runs at the same time, of a thread each"
    )
    parser.add_argument("--until", choices=("rates", "test"), default="test")
    given = parser.parse_args()
    with one_line_errors():
        if not (given.work / "data" / "test-half.jsonl").is_file():
            write(given.data, given.work / "data")
        work, model = given.work.resolve(), given.model.resolve()
        study = Study(model, work, given.jobs, given.size, given.clusters, given.rows == "first")
        rates = study.rates()
        if given.until == "test":
            study.final(rates, given.seeds)
            study.final_steered(rates, given.seeds)
            study.final_joint(rates, given.seeds)
        print(f"{study.work}: finished up to {given.until}; rates-*.json has the chosen rates")


if __name__ == "__main__":
    main()
