"""Mistakes of a user: one line that says what is wrong and where, exit code 1, no traceback."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from elrea.commands.exit import line_of_hydra
from tests.cli.commands import EXAM, QUIET, Ended, run
from tests.reporting.wandb_reader import runs

ROW = "What is it?,one,two,three,four,A\n"


@pytest.fixture
def fails(tiny: list[str], tmp_path: Path) -> Callable[..., str]:
    """Runs words that must fail and returns the line of the error, with the test's folder as <>."""

    def said(*words: str) -> str:
        data = [] if any(w.startswith(("data=", "~")) for w in words) else EXAM
        return run(tmp_path, *tiny, *data, QUIET, *words).error.replace(str(tmp_path), "<>")

    return said


def write(path: Path, *rows: Any) -> Path:
    """Writes a file of JSON lines; a text among the rows is written unchanged."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def rows(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"instruction": f"Say {i}.", "response": str(i), **more} for i in range(count)]


def mmlu(root: Path, test: str = ROW, dev: str = ROW) -> list[str]:
    """Words for an MMLU of one subject."""
    for split, text in (("test", test), ("dev", dev)):
        write(root / split / f"astronomy_{split}.csv").write_text(text)
    train = write(root / "train.jsonl", *rows(20))
    words = ["data.subjects=[astronomy]", "data.shots=1"]
    return ["data=mmlu", f"data.root={root}", f"data.train={train}", *words]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("trainng.epochs=1", "trainng.epochs: unknown key; did you mean training.epochs?"),
        ("training.epoch=1", "training.epoch: unknown key; did you mean training.epochs?"),
        ("sed=1", "sed: unknown key; did you mean seed?"),
        (
            "training.lr=1",
            "training.lr: unknown key; training has epochs, expert_epochs, learning_rate, ",
        ),
        (
            "data.fields.question=q",
            "data.fields.question: unknown key; data.fields has instruction, input, ",
        ),
        ("+sed=1", "sed: unknown key; did you mean seed?"),
        ("+experimnt=x", "experimnt: unknown key; did you mean experiment?"),
        ("+training.epoch=1", "training.epoch: unknown key; did you mean epochs? (there is: "),
        ("data.root=x", "data.root: unknown key here; it belongs to data=bbh or data=dolly or "),
        ("data=jsonll", "data=jsonll: no such choice; did you mean jsonl? (there is: bbh, "),
        ("+experiment=elrea", "experiment=elrea: no such choice; did you mean elrea_bbh?"),
        ("experiment=elrea_mmlu", "use +experiment=elrea_mmlu"),
        (
            "evaluation.settings={unifrm:{x:1}}",
            "evaluation.settings: no strategy 'unifrm' is scored; did you mean uniform?",
        ),
        (
            "evaluation.settings={base:{member:backbone}}",
            "evaluation.settings.base: base is a reference strategy; its settings cannot",
        ),
        (
            "evaluation.settings={elrea_top1:{topk:1}}",
            "evaluation.settings.elrea_top1.topk: unknown key; did you mean top_k?",
        ),
        ("evaluation.settings={elrea_top1:1}", "evaluation.settings: wants"),
        (
            "evaluation.strategies=[elra]",
            "no strategy 'elra'; did you mean elrea? (there is: arrow, backbone, balanced, ",
        ),
        ("training.epochs=many", "training.epochs: wants int, not 'many'"),
        ("training.early_stop=0", "training.early_stop=0: must be at least 1, or null"),
        ("training.epochs=0", "training.epochs=0: must be at least 1"),
        ("seed=one", "seed: wants int, not 'one'"),
        ("seed=-1", "seed=-1 must be 0 or more"),
        ("plan=maybe", "plan: wants bool, not 'maybe'"),
        ("store=null", "store: wants str, not null"),
        ("features.projection=rademacher", "features.projection: wants Projection, not 'rademach"),
        ("features.batch_size=0", "features: batch_size=0 must be at least 1"),
        ("features.epoch_weights=[1]", "features.epoch_weights: 1 weights for 2 epochs; give one"),
        ("evaluation.resamples=10000000000", "evaluation.resamples=10000000000: must be at most"),
        ("evaluation.batch_size=0", "evaluation.batch_size=0: must be at least 1"),
        ("trainer.threads=0", "trainer: threads=0 must be 1 to 1024, or null"),
        ("trainer.accelerator=tpu", "trainer: accelerator=tpu must be auto, cpu, gpu or mps"),
        ("clustering._target_=os.system", "clustering._target_: 'os.system' is refused"),
        ("training.epochs", "Error parsing override 'training.epochs'; missing EQUAL"),
        ("clustering.k=33", "32 training examples cannot make clustering.k=33 clusters; lower it"),
        ("backbone.name=''", "backbone=pretrained needs backbone.name: a model folder or a hub id"),
        ("backbone.name=/no/such", "/no/such: no such folder; give backbone.name an existing"),
        ("backbone.max_length=9", "all 32 training examples are longer than 9 tokens; raise back"),
        ("adapter.targets=[query]", "adapter.targets: 'query' is no layer of this backbone that"),
        (
            "adapter.targets=[q_proj,nope]",
            "adapter.targets: 'nope' is no layer of this backbone th",
        ),
        ("adapter.targets=[lm_head]", "adapter.targets: 'lm_head' is no layer of this backbone th"),
        ("data=null", "a config group needs the name of a choice, as data=exam, not null"),
        ("store=''", "store='': give the folder in which stages are kept"),
        ("data=jsonl", "data=jsonl needs data.train: one or more .jsonl files"),
        (
            "data=mmlu",
            "data=mmlu needs data.root=<folder with MMLU's dev/ and test/>, or data.hub=true",
        ),
    ],
)
def test_a_bad_word(word: str, said: str, fails: Callable[..., str]) -> None:
    assert said in fails(word)


def test_missing_layers_are_refused_before_training(
    fails: Callable[..., str], tmp_path: Path
) -> None:
    said = fails("features.layers=9", f"store={tmp_path / 'store'}")
    assert said == "features.layers=9: the adapter is in 2 decoder layers; give 1 to 2"
    assert not list((tmp_path / "store" / "base").glob("*/adapter"))


def test_bad_lines(fails: Callable[..., str], tmp_path: Path) -> None:
    good = rows(9)
    cases: list[tuple[list[Any], str]] = [
        ([], "<>/a.jsonl: the file is empty; remove it or fill it"),
        ([good[0], '{"instruction": "x", '], "<>/a.jsonl:2: broken JSON ("),
        ([{"instruction": "x"}], "<>/a.jsonl:1: no field 'response'; the line has instruction"),
        ([{**good[0], "choices": ["a", "b"], "answer": "c"}], "<>/a.jsonl:1: "),
        ([*good, {**good[0], "id": 3, "x": 1}], "<>/a.jsonl:10: unknown field(s) 'x'; map them"),
    ]
    for lines, said in cases:
        file = write(tmp_path / "a.jsonl", *lines)
        assert said in fails("data=jsonl", f"data.train={file}")
    other = write(tmp_path / "b.jsonl", {"instruction": " Say  3.", "response": "3"})
    write(tmp_path / "a.jsonl", *good)
    both = ["data=jsonl", f"data.train={tmp_path / 'a.jsonl'}", f"data.test={other}"]
    assert "1 of 1 test questions are also in train" in fails(*both)
    judged = write(
        tmp_path / "c.jsonl", {"instruction": "1 + 1?", "response": "2", "judge": "math"}
    )
    said = fails(*both[:2], f"data.test={judged}")
    assert (
        f"{tmp_path.name}/c.jsonl:1: unknown judge 'math'; did you mean maths? (there is: " in said
    )
    assert "9 training examples" in fails(*both, "data.allow_overlap=true", "clustering.k=10")
    assert fails("data=jsonl", "data.train=gone").startswith("gone: no such file or folder (data.")


def test_bad_rows_of_mmlu(fails: Callable[..., str], tmp_path: Path) -> None:
    where = "<>/mmlu/test/astronomy_test.csv"
    assert f"{where}:2: 4 columns instead of 6" in fails(
        *mmlu(tmp_path / "mmlu", ROW + "Why?,one,two,A\n")
    )
    assert f"{where}:1: the answer 'E' is not one of A, B, C, D" in fails(
        *mmlu(tmp_path / "mmlu", ROW.replace(",A\n", ",E\n"))
    )
    assert f"{where}: the file is empty" in fails(*mmlu(tmp_path / "mmlu", ""))
    words = mmlu(tmp_path / "mmlu")
    assert "no subject 'astronmy'; did you mean astronomy?" in fails(
        *words, "data.subjects=[astronmy]"
    )
    assert "/gone: no such file or folder (data.root" in fails(*words, "data.root=gone/gone")
    assert "data=mmlu needs data.train" in fails(*words, "data.train=null")


def test_model_folders_that_cannot_be_loaded(
    fails: Callable[..., str], small_model: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(small_model, tmp_path / "model"))
    name = f"backbone.name={folder}"
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert fails(name).startswith("<>/model: no .safetensors file there; convert the weights first")
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")
    (folder / "model.safetensors").write_bytes(b"x" * 100)
    assert fails(name).startswith("<>/model: ")
    (folder / "config.json").write_text("{")
    assert fails(name).startswith("<>/model/config.json: no valid JSON (")
    (folder / "config.json").unlink()
    assert fails(name) == "<>/model: no config.json there; is it a model folder?"


def test_debug_shows_the_traceback(tiny: list[str], tmp_path: Path) -> None:
    ended = run(tmp_path, *tiny, QUIET, "data=jsonl", "data.train=/gone", "debug=true")
    assert ended.code == 1 and "Traceback" in ended.err
    assert "elrea.errors.DataError: /gone: no such file or folder" in ended.err


def test_a_job_that_fails_finishes_its_wandb_run(tiny: list[str], tmp_path: Path) -> None:
    ended = run(tmp_path, *tiny, *EXAM, "training.learning_rate=1e30")
    assert "base: the loss is nan at step 2" in ended.error
    (tracked,) = runs(tmp_path / "out")
    assert tracked.exit_code == 1 and tracked.config["training"]["learning_rate"] == 1e30


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("a small file system to fill may not be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_no_space_left(whole: Ended, words: list[str], small_disk: Path, tmp_path: Path) -> None:
    full = run(tmp_path, *words, QUIET, f"store={small_disk / 'store'}")
    assert full.error.startswith(f"no space left for stage base in {small_disk}/store/base: free")
    assert list(small_disk.glob("store/base/*.partial"))  # what was written is kept
    shutil.rmtree(small_disk / "store")
    full = run(tmp_path, *words, f"hydra.run.dir={small_disk / 'out'}")  # W&B's files too
    lines = full.err.splitlines()
    assert full.code == 1 and lines[-1].startswith("error: no space left for the run's folder")
    assert "Traceback" not in full.err and all(line.startswith("W&B: ") for line in lines[:-1])


def test_too_long(tiny: list[str], tmp_path: Path) -> None:
    """Training examples that are too long are dropped and counted; test prompts are listed and score wrong."""
    long = "word " * 100
    train = write(tmp_path / "train.jsonl", *rows(12), *rows(2, input=long))
    asked = {"choices": ["yes", "no"], "answer": "yes"}
    test = write(
        tmp_path / "test.jsonl",
        {"instruction": "Is it?", **asked},
        {"instruction": f"Is it {long}?", **asked},
    )
    words = ["data=jsonl", f"data.train={train}", f"data.test={test}"]
    ended = run(tmp_path, *tiny, QUIET, *words)
    assert (ended.code, ended.err) == (0, "")
    name = f"{tmp_path.name}/test.jsonl:2"
    counted = {"train": 14, "train_dropped_too_long": 2, "test": 2, "test_too_long": [name]}
    none = {"count": 0, "ids": []}
    counted |= {"train_without_feature": none, "test_without_feature": none}
    assert ended.summary["examples"] == counted
    assert sum(ended.summary["clusters"]["sizes"]) == 12
    assert "2 training examples were too long and were dropped (backbone.max_length)" in ended.out
    assert f"1 test prompts were too long and count as wrong: {name}\n" in ended.out
    rows_out = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    for given in json.loads(rows_out[1])["strategies"].values():
        why = "the prompt is too long"
        assert given == {"choice": None, "correct": False, "loss": None, "why": why}
    for given in json.loads(rows_out[0])["strategies"].values():
        assert given["choice"] in ("yes", "no") and given["loss"] > 0


def test_shots_without_room(tiny: list[str], tmp_path: Path) -> None:
    """Prompts with fewer solved examples than asked for are counted, and the mean number is reported."""
    train = write(tmp_path / "train.jsonl", *rows(20))
    dev = write(tmp_path / "dev.jsonl", *({"instruction": "d" * 130, "response": str(i)} for i in range(1)),
                *({"instruction": "e" * 130, "response": str(i)} for i in range(2)))  # fmt: skip
    asked = {"choices": ["yes", "no"], "answer": "yes"}
    test = write(
        tmp_path / "test.jsonl",
        {"instruction": "Is it?", **asked},
        {"instruction": f"Is it {'word ' * 36}?", **asked},
    )
    words = ["data=jsonl", f"data.train={train}", f"data.test={test}", f"data.dev={dev}"]
    ended = run(tmp_path, *tiny, QUIET, *words, "data.shots=2")
    assert (ended.code, ended.err) == (0, "")
    shown = {"wanted": 2, "mean": 1.5, "prompts_with_fewer": 1}
    assert ended.summary["examples"]["test_shots"] == shown
    assert "1 test prompts were too long for all 2 solved examples: 1.5 on average" in ended.out
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["shots"] for line in lines] == [2, 1]


def test_an_unknown_message_of_hydra_becomes_one_line() -> None:
    assert line_of_hydra(ValueError("first.\n\n  second\nthird")) == "first; second"
    assert line_of_hydra(ValueError()) == "ValueError"
