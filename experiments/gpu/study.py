"""The study of SmolLM2 (experiments/real_model) on the GPU at its full data, as far as the time allows."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from experiments.gpu.needs import modules
from experiments.gpu.record import Record, Skip

if TYPE_CHECKING:
    from experiments.gpu.setting import Setting

NEEDS = modules()
SEEDS = (0, 1, 2)
REPLACED = {
    "trainer.accelerator=cpu": "trainer.accelerator=gpu",
    "backbone.dtype=mixed": "backbone.dtype=float32",
}
"""Settings of the study -> those in their place on a GPU."""


def measure(setting: Setting, record: Record) -> None:
    """Chooses the rates, then makes a run per seed; finished runs and stages are kept for the next call.

    Raises:
        Skip: There is no model or no data; what to give.
    """
    from experiments.gpu.setting import SMOLLM2

    model = setting.model or (SMOLLM2 if SMOLLM2.is_dir() else None)
    if setting.small or model is None or setting.data is None:
        raise Skip(
            "in small it is not run"
            if setting.small
            else "needs SmolLM2 (make smollm2, or --model) and --data"
        )
    work = (setting.into / "study").resolve()
    study = on_gpu(model.resolve(), work)
    from experiments.real_model.mixture import write

    if not (work / "data" / "test.jsonl").is_file():
        write(setting.data, work / "data")
    rates = record.figure("rates", study.rates)
    for seed in SEEDS:
        record.figure(f"seed {seed}", partial(_seed, study, rates, seed))


def on_gpu(model: Any, work: Any) -> Any:
    """The study with its large data, whose commands compute on a GPU."""
    from experiments.real_model.study import Study

    class OnGpu(Study):
        def command(self, *given: Any, **named: Any) -> list[str]:
            return [REPLACED.get(word, word) for word in super().command(*given, **named)]

    return OnGpu(model, work, 1, "large", 4)


def _seed(study: Any, rates: Any, seed: int) -> dict[str, Any]:
    import json

    study.final(rates, [seed])
    folder = study.work / "runs" / f"test-{study.size}-{study.clusters}-{seed}"
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return {"run": str(folder), "strategies": summary.get("strategies", {})}
