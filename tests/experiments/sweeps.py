"""Writes folders of finished jobs with made-up predictions, as a sweep leaves them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elrea.store.files import sha256

SCORE = {"accuracy": 0.0, "ci95": [0, 1], "forward_passes": 1, "delta_to_base": None}
"""A strategy in summary.json."""


def write_job(
    sweep: Path, seed: int, rows: Sequence[dict[str, Any]], summary: dict[str, Any]
) -> Path:
    """A finished job with its predictions; returns its folder, `<sweep>/<seed>`."""
    job = sweep / str(seed)
    job.mkdir(parents=True)
    for name, figures in summary["strategies"].items():
        right = "".join("01"[row["strategies"][name]["correct"]] for row in rows)
        digest = hashlib.sha256(right.encode()).hexdigest()
        summary["strategies"][name] = {**figures, "n": len(rows), "correct_sha256": digest}
    (job / "config.yaml").write_text(f"seed: {seed}\n")
    (job / "predictions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (job / "summary.json").write_text(json.dumps({"data": "made up", "seed": seed, **summary}))
    status = {
        "state": "done", "words": [f"seed={seed}"], "chosen": "elrea", "seconds": 1.0,
        "summary.json": sha256(job / "summary.json"),
    }  # fmt: skip
    (job / "status.json").write_text(json.dumps(status))
    return job
