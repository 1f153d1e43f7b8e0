"""Runs the benchmark of features: a process per model, bergson, memory; prints the table and writes features.json."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import torch

from elrea.store.files import write_json
from experiments.benchmarks.features_bergson import bergson
from experiments.benchmarks.features_setting import LARGE, RANK, D, projections
from experiments.benchmarks.measuring import (
    in_process,
    machine,
    median_range,
    peaks_over_imports,
    ratio,
)


def report(given: argparse.Namespace) -> None:
    """Runs everything, prints the table, writes the JSON."""
    words = [
        f"--{name}={getattr(given, name)}" for name in ("batch", "batches", "rounds", "threads")
    ]
    words += ["--tokens", *map(str, given.tokens)]
    facts = {
        kind: json.loads(in_process("features", ["--measure", kind, *words]))
        for kind in given.models
    }
    results: dict[str, Any] = {
        "d": D,
        "rank": RANK,
        "batch": given.batch,
        "rounds": given.rounds,
        "over_plain": {kind: found["over_plain"] for kind, found in facts.items()},
        "operations_over_plain": {k: found["operations_over_plain"] for k, found in facts.items()},
        "differs_from_loop": {kind: found["differs_from_loop"] for kind, found in facts.items()},
        "prompts_per_second": {kind: found["prompts_per_second"] for kind, found in facts.items()},
        "parameters": {kind: found["parameters"] for kind, found in facts.items()},
        "memory_over_plain": memory(given),
        "machine": machine(threads=given.threads, torch=torch.__version__),
    }
    if "tiny" in facts:
        results["loop_over_ours"] = facts["tiny"]["loop"]["sjlt"]
        results["loop_over_ours_rademacher"] = facts["tiny"]["loop"]["rademacher"]
    if given.large:
        results["peak_mib_smollm2"] = large_peaks(given)
    write_json(given.out, results)  # kept even if bergson fails
    if not given.no_bergson:
        results["bergson_over_ours"], results["bergson"] = bergson(given)
    show(results, given)
    write_json(given.out, results)


def show(results: dict[str, Any], given: argparse.Namespace) -> None:
    """The table."""
    from rich.console import Console
    from rich.table import Table

    title = (
        f"Gradient features, rank {RANK}, d={D}, batches of {given.batch}: time over a plain pass"
    )
    table = Table(title=title)
    for name in ("what", *(f"{tokens} tokens" for tokens in given.tokens)):
        table.add_column(name, justify="left" if name == "what" else "right")
    for kind, ways in results["over_plain"].items():
        for way, row in ways.items():
            table.add_row(f"{kind}, {way}", *(median_range(row[str(t)]) for t in given.tokens))
        floors = results["operations_over_plain"][kind]
        table.add_row(
            f"{kind}, operations, rademacher", *(f"{floors[str(t)]}" for t in given.tokens)
        )
        table.add_section()
    for key, way in (("loop_over_ours", "sjlt"), ("loop_over_ours_rademacher", "rademacher")):
        if key in results:
            cells = [median_range(results[key][str(tokens)]) for tokens in given.tokens]
            table.add_row(f"tiny, {way}: a loop over ours", *cells)
    table.add_section()
    for way, row in results["memory_over_plain"].items():
        cells = [median_range(row) if tokens == 60 else "" for tokens in given.tokens]
        table.add_row(f"tiny, {way}: memory over plain", *cells)
    for way, mib in results.get("peak_mib_smollm2", {}).items():
        print(f"{way}, 32 x 113 tokens: peak {mib:,} MiB", file=sys.stderr)
    peer = results.get("bergson_over_ours")
    if peer:
        table.add_row(
            "tiny: bergson over ours",
            *(median_range(peer) if t == 60 else "" for t in given.tokens),
        )
    elif not given.no_bergson:
        print(f"bergson: skipped: {results['bergson']}", file=sys.stderr)
    Console(width=110).print(table)


def large_peaks(given: argparse.Namespace) -> dict[str, int]:
    """Peak memory of whole processes, MiB, for 32 prompts of 113 tokens and SmolLM2-135M's shape."""
    words = [f"--threads={given.threads}", "--peak"]
    return {way: round(float(in_process("features", [*words, way]))) for way in LARGE}


def memory(given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Peak memory over the plain pass's, both less torch's own, for each projection."""

    def peak(way: str) -> float:
        words = ["--peak", way, f"--batch={given.batch}", f"--threads={given.threads}"]
        return float(in_process("features", words))

    above = peaks_over_imports(["plain", *projections()], "torch", peak, 3)
    return {name: ratio(above[name], above["plain"]) for name in projections()}
