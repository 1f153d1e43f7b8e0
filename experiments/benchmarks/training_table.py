"""Runs the benchmark of training: a process per model and number of threads; prints the table, writes training.json."""

from __future__ import annotations

import argparse
import json
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from elrea.store.files import write_json
from experiments.benchmarks.measuring import in_process, machine, median_range
from experiments.benchmarks.training_setting import RANK, STEP, read_lengths


def report(given: argparse.Namespace) -> None:
    """Runs everything, prints the table, writes the JSON."""
    words = [f"--{n}={getattr(given, n)}" for n in ("rounds", "steps", "dropout", "clock")]
    if given.lengths:
        read_lengths(given.lengths)  # before any long work
        words.append(f"--lengths={given.lengths.absolute()}")
    found = {
        kind: {
            str(threads): json.loads(
                in_process("training", ["--measure", kind, *words, "--threads", str(threads)])
            )
            for threads in given.threads
        }
        for kind in given.models
    }
    results: dict[str, Any] = {
        "rank": RANK,
        "examples_per_step": STEP,
        "rounds": given.rounds,
        "dropout": given.dropout,
        "clock": given.clock,
        "lengths": "of a file" if given.lengths else "drawn",
        "models": found,
        "machine": machine(
            **{name: _version(name) for name in ("torch", "transformers", "peft", "trl")}
        ),
    }
    show(results)
    write_json(given.out, results)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def show(results: dict[str, Any]) -> None:
    """The table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"Training, LoRA of rank {RANK}, steps of {STEP} examples, dropout {results['dropout']}: tokens per "
        f"second ({results['clock']} clock), and the others' time over ours"
    )
    columns = [(kind, n) for kind, each in results["models"].items() for n in each]
    table.add_column("way")
    for kind, threads in columns:
        table.add_column(f"{kind}, {threads} thread" + "s" * (threads != "1"), justify="right")
    facts = [results["models"][kind][threads] for kind, threads in columns]
    for name in facts[0]["tokens_per_second"]:
        table.add_row(name, *(f"{each['tokens_per_second'][name]:,.0f}" for each in facts))
    for mine in facts[0]["over"]:
        table.add_section()
        for name in facts[0]["over"][mine]:
            cells = (median_range(each["over"][mine][name]) for each in facts)
            table.add_row(f"{name} over {mine}", *cells)
    table.add_section()
    table.add_row("padding, share of the tokens", *(f"{each['padding']:.2f}" for each in facts))
    Console(width=110).print(table)
    if results["machine"]["trl"] is None:
        print("trl: skipped: not installed; pip install -e '.[bench]'", file=sys.stderr)
