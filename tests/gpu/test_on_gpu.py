"""Results on a GPU against those of the CPU. Untried so far: no machine with a GPU was at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from elrea.data.prompts import Encoded, Prompter
from elrea.method.ensemble.decoding import generate
from elrea.method.ensemble.decoding_settings import Decoding
from elrea.method.ensemble.joint import JointModel
from elrea.method.features.gradient import GradientFeatures, extract
from elrea.method.features.sjlt import Sjlt
from elrea.models.adapter_shape import Lora
from elrea.models.backbone import TINY, Pretrained
from elrea.models.device import Device
from elrea.models.footprint import OPTIMISED, Footprint
from elrea.models.lora import attach, load
from elrea.models.training.train import epoch_folders
from experiments.gpu.decode import one_by_one
from experiments.gpu.setting import random_members, random_prompts
from tests.models.builders import BUILDERS, PAD, train

pytestmark = pytest.mark.gpu

LORA = Lora(r=2, dropout=0.0)


def moved(kind: str) -> Any:
    model: Any = BUILDERS[kind]()
    return model.to("cuda")


def on_gpu(kind: str) -> Any:
    return attach(moved(kind), LORA, 0)


def tiny(dtype: str = "float32", quantise: str | None = None, device: str = "gpu") -> Any:
    return Pretrained(str(TINY), dtype=dtype, quantise=quantise, add_bos=True).load(Device(device))


def text(backbone: Any, count: int) -> list[Encoded]:
    """Prompts of the exam, of unlike length."""
    from elrea.data.exam.exam import Exam

    exam = Exam(boards=4, train_per_board=-(-count // 4), dev_per_board=1, test_per_board=1).load()
    return Prompter(backbone.tokenizer, 512).routing(exam.train[:count])


def distance(folder: Path, other: Path) -> float:
    """Largest relative difference of two adapters' matrices."""
    wanted, got = load(folder / "adapter")[0], load(other / "adapter")[0]
    return max(float((got[n] - t).norm() / t.norm()) for n, t in wanted.items())


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("loss_on", ["response", "all"])
def test_training_equals_the_cpu(kind: str, loss_on: str, tmp_path: Path) -> None:
    train(tmp_path / "cpu", kind, clip=1.0, loss_on=loss_on)
    train(tmp_path / "gpu", kind, clip=1.0, loss_on=loss_on, model=on_gpu(kind))
    assert distance(tmp_path / "cpu", tmp_path / "gpu") < 1e-2


def test_a_killed_training_resumes(tmp_path: Path) -> None:
    class Dying:
        def advance(self, count: int) -> None: ...

        def step(self, row: Any) -> None:
            if row["step"] == 5:
                raise KeyboardInterrupt

    dropped = Lora(r=2, dropout=0.3)
    models = [attach(moved("llama"), dropped, 0) for _ in range(2)]
    train(tmp_path / "whole", model=models[0], lora=dropped)
    with pytest.raises(KeyboardInterrupt):
        train(
            tmp_path / "killed", model=models[1], task=Dying(), checkpoint_minutes=0, lora=dropped
        )
    train(tmp_path / "killed", model=models[1], lora=dropped)
    assert distance(tmp_path / "whole", tmp_path / "killed") < 1e-4


def test_features_equal_the_cpu(tmp_path: Path) -> None:
    train(tmp_path)
    prompts = [Encoded(str(i), row, ()) for i, row in enumerate(random_prompts(40, 6, 9))]
    features, folders = GradientFeatures(Sjlt(32, nonzeros=2)), epoch_folders(tmp_path)
    rows = [
        extract(attach(model, LORA, 0), folders, prompts, features, pad_id=PAD)
        for model in (BUILDERS["llama"](), moved("llama"))
    ]
    assert ((rows[0] * rows[1]).sum(1) > 0.9999).all()


@pytest.mark.parametrize(
    ("dtype", "quantise", "least"), [("bfloat16", None, 0.9), ("bfloat16", "4bit", 0.5)]
)
def test_features_of_fewer_bits(
    dtype: str, quantise: str | None, least: float, tmp_path: Path
) -> None:
    """Their mean cosine with those of a float32 backbone, by the same adapter and moments."""
    if quantise:
        pytest.importorskip("bitsandbytes")
    exact = tiny()
    shape = Lora(r=4, dropout=0.0)
    model = attach(exact.model, shape, 0)
    train(tmp_path, model=model, lora=shape, pad_id=exact.pad_id)
    folders, features = epoch_folders(tmp_path), GradientFeatures(Sjlt(256))
    wanted = extract(model, folders, text(exact, 32), features, pad_id=exact.pad_id)
    fewer = tiny(dtype, quantise)
    got = extract(
        attach(fewer.model, shape, 0), folders, text(fewer, 32), features, pad_id=fewer.pad_id
    )
    assert float((wanted * got).sum(1).mean()) > least


def test_joint_decoding_equals_one_member_at_a_time() -> None:
    backbone = tiny()
    backbone.model.generation_config.eos_token_id = backbone.tokenizer.eos_token = None
    crowd = random_members(backbone.model, 4)
    weights = torch.rand(5, 4, generator=torch.Generator().manual_seed(0)) + 0.1
    prompts = random_prompts(1000, 5, 20)
    wanted = one_by_one([JointModel(backbone.model, [m]) for m in crowd], prompts, weights, 12)
    joint = JointModel(backbone.model, crowd)
    for _ in range(2):
        got = generate(
            joint, prompts, weights, Decoding(12), backbone.tokenizer, pad_id=backbone.pad_id
        )
        assert [tuple(ids) for ids in got] == wanted


def test_training_needs_the_memory_of_the_forecast(tmp_path: Path) -> None:
    backbone, shape = tiny(), Lora(r=8)
    model = attach(backbone.model, shape, 0)
    rows = random_prompts(1000, 32, 512)
    encoded = [Encoded(str(i), row[:480], row[480:]) for i, row in enumerate(rows)]
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    train(tmp_path, model=model, lora=shape, encoded=encoded, batch_size=16, epochs=1)
    footprint = Footprint.of(Pretrained(str(TINY)).config(), shape, "float32", None, "cuda")
    forecast = footprint.weights + OPTIMISED * footprint.adapter
    forecast += footprint.saved(16, 512, 16 * 32)
    assert 0.5 < torch.cuda.max_memory_allocated() / forecast < 1.5
