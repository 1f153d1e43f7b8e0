"""Peak memory of training, features, writing and scoring, beside what plan=true forecasts for the same sizes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.gpu.record import Record, Watch

if TYPE_CHECKING:
    from elrea.models.footprint import Footprint
    from experiments.gpu.setting import Setting

RESPONSE, MEMBERS, CHOICES, CHOICE = 32, 5, 4, 8


def measure(setting: Setting, record: Record) -> None:
    """Each kind of work in its largest batch. On a CPU nothing is measured but that it runs."""
    length = setting.pick(512, 32)
    record.figure("training", lambda: _training(setting, length, RESPONSE // setting.pick(1, 4)))
    record.figure("training, loss on all tokens", lambda: _training(setting, length, length))
    record.figure("features", lambda: _features(setting, length))
    record.figure("writing", lambda: _writing(setting, length))
    record.figure("scoring", lambda: _scoring(setting, length))


def _row(peak: float | None, forecast: float | None, sizes: str) -> dict[str, Any]:
    ratio = round(peak / forecast, 3) if peak and forecast else None
    return {
        "peak_bytes": peak,
        "forecast_bytes": forecast,
        "peak_over_forecast": ratio,
        "sizes": sizes,
    }


def _footprint(setting: Setting) -> Footprint:
    from elrea.models.adapter_shape import Lora
    from elrea.models.backbone import Pretrained
    from elrea.models.footprint import Footprint

    config = Pretrained(str(setting.folder())).config()
    return Footprint.of(config, Lora(r=8), "float32", None, setting.device)


def _training(setting: Setting, length: int, targets: int) -> dict[str, Any]:
    """`targets` of each row's tokens carry loss."""
    from elrea.data.prompts import Encoded
    from elrea.models.adapter_shape import Lora
    from elrea.models.footprint import OPTIMISED
    from elrea.models.lora import attach
    from elrea.models.training.settings import Recipe, Training
    from elrea.models.training.train import train_adapter
    from experiments.gpu.setting import random_prompts

    footprint, backbone, shape = _footprint(setting), setting.load(), Lora(r=8)
    rows = random_prompts(footprint.model.config.vocab_size, 2 * setting.batch, length)
    cut = max(1, length - targets)
    encoded = [Encoded(str(i), row[:cut], row[cut:]) for i, row in enumerate(rows)]
    training = Training(epochs=1, batch_size=setting.batch, learning_rate=1e-4)
    model = attach(backbone.model, shape, 0)
    with tempfile.TemporaryDirectory() as name, Watch() as watch:
        train_adapter(
            model, encoded, Recipe(1, 1e-4, training), pad_id=0, lora=shape, base_name="memory", seed=0, stage="memory",
            folder=Path(name), keep_moments=False,
        )  # fmt: skip
    saved = footprint.saved(setting.batch, length, setting.batch * (length - cut))
    forecast = footprint.weights + OPTIMISED * footprint.adapter + saved
    return _row(
        watch.peak, forecast, f"{setting.batch} x {length} tokens, {length - cut} with loss"
    )


def _features(setting: Setting, length: int) -> dict[str, Any]:
    from elrea.data.prompts import Encoded
    from elrea.method.features.gradient import GradientFeatures, extract
    from elrea.method.features.sjlt import Sjlt
    from elrea.models import lora
    from elrea.models.adapter_shape import Lora
    from experiments.gpu.setting import random_prompts

    footprint, backbone = _footprint(setting), setting.load()
    features = GradientFeatures(Sjlt(1024), form="sgd", batch_size=setting.batch)
    prompts = random_prompts(footprint.model.config.vocab_size, 2 * setting.batch, length)
    encoded = [Encoded(str(i), row, ()) for i, row in enumerate(prompts)]
    model = lora.attach(backbone.model, Lora(r=8), 0)
    with tempfile.TemporaryDirectory() as name:
        lora.save(Path(name), lora.state(model), Lora(r=8), "memory")
        with Watch() as watch:
            extract(model, [Path(name)], encoded, features, pad_id=0)
    forecast, sizes = features.memory(footprint, length)
    return _row(watch.peak, forecast, sizes)


def _writing(setting: Setting, length: int) -> dict[str, Any]:
    import torch

    from elrea.method.ensemble.decoding import generate
    from elrea.method.ensemble.decoding_settings import Decoding
    from elrea.method.ensemble.joint import JointModel
    from experiments.gpu.setting import random_members, random_prompts

    footprint, backbone = _footprint(setting), setting.load()
    new, count = setting.pick(16, 2), setting.batch
    prompts = random_prompts(footprint.model.config.vocab_size, count, length - new)
    joint = JointModel(backbone.model, random_members(backbone.model, MEMBERS))
    with Watch() as watch:
        generate(
            joint, prompts, torch.ones(count, MEMBERS), Decoding(new), backbone.tokenizer, pad_id=0
        )
    cached = footprint.cache * MEMBERS * count * length
    forecast = footprint.weights + 4 * MEMBERS * footprint.adapter + cached
    return _row(watch.peak, forecast, f"{MEMBERS} members x {count} texts, {length} tokens")


def _scoring(setting: Setting, length: int) -> dict[str, Any]:
    """The plan has no figure for it."""
    import torch

    from elrea.method.ensemble.joint import JointModel
    from elrea.method.ensemble.likelihood import likelihoods
    from experiments.gpu.setting import random_members, random_prompts

    backbone, count = setting.load(), setting.batch
    vocabulary = backbone.model.config.vocab_size
    prompts = random_prompts(vocabulary, count, length - CHOICE)
    choices = random_prompts(vocabulary, count * CHOICES, CHOICE)
    asked = [(prompt, choices[CHOICES * i : CHOICES * (i + 1)]) for i, prompt in enumerate(prompts)]
    joint = JointModel(backbone.model, random_members(backbone.model, MEMBERS))
    with Watch() as watch:
        likelihoods(joint, asked, torch.ones(count, MEMBERS), batch_size=count, pad_id=0)
    sizes = f"{MEMBERS} members x {count} prompts of {length} tokens, {CHOICES} choices"
    return _row(watch.peak, None, sizes)
