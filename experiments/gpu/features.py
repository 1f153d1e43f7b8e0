"""Gradient features of a bfloat16 and of a 4-bit backbone against those of a float32 one, with the same adapters."""

from __future__ import annotations

import gc
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.gpu.record import Record, Watch

if TYPE_CHECKING:
    from experiments.gpu.setting import Setting

WAYS = {
    "float32": ("float32", None, ()),
    "bfloat16": ("bfloat16", None, ()),
    "4bit": ("bfloat16", "4bit", ("bitsandbytes",)),
}
"""Name -> dtype, quantisation, and packages that it needs."""
EXACT = "float32"
D = 1024


def measure(setting: Setting, record: Record) -> None:
    """Trains a base adapter for an epoch in float32; then takes the features of its prompts in every way."""
    work = setting.into / "features"
    record.figure("training", lambda: _train(setting, work / "base"))
    for name, (dtype, quantise, needs) in WAYS.items():
        missing = [package for package in needs if find_spec(package) is None]
        if missing:
            record.figure(name, partial(dict, skipped=f"needs {', '.join(missing)}"))
            continue
        record.figure(name, partial(_extract, setting, work, name, dtype, quantise))
    for name in WAYS:
        if "skipped" not in record.figures[name]:
            record.figure(f"{name} against {EXACT}", partial(_compare, setting, work, name))


def _train(setting: Setting, folder: Path) -> dict[str, Any]:
    import shutil

    from elrea.data.prompts import Prompter
    from elrea.models.adapter_shape import Lora
    from elrea.models.lora import attach
    from elrea.models.training.settings import Recipe, Training
    from elrea.models.training.train import train_adapter

    shutil.rmtree(folder, ignore_errors=True)
    backbone, shape = setting.load(), Lora(r=8, dropout=0.0)
    encoded, _ = Prompter(backbone.tokenizer, 512).train(setting.exam().train)
    training = Training(epochs=1, batch_size=setting.batch, learning_rate=5e-4)
    with Watch() as watch:
        train_adapter(
            attach(backbone.model, shape, 0), encoded, Recipe(1, 5e-4, training), pad_id=backbone.pad_id, lora=shape,
            base_name=backbone.name, seed=0, stage="base", folder=folder, keep_moments=True,
        )  # fmt: skip
    tokens = sum(example.length for example in encoded)
    return {"examples": len(encoded), "tokens_per_second": round(tokens / watch.seconds, 1)}


def _extract(
    setting: Setting, work: Path, name: str, dtype: str, quantise: str | None
) -> dict[str, Any]:
    from safetensors.torch import save_file

    from elrea.data.prompts import Prompter
    from elrea.method.features.gradient import GradientFeatures, extract
    from elrea.method.features.sjlt import Sjlt
    from elrea.models.adapter_shape import Lora
    from elrea.models.lora import attach
    from elrea.models.training.train import epoch_folders

    backbone = setting.load(dtype, quantise)
    prompts = Prompter(backbone.tokenizer, 512).routing(setting.exam().train)
    model, features = attach(backbone.model, Lora(r=8, dropout=0.0), 0), GradientFeatures(Sjlt(D))
    folders = epoch_folders(work / "base")
    extract(model, folders, prompts[:8], features, pad_id=backbone.pad_id)  # warms up
    with Watch() as watch:
        rows = extract(model, folders, prompts, features, pad_id=backbone.pad_id)
    save_file({"features": rows}, work / f"{name}.safetensors")
    tokens = sum(len(prompt.prompt) for prompt in prompts)
    del backbone, model
    gc.collect()
    return {"prompts": len(prompts), "tokens_per_second": round(tokens / watch.seconds, 1),
            "peak_bytes": watch.peak, "without_feature": int((~rows.any(1)).sum())}  # fmt: skip


def _compare(setting: Setting, work: Path, name: str) -> dict[str, Any]:
    """Cosines of the same prompt's features, and agreement of the clusters (normalised mutual information)."""
    from safetensors.torch import load_file

    exact, got = (load_file(work / f"{n}.safetensors")["features"] for n in (EXACT, name))
    cosines = (exact * got).sum(1)
    found = {
        "cosine_mean": round(float(cosines.mean()), 6),
        "cosine_least": round(float(cosines.min()), 6),
    }
    missing = [package for package in ("sklearn", "faiss") if find_spec(package) is None]
    if missing:
        return found | {"nmi": f"needs {', '.join(missing)}"}
    from sklearn.metrics import normalized_mutual_info_score

    from elrea.method.clustering.kmeans import FaissKMeans
    from elrea.method.clustering.points import Points

    sources = [example.source for example in setting.exam().train]
    kmeans = FaissKMeans(k=len(set(sources)), min_size=1)
    one, other = (kmeans(Points(rows.numpy(), sources), 0) for rows in (exact, got))
    return found | {
        "nmi": round(float(normalized_mutual_info_score(one, other)), 4),
        "nmi_of_sources": round(float(normalized_mutual_info_score(sources, other)), 4),
    }
