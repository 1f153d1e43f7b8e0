"""`elrea predict RUN --in ... --out ...` on a finished run: it answers, and resumes where it was stopped."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from elrea.commands import predict
from elrea.commands.exit import one_line_errors
from elrea.commands.predict import lock_file
from elrea.errors import DataError, StoreError
from elrea.method.ensemble.decoding_settings import Decoding
from elrea.method.ensemble.ensemble import Ensemble
from elrea.models.device import Device
from elrea.store.files import key_of, read_json, with_checksum, write_json
from tests.cli.commands import Ended

PROMPTS = [
    {"prompt": "Say one."},
    {"instruction": "Add.", "input": "1 and 2", "id": "sum"},
    {"prompt": "Which?", "choices": ["this", "that one"]},
    *({"prompt": f"Count to {i}."} for i in range(18)),
]


@pytest.fixture
def typed(whole: Ended, tmp_path: Path) -> list[str]:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n\n".join(json.dumps(row) for row in PROMPTS))
    out = tmp_path / "answers.jsonl"
    run = str(whole.folder / "out")
    return [run, "--in", str(path), "--out", str(out), "--max-new-tokens", "4"]


def answers(typed: list[str]) -> list[dict[str, Any]]:
    predict.main(typed)
    lines = Path(typed[typed.index("--out") + 1]).read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_answers_are_the_ensembles(typed: list[str], whole: Ended, small_model: Path) -> None:
    ensemble = Ensemble.load(
        whole.folder / "out" / "ensemble",
        backbone=str(small_model),
        device=Device("cpu", threads=1),
    )
    rows = answers(typed)
    assert [row["id"] for row in rows] == ["1", "sum", "5", *(str(7 + 2 * i) for i in range(18))]
    asked = ["Say one.", "Add.\n\n1 and 2", *(f"Count to {i}." for i in range(18))]
    written = ensemble.generate(asked, Decoding(max_new_tokens=4))
    assert [rows[0]["answer"], rows[1]["answer"], *(r["answer"] for r in rows[3:])] == [
        text.removeprefix(" ") for text in written
    ]
    (logs,) = ensemble.score(["Which?\nA. this\nB. that one\nAnswer:"], [["A", "B"]])
    assert rows[2]["log_likelihoods"] == pytest.approx(logs, abs=1e-4)
    best = logs.index(max(logs))
    assert (rows[2]["answer"], rows[2]["option"]) == ("AB"[best], ["this", "that one"][best])
    (route,) = ensemble.route(["Say one."])
    assert rows[0]["weights"] == pytest.approx(route.weights, abs=1e-4)
    assert rows[0]["nearest"] == route.nearest


@pytest.mark.parametrize("temperature", ["0", "1.5"])
def test_a_stopped_command_resumes_to_the_same_file(temperature: str, typed: list[str]) -> None:
    typed += ["--temperature", temperature]
    out = Path(typed[typed.index("--out") + 1])
    unbroken = answers(typed)
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    for left in (b"".join(lines[:17]) + lines[17][:20], lines[0], b"", whole):
        out.write_bytes(left)
        assert answers(typed) == unbroken
        assert out.read_bytes() == whole


def test_the_prompts_may_be_moved_and_their_path_typed_in_another_way(
    typed: list[str], tmp_path: Path, monkeypatch
) -> None:
    out, place = tmp_path / "answers.jsonl", typed.index("--in") + 1
    answers(typed)
    whole = out.read_bytes()
    half = b"".join(whole.splitlines(keepends=True)[:17])
    moved = Path(typed[place]).rename(tmp_path / "moved.jsonl")
    monkeypatch.chdir(tmp_path)
    for path in (str(moved), "moved.jsonl", f"../{tmp_path.name}/moved.jsonl"):
        typed[place] = path
        out.write_bytes(half)
        answers(typed)
        assert out.read_bytes() == whole
    # Other ids are other answers.
    moved.write_text(moved.read_text().replace('"sum"', '"total"'))
    with pytest.raises(DataError, match="has answers of another ensemble, other prompts"):
        answers(typed)


@pytest.mark.parametrize("with_paths", [True, False])
def test_answers_begun_under_an_older_key_are_resumed(
    with_paths: bool, typed: list[str], whole: Ended
) -> None:
    """The oldest had the path of the prompts, and the next one nothing of ensemble.json but its files."""
    out = Path(typed[typed.index("--out") + 1])
    answers(typed)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    prompts = predict.read_prompts(Path(typed[typed.index("--in") + 1]), "letters")
    facts = json.loads((whole.folder / "out" / "ensemble" / "ensemble.json").read_text())
    asked = [(name, repr(replace(prompt, id=""))) for name, prompt in prompts]
    old = key_of({
        "settings": vars(Decoding(max_new_tokens=4)), "top_k": None, "files": facts["files"],
        "prompts": [repr(prompt) for prompt in prompts] if with_paths else asked,
    })  # fmt: skip
    before = "".join(json.dumps({**row, "by": old}, ensure_ascii=False) + "\n" for row in rows)
    out.write_text("".join(before.splitlines(keepends=True)[:17]))
    answers(typed)
    assert out.read_text() == before


def _key(out: Path, facts: dict[str, Any]) -> str:
    return predict._key_in(out, {"files": facts["files"]}, facts, [])


@pytest.mark.parametrize(
    "change",
    [
        {"router": {"class": "Router", "temperature": 0.5}},
        {"features": {"class": "InstructionEmbedding"}},
        {"prompts": {"add_bos": False}},
        {"options": "letters"},
        {"strategy": {"class": "ElreaTop1"}},
        {"backbone": {"name": "m", "fingerprint": "f", "max_length": 200}},
    ],
)
def test_whatever_ensemble_json_says_of_the_answers_is_in_their_key(
    change: dict[str, Any], tmp_path: Path
) -> None:
    out, place = tmp_path / "answers.jsonl", {"absolute": "/a/m", "relative": "m"}
    facts: dict[str, Any] = {
        "files": {"base/x": "1"}, "router": {"class": "Router", "temperature": 1.0},
        "backbone": {"name": "m", "fingerprint": "f", "max_length": 100},
    }  # fmt: skip
    moved = {**facts, "backbone": {**facts["backbone"], **place}, "own_sha256": "x"}
    assert _key(out, facts) == _key(out, moved) != _key(out, {**facts, **change})


def test_answers_of_another_temperature_of_the_router_are_refused(
    typed: list[str], whole: Ended, tmp_path: Path
) -> None:
    typed[0] = str(shutil.copytree(whole.folder / "out" / "ensemble", tmp_path / "ensemble"))
    answers(typed)
    path = tmp_path / "ensemble" / "ensemble.json"
    facts = read_json(path)
    facts["router"]["temperature"] = 0.5
    write_json(path, with_checksum(facts))
    with pytest.raises(DataError, match="has answers of another ensemble, other prompts"):
        answers(typed)


def test_an_error_is_one_line(typed: list[str], tmp_path: Path, capsys) -> None:
    path, out = (Path(typed[typed.index(name) + 1]) for name in ("--in", "--out"))
    for prompts, there, line in (
        (
            '{"prompt": "Hi"}\n{"prompt": 3}',
            None,
            ":2: the instruction must be a text, not int",
        ),
        ('{"prompt": "Hi"}\n{"prompt"', None, ":2: broken JSON"),
        (
            '{"prompt": "Hi", "choices": [""]}',
            None,
            ":1: choices must be 2 to 26 different texts that are not empty",
        ),
        ("\n", None, "the file has no prompts; write one JSON object per line"),
        ('{"prompt": "Hi"}\n{"prompt": " "}', None, "prompts.jsonl:2: the instruction is empty"),
        (json.dumps({"prompt": "x" * 500}), None, "prompts.jsonl:1: longer than the 400 tokens"),
        ('{"prompt": "Hi", "id": "\\ud800"}', None, ":1: the id is not UTF-8 text"),
        ('{"prompt": "Hi", "choices": ["\\ud800", "b"]}', None, ":1: not UTF-8: half a surrogate"),
        (
            '{"prompt": "a", "id": 7}\n{"prompt": "b", "id": "7"}',
            None,
            ":2: duplicate id '7', first at",
        ),
        ('{"prompt": "a", "id": "2"}\n{"prompt": "b"}', None, ":2: duplicate id '2', first at"),
        ('{"prompt": "Hi"}', "something else\n", "has answers of another ensemble, other prompts"),
        (
            '{"prompt": "Hi"}',
            '{"id": "1", "by": "0"}\n',
            "has answers of another ensemble, other prompts",
        ),
        (
            '{"prompt": "Hi"}',
            "one line, and no end of it",
            "has answers of another ensemble, other prompts",
        ),
    ):
        path.write_text(prompts)
        if there is not None:
            out.write_text(there)
        with pytest.raises(SystemExit), one_line_errors():
            answers(typed)
        err = capsys.readouterr().err
        assert line in err and len(err.splitlines()) == 1, err
        assert out.read_text() == there if there else not out.exists()


def test_missing_folders_are_named(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "hello"}')
    typed = [str(tmp_path / "run"), "--in", str(path), "--out", str(tmp_path / "none" / "a.jsonl")]
    with pytest.raises(DataError, match="none: no such folder; make it, or give another --out"):
        answers(typed)
    typed[-1] = str(tmp_path / "a.jsonl")
    with pytest.raises(StoreError, match="run: no such folder; give a run's, as outputs"):
        answers(typed)


def test_two_processes_cannot_write_one_file(tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    taken = pytest.raises(DataError, match="another process writes this file")
    with lock_file(out), taken, lock_file(out):
        pass
    with lock_file(out):
        assert not out.exists()
    assert not list(tmp_path.iterdir()), "the lock was left behind"


def test_answers_are_a_file_that_one_process_writes(tmp_path: Path) -> None:
    """Under whichever name: a link to it is the same file."""
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "b.jsonl").symlink_to("a.jsonl")
    with (
        predict.lock_file(tmp_path / "a.jsonl"),
        pytest.raises(DataError, match="another process writes this file"),
        predict.lock_file(tmp_path / "b.jsonl"),
    ):
        pass
    with pytest.raises(DataError, match="/dev/null: no file that answers can be resumed in"):
        predict.main([str(tmp_path), "--in", "x", "--out", "/dev/null"])
