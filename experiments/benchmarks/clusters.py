"""Measures what clustering costs from 50,000 to 200,000 features of 1,024 dimensions, and that its memory is constant.

    make bench-clusters
    python -m experiments.benchmarks.clusters --rows 50000 100000 --k 16

Features are synthetic: unit vectors around `--groups` directions that share a part, float16, in a memory-mapped file of
`--rows` x `--d` x 2 bytes in a temporary folder. Every row of the table is a process of its own; its memory is the peak
of the process, pages of the file included. Writes clusters.json beside this file; takes some minutes.

`birch` is the paper's procedure: first five clusters, then those are split again that are five times as large as the
smallest. Groups of similar size that share a cluster stay together, so of eight groups it finds five to seven (ARI
below 1).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from elrea.method.clustering.birch import Birch
from elrea.method.clustering.kmeans import FaissKMeans
from elrea.method.clustering.points import Points
from elrea.method.clustering.quality import quality
from elrea.method.clustering.source import SourceClusters
from elrea.store.files import write_json
from experiments.benchmarks.measuring import in_process, machine, memory_mib

HERE = Path(__file__).parent
BLOCK = 10_000


def centres(groups: int, d: int) -> np.ndarray:
    """Directions [groups, d], orthogonal except for the part that they share."""
    draw = np.random.default_rng(1)
    rows = draw.standard_normal((groups + 1, d)) / np.sqrt(d)
    return rows[0] + rows[1:]


def labels_of(n: int, groups: int) -> np.ndarray:
    """The group of each row [n]; the first rows stay the same for any n."""
    return np.random.default_rng(2).integers(0, groups, n)


def write_features(path: Path, n: int, d: int, groups: int) -> None:
    """Writes each row's direction plus noise of the same size, block by block."""
    middle, labels, draw = centres(groups, d), labels_of(n, groups), np.random.default_rng(3)
    with path.open("wb") as file:
        for start in range(0, n, BLOCK):
            part = middle[labels[start : start + BLOCK]]
            rows = part + draw.standard_normal(part.shape, dtype=np.float32) / np.sqrt(d)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            file.write(rows.astype(np.float16).tobytes())


def one(name: str, path: Path, n: int, d: int, k: int, groups: int) -> dict[str, Any]:
    """Clusters the file's first n rows once, in this process."""
    import faiss  # noqa: F401  before the clock starts
    import sklearn.cluster  # noqa: F401
    from sklearn.metrics import adjusted_rand_score

    labels = labels_of(n, groups)
    features = np.memmap(path, dtype=np.float16, mode="r", shape=(n, d))
    points = Points(features, [f"source {label}" for label in labels])
    kmeans = FaissKMeans(k=k)
    ways: dict[str, Callable[[], np.ndarray]] = {
        "faiss_kmeans": lambda: kmeans(points, 0),
        "faiss_kmeans, pca=256": lambda: FaissKMeans(k=k, pca=256)(points, 0),
        "birch": lambda: Birch()(points, 0),
        "source": lambda: SourceClusters()(points, 0),
        "figures": lambda: _figures(points, labels, kmeans),
    }
    before, wall, cpu = memory_mib()[0], time.perf_counter(), time.process_time()
    found = ways[name]()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "seconds": round(wall, 2),
        "cpu_seconds": round(cpu, 2),
        "peak_mib": round(memory_mib()[1], 1),
        "above_imports_mib": round(memory_mib()[1] - before, 1),
        "clusters": int(found.max()) + 1,
        "ari": round(float(adjusted_rand_score(labels, found)), 4),
    }


def _figures(points: Points, labels: np.ndarray, kmeans: FaissKMeans) -> np.ndarray:
    quality(points, labels, points.sources, kmeans)
    return labels


WAYS = ("faiss_kmeans", "faiss_kmeans, pca=256", "birch", "source", "figures")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 100_000, 200_000])
    parser.add_argument("--d", type=int, default=1024)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--groups", type=int, default=8)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--out", type=Path, default=HERE / "clusters.json")
    parser.add_argument("--one", nargs=3, metavar=("WAY", "FILE", "N"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        way, file, n = given.one
        print(json.dumps(one(way, Path(file), int(n), given.d, given.k, given.groups)))
        return
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features"
        write_features(path, max(given.rows), given.d, given.groups)
        for way in given.ways:
            results[way] = {}
            for n in sorted(given.rows):
                words = [f"--{name}={getattr(given, name)}" for name in ("d", "k", "groups")]
                words += ["--one", way, str(path), str(n)]
                results[way][str(n)] = json.loads(in_process("clusters", words))
                print(f"{way}, {n:,}: {results[way][str(n)]}", file=sys.stderr, flush=True)
    show(results, given.d)
    least, most = str(min(given.rows)), str(max(given.rows))
    facts = {
        "d": given.d,
        "k": given.k,
        "groups": given.groups,
        "machine": machine(threads=os.environ.get("OMP_NUM_THREADS", "all")),
        "ways": results,
        "peak_most_over_least": {
            way: round(rows[most]["peak_mib"] / rows[least]["peak_mib"], 3)
            for way, rows in results.items()
        },
    }
    write_json(given.out, facts)


def show(results: dict[str, dict[str, Any]], d: int) -> None:
    """The table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Clustering n features of {d} dimensions, memory-mapped")
    table.add_column("what")
    for name in ("n", "seconds", "CPU s", "peak MiB", "above imports", "clusters", "ARI"):
        table.add_column(name, justify="right")
    for way, rows in results.items():
        for n, row in rows.items():
            cells = [f"{int(n):,}", *(f"{row[key]:,}" for key in row)]
            table.add_row(way, *cells)
        table.add_section()
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
