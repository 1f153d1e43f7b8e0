"""Measures EleutherAI's bergson on the same model, adapter, prompts and dimension, in an environment of its own.

The environment is in the user's cache folder. It sees the packages of this one, so that both run on the same torch and
transformers, and has bergson and its other dependencies besides. It is made once, from PyPI.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import site
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from experiments.benchmarks.measuring import ROOT, in_process, ratio, rounds

VERSION = "2.5.1"
TOKENS = 60
NEEDS = "datasets jaxtyping ml_dtypes natsort petname pyarrow simple-parsing torchopt bitsandbytes pyyaml".split()
"""What bergson imports; torchvision and torchaudio, which it lists too, would install another torch."""


def bergson(given: argparse.Namespace) -> tuple[dict[str, float] | None, str]:
    """Its time over ours and its version; None and the reason where it cannot be installed."""
    try:
        python = environment()
        words = [
            f"--{name}={getattr(given, name)}" for name in ("batch", "batches", "rounds", "threads")
        ]
        found = json.loads(in_process("features_bergson", words, str(python)))
    except subprocess.CalledProcessError as error:
        print(error.stderr or "", file=sys.stderr)
        return (
            None,
            f"bergson {VERSION} cannot be run here: {' '.join(map(str, error.cmd[:5]))} failed",
        )
    except OSError as error:
        return None, f"bergson {VERSION} cannot be installed: {error}"
    return found, f"bergson {VERSION}, projection_target=global, {TOKENS} tokens"


def environment() -> Path:
    """The Python of the environment; makes the environment if it is missing."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "elrea"
    folder = cache / f"bergson-{VERSION}-py{sys.version_info.major}{sys.version_info.minor}"
    python, done = folder / "bin" / "python", folder / "done"
    inside = (
        folder
        / "lib"
        / f"python{sys.version_info.major}.{sys.version_info.minor}"
        / "site-packages"
    )
    if not done.exists():
        call(sys.executable, "-m", "venv", "--clear", str(folder))
        # Before anything is installed, so that pip finds this torch; .pth files in there are not followed.
        seen = [*site.getsitepackages(), str(ROOT)]
        (inside / "of-the-project.pth").write_text("\n".join(seen) + "\n")
        pinned = [f"{d.metadata['Name']}=={d.version}" for d in importlib.metadata.distributions()]
        own = [line for line in pinned if not line.startswith(("elrea", "pip=", "None"))]
        (folder / "constraints.txt").write_text("\n".join(own) + "\n")
        pip = [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "-c",
            str(folder / "constraints.txt"),
        ]
        call(*pip, "--no-deps", f"bergson=={VERSION}")
        call(*pip, *NEEDS)
        done.touch()
    return python


def call(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)


def measure(given: argparse.Namespace) -> dict[str, float]:
    """Times bergson and ours in this process, which has bergson."""
    import torch

    from experiments.benchmarks.features_setting import D, Setting, projections

    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting("tiny", Path(folder))
        prompts = setting.prompts(given.batch * given.batches, TOKENS)
        ours = setting.ours(prompts, given.batch, projections()["rademacher"])
        seconds = rounds(
            {"bergson": peer(setting.model, prompts, given.batch, D, folder), "ours": ours},
            given.rounds,
        )
    return ratio(seconds["bergson"], seconds["ours"])


def peer(model: Any, prompts: list[Any], batch: int, d: int, folder: str) -> Any:
    """Takes all features with bergson, of plain gradients: less work than Adam's form."""
    # Installed in the other environment only.
    from bergson import (  # type: ignore[import-not-found]
        CollectorComputer,
        GradientProcessor,
        IndexConfig,
        InMemoryCollector,
    )
    from bergson.utils.peft import detect_peft_modules  # type: ignore[import-not-found]
    from datasets import Dataset

    data = Dataset.from_dict(
        {"input_ids": [list(p.prompt) for p in prompts], "length": [len(p.prompt) for p in prompts]}
    )
    batches = [list(range(start, start + batch)) for start in range(0, len(prompts), batch)]
    cfg = IndexConfig(
        run_path=f"{folder}/run",
        projection_dim=d,
        projection_target="global",
        loss_reduction="mean",
    )
    cfg.partial_run_path.mkdir(parents=True, exist_ok=True)
    processor = GradientProcessor(projection_dim=d, projection_target="global")

    def run() -> Any:
        collector = InMemoryCollector(
            model=model.base_model,
            target_modules=detect_peft_modules(model),
            processor=processor,
            data=data,
            cfg=cfg,
        )
        CollectorComputer(
            model, data, collector=collector, batches=batches, cfg=cfg
        ).run_with_collector_hooks()
        got = collector.gradients["gradients"]
        assert got.shape == (len(prompts), d) and bool(got.any(1).all())
        return got

    return run


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("batch", "batches", "rounds", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    print(json.dumps(measure(parser.parse_args())))
