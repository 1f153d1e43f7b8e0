"""All work on a pretended GPU: it mixes no tensors of two devices, and its results are those of the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from elrea.method.ensemble.decoding import Mixer, generate
from elrea.method.ensemble.decoding_settings import Decoding
from elrea.method.ensemble.gates import read_gates, train_gates
from elrea.method.ensemble.joint import JointModel
from elrea.method.ensemble.layerwise import LayerwiseModel
from elrea.method.ensemble.likelihood import Asked, likelihoods, one_row_each, read_once
from elrea.method.ensemble.strategies.moe_merging import MoeMerging
from elrea.method.ensemble.strategies.mole import Mole
from elrea.method.features.base import Features
from elrea.method.features.embedding import Embedding
from elrea.method.features.gradient import GradientFeatures, extract
from elrea.method.features.projection import Rademacher
from elrea.method.features.sjlt import Sjlt
from elrea.method.features.states import States
from elrea.method.features.verify import worst_gradient
from elrea.models import chunked_loss
from elrea.models.adapter_shape import Lora
from elrea.models.causality import check_causal
from elrea.models.chunked_loss import Form
from elrea.models.lora import attach, load
from elrea.models.training.settings import Recipe, Training
from elrea.models.training.train import epoch_folders
from tests.gpu.pretend import DeviceMixError, pretended
from tests.models.builders import BUILDERS, PAD, examples, random_adapter, train
from tests.small_models import byte_tokenizer

LORA = Lora(r=2, dropout=0.0)


@pytest.fixture
def gpu() -> Iterator[Any]:
    with pretended() as reads:
        yield reads


def on_gpu(kind: str = "llama") -> Any:
    model: Any = BUILDERS[kind]()
    return model.to("cuda")


def close(got: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert got.device.type == "cpu"
    torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)


def test_it_refuses_what_a_gpu_refuses(gpu: Any) -> None:
    here, there = torch.ones(3, device="cuda"), torch.ones(3)
    with pytest.raises(DeviceMixError):
        here + there
    with pytest.raises(DeviceMixError):
        here[torch.tensor([0, 1])] = there[:2]
    with pytest.raises(DeviceMixError):
        there[torch.tensor([0], device="cuda")]
    with pytest.raises(DeviceMixError):
        here.index_add_(0, torch.tensor([0]), here[:1])
    with pytest.raises(RuntimeError):
        here.numpy()
    assert (here + torch.tensor(1.0)).tolist() == [2, 2, 2] and here[torch.tensor([0])].is_cuda
    assert gpu.total() == 1  # tolist


def same(folder: Path, other: Path, name: str = "adapter") -> None:
    """Two trainings' adapters are equal up to rounding."""
    wanted, got = load(folder / name)[0], load(other / name)[0]
    for key, tensor in wanted.items():
        close(got[key], tensor, 1e-3)


@pytest.mark.parametrize(
    ("kind", "recompute"), [("llama", False), ("llama", True), ("gpt2", False), ("gemma2", False)]
)
def test_training(gpu: Any, kind: str, recompute: bool, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"clip": 1.0, "recompute": recompute, "epochs": 1}
    train(tmp_path / "cpu", kind, **settings)
    gpu.clear()
    train(tmp_path / "gpu", kind, model=attach(on_gpu(kind), LORA, 0), **settings)
    same(tmp_path / "cpu", tmp_path / "gpu")
    same(tmp_path / "cpu", tmp_path / "gpu", "epoch_1")
    # The loss once a step; transformers looks once or twice a pass whether its rows are packed. At the end, whether the
    # adapter is finite.
    assert gpu["aten._local_scalar_dense.default"] <= 3 * 3 + 1


def test_resume(gpu: Any, tmp_path: Path) -> None:
    """Killed in the second epoch: the moments go back to the device."""
    train(tmp_path / "whole", model=attach(on_gpu(), LORA, 0))

    def die(row: Any) -> None:
        if row["step"] == 5:
            raise KeyboardInterrupt

    class Dying:
        def advance(self, count: int) -> None: ...

        step = staticmethod(die)

    with pytest.raises(KeyboardInterrupt):
        train(
            tmp_path / "killed", model=attach(on_gpu(), LORA, 0), task=Dying(), checkpoint_minutes=0
        )
    train(tmp_path / "killed", model=attach(on_gpu(), LORA, 0))
    same(tmp_path / "whole", tmp_path / "killed")


def test_early_stop(gpu: Any, tmp_path: Path) -> None:
    held_out: dict[str, Any] = {"dev": examples(6, 1), "early_stop": 1, "epochs": 2}
    train(tmp_path / "cpu", **held_out)
    train(tmp_path / "gpu", model=attach(on_gpu(), LORA, 0), **held_out)
    same(tmp_path / "cpu", tmp_path / "gpu")


FEATURES: dict[str, Features] = {
    "sjlt": GradientFeatures(Sjlt(16, nonzeros=2)),
    "signs": GradientFeatures(Rademacher(16)),
    "sgd of a layer": GradientFeatures(Sjlt(16), form="sgd", layers=1),
    "recomputed": GradientFeatures(Sjlt(16), recompute=True),
    "one row a pass": GradientFeatures(Sjlt(16), batch_size=1),
    "states": States(pooling="both"),
    "early states": States(layer="early"),
    "embedding": Embedding(),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training on the CPU, with its epochs' adapters and moments."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder, epochs=2)
    return folder


@pytest.mark.parametrize("name", [*FEATURES, "chunked"])
def test_features(gpu: Any, name: str, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "chunked":
        in_chunks(monkeypatch)
    features, prompts = FEATURES.get(name, FEATURES["sjlt"]), examples(7)
    folders = epoch_folders(trained)
    rows = [
        extract(attach(model, LORA, 0), folders, prompts, features, pad_id=PAD)
        for model in (BUILDERS["llama"](), on_gpu())
    ]
    close(rows[1], rows[0], 1e-4)
    assert rows[0].norm(dim=1).allclose(torch.ones(7))


def in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits in chunks of 3 tokens; the pretended parameters are of another class, which `plain_head` refuses."""
    monkeypatch.setattr(chunked_loss, "rows_of", lambda *_: 3)

    def plain(model: Any) -> Any:
        head = model.get_output_embeddings()
        return None if chunked_loss._FORMS.get(head, Form()) is None else head

    monkeypatch.setattr(chunked_loss, "plain_head", plain)


def test_chunked_loss_in_training(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the soft cap, which the first pass measures."""
    in_chunks(monkeypatch)
    settings: dict[str, Any] = {"loss_on": "all", "epochs": 1}
    train(tmp_path / "cpu", "gemma2", **settings)
    train(tmp_path / "gpu", "gemma2", model=attach(on_gpu("gemma2"), LORA, 0), **settings)
    same(tmp_path / "cpu", tmp_path / "gpu")


def test_verification(gpu: Any) -> None:
    error, _ = worst_gradient(attach(on_gpu(), LORA, 0), [(2, 3, 4, 5), (2, 6, 7)], "all", PAD)
    assert error < 1e-5
    model: Any = on_gpu()
    check_causal(model, byte_tokenizer(), _Vocabulary(), "made-up")  # type: ignore[arg-type]


class _Vocabulary:
    rows = 40

    def has(self, token: int) -> bool:
        return 2 < token < 40


CROWD = [
    random_adapter("llama", Lora(r=2), 1),
    None,
    random_adapter("llama", Lora(r=3, targets=["q_proj"]), 2),
]
WEIGHTS = torch.tensor([[0.5, 0.2, 0.3], [0.0, 1.0, 0.0], [0.1, 0.0, 0.9], [0.0, 0.0, 0.0]])
ASKED: list[Asked] = [
    ((2, 5, 6, 7), [(8, 9), (10, 11, 12)]),
    ((2, 13), [(3,), (4,)]),
    ((2, 14, 15), [(16, 17, 18), (19,)]),
    ((2, 20, 21, 22, 23), [(24, 25)]),
]


def test_scoring(gpu: Any) -> None:
    found: list[Any] = []
    for model in (BUILDERS["llama"](), on_gpu()):
        joint = JointModel(model, CROWD)
        found.append(likelihoods(joint, ASKED, WEIGHTS, batch_size=3, pad_id=PAD))
        for make in (one_row_each, read_once):
            rows = make(ASKED)
            logits = rows.logits(joint, PAD, WEIGHTS != 0)
            found.append(rows.mixed(logits, WEIGHTS).cpu())
            found.append(rows.mixed(rows.logits(joint, PAD), WEIGHTS).cpu())
    half = len(found) // 2
    for wanted, got in zip(found[0], found[half], strict=True):
        assert [one.log_p for one in got] == pytest.approx([one.log_p for one in wanted], abs=1e-4)
        assert [one.greedy for one in got] == [one.greedy for one in wanted]
    for wanted, got in zip(found[1:half], found[half + 1 :], strict=True):
        close(got, wanted, 1e-4)


def _tell(told: list[Any], number: int, text: str) -> None:
    told.append((number, text))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_decoding(gpu: Any, temperature: float) -> None:
    """Greedy and drawn; with stop texts, a stream, and one seed per prompt."""
    decoding = Decoding(6, temperature, top_k=10, top_p=0.9, stop=["zz"])
    found = []
    for model in (BUILDERS["llama"](), on_gpu()):
        told: list[Any] = []
        ids = generate(
            JointModel(model, CROWD), [prompt for prompt, _ in ASKED], WEIGHTS, decoding, byte_tokenizer(), pad_id=PAD,
            tell=partial(_tell, told), seeds=[1, 2, 3, 4],
        )  # fmt: skip
        found.append((ids, told))
    assert found[0] == found[1] and any(found[0][0])


def test_a_gpu_adds_one_row_of_a_prompt_at_a_time(gpu: Any) -> None:
    """It adds the rows of one index in no fixed order, and rounding would then change from call to call."""
    prompt = torch.tensor([0, 0, 0, 1, 2, 2], device="cuda")
    weight = torch.tensor([0.5, 0.25, 0.25, 1.0, 0.7, 0.3])
    scores = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    mixer = Mixer(prompt, weight.to("cuda"), 3, Decoding(1))
    turns: list[Any] = mixer.turns
    for rows in turns:
        assert len(set(prompt[rows].tolist())) == len(rows)
    assert sorted(row for rows in turns for row in rows.tolist()) == [0, 1, 2, 3, 4, 5]
    ids = torch.zeros(6, 1, dtype=torch.long)
    wanted = Mixer(prompt.cpu(), weight, 3, Decoding(1))(ids, scores)
    close(mixer(ids.to("cuda"), scores.to("cuda")).cpu(), wanted)


def test_layerwise(gpu: Any, tmp_path: Path) -> None:
    """MoE Merging by its factors and MoLE by trained gates: scores, a text, and the training of the gates."""
    found: list[Any] = []
    recipe = Recipe(1, 0.1, Training(batch_size=4))
    members = [CROWD[0], random_adapter("llama", Lora(r=2), 5)]
    weights = WEIGHTS[:2, :2]
    for number, model in enumerate((BUILDERS["llama"](), on_gpu())):
        folder = tmp_path / str(number)
        folder.mkdir()
        mole = LayerwiseModel(model, members, Mole().delta)
        train_gates(
            mole, examples(8), recipe, pad_id=PAD, seed=0, stage="gates", folder=folder, trainer={}
        )
        merging = LayerwiseModel(model, members, MoeMerging().delta)
        gated = LayerwiseModel(model, members, Mole().delta, read_gates(folder))
        for mixed in (merging, gated):
            for make in (one_row_each, read_once):
                found.append(make(ASKED[:2]).blended(mixed, weights, PAD).cpu())
        found.append(
            generate(merging, [p for p, _ in ASKED[:2]], weights, Decoding(4), byte_tokenizer(), pad_id=PAD)
        )  # fmt: skip
    half = len(found) // 2
    for wanted, got in zip(found[:half], found[half:], strict=True):
        if isinstance(wanted, torch.Tensor):
            close(got, wanted, 1e-3)
        else:
            assert got == wanted
