"""`elrea predict RUN --in ... --out ...` on a finished run: it answers, and resumes where it was stopped."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from elrea.commands import export, merge, predict
from elrea.commands.exit import one_line_errors
from elrea.commands.predict import lock_file
from elrea.data.readers.rows import RowReader
from elrea.errors import ConfigError, DataError, StoreError
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


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"prompt": "a", "question": "b"},
            ":1: unknown field 'question'; rename it, or let it begin with _",
        ),
        (
            {"question": "a", "level": 3, "A": "b", "B": "c", "code": "x"},
            ":1: unknown fields 'question', 'level', 'A', 'B', 'code'; what is asked is read with --field"
            " instruction=question --field choices=A,B --ignore level (",
        ),
        (
            {"prompt": "a", "choises": ["b"]},
            "it begin with _ to have it ignored; did you mean choices?",
        ),
        (
            {"prompt": "a", "one": 1, "two": 2},
            ":1: unknown fields 'one', 'two'; rename them, or let them begin with _",
        ),
        (
            {"prompt": "a", "option a": "b", "option b": "c"},
            ":1: unknown fields 'option a', 'option b'; what is asked is read with --field 'choices=option a,option"
            " b'",
        ),
        ({"prompt": "a", "messages": []}, ":1: both messages and instruction"),
        ({"messages": [{"role": "narrator", "content": "b"}]}, "not the role 'narrator'"),
        ({"input": "a"}, ":1: no prompt; give `prompt`, `instruction` or `messages`"),
        ({"prompt": " \n", "input": " "}, ":1: the instruction is empty"),
        (
            {"prompt": "a", "instruction": "b"},
            ":1: 'instruction' is a second field for the instruction",
        ),
        ({"prompt": "a", "id": ["b"]}, ":1: the id must be a text or a number"),
        (
            {"prompt": None, "response": "b"},
            ":1: no prompt; give `prompt`, `instruction` or `messages`",
        ),
    ],
)
def test_a_field_that_may_matter_is_refused(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(DataError) as error:
        predict.read_prompts(path)
    assert said in str(error.value)


def test_nulls_and_other_fields_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(
        '{"instruction": null, "prompt": "hello", "id": null}\n'
        '{"prompt": "hello", "input": null, "id": 7, "response": "x", "source": "s", "_mine": {}}\n'
    )
    found = predict.read_prompts(path)
    assert [(name, prompt.instruction) for name, prompt in found] == [
        ("1", "hello"),
        ("7", "hello"),
    ]


@pytest.mark.parametrize("ignore", [["*"], ["right", "level"]])
def test_fields_have_the_roles_that_they_had_in_training(ignore: list[str], tmp_path: Path) -> None:
    """The prompt is the one of data=jsonl with the same fields."""
    row = {"Question text": "1 + 1?", "opts": ["1", "2"], "right": "2", "level": 3, "nr": "q7"}
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(row))
    fields = {"instruction": "Question text", "choices": "opts", "id": "nr"}
    words = [*(f"--field={role}={name}" for role, name in fields.items())]
    parser = argparse.ArgumentParser()
    predict.add_fields(parser)
    given = parser.parse_args([*words, *(f"--ignore={name}" for name in ignore)])
    given.prompts = path
    ((name, prompt),) = predict.prompts_of_file(given, {"options": "letters"})
    reader = RowReader(fields | {"answer": "right"}, ["level"], options="letters")
    example = reader.read(row, "", "", 1)
    assert (name, prompt.instruction) == ("q7", example.instruction)
    assert (prompt.choices, prompt.options) == (example.choices, example.options)
    for command, typed in ((merge, ["--out"]), (export, ["--as", "peft", "--to"])):
        with pytest.raises(ConfigError, match=r"--field and --ignore .*; give --prompts too"):
            command.main([str(tmp_path), words[0], *typed, str(tmp_path / "x")])
    given.field = ["instruction"]
    with pytest.raises(DataError, match="--field instruction: write ROLE=NAME, as"):
        predict.prompts_of_file(given, {})
    with pytest.raises(
        DataError, match=r"'Question text'.*\(--field ROLE=NAME gives a field a role, --ign"
    ):
        predict.read_prompts(path)


@pytest.mark.parametrize(
    ("fields", "ignore", "name"),
    [
        ({"response": "answer"}, [], "q7"),
        ({"source": "id"}, [], "1"),
        ({}, ["id"], "1"),
    ],
)
def test_a_mapping_of_the_training_may_take_a_usual_name(
    fields: dict[str, str], ignore: list[str], name: str, tmp_path: Path
) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(
        json.dumps({"prompt": "1 + 1?", "choices": ["1", "2"], "answer": "2", "id": "q7"})
    )
    ((found, prompt),) = predict.read_prompts(path, "letters", fields, ignore)
    assert found == name and prompt.options == ("1", "2")


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"question": "Which?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}}, {"answerKey": "B"}),
        ({"question": "Which?", "choices": {"text": ["a", "b"], "label": ["1", "2"]}}, {"answerKey": "2"}),
        ({"question": {"stem": "Which?", "choices": [{"text": "a", "label": "A"}, {"text": "b", "label": "B"}]}},
         {"answerKey": "B"}),
        ({"question": "Which?", "choices": '["a", "b"]'}, {"answerKey": "B"}),
        ({"question_stem": "Which?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}}, {"answerKey": "B"}),
        ({"question": "Which?", "question_concept": "x", "choices": {"text": ["a", "b"], "label": ["A", "B"]}},
         {"answerKey": "B"}),
        ({"ctx": "A man", "endings": ["a", "b"], "ind": 3}, {"label": 1}),
    ],
)  # fmt: skip
def test_published_rows_without_an_answer_have_their_prompt(
    row: dict[str, Any], answer: dict[str, Any], tmp_path: Path
) -> None:
    """It's that of the row with its answer in data=jsonl."""
    example = RowReader(options="letters").read(row | answer, "", "", 1)
    path = tmp_path / "p.jsonl"
    for given in ({}, answer, dict.fromkeys(answer, ""), dict.fromkeys(answer)):
        path.write_text(json.dumps(row | given))
        ((_, prompt),) = predict.read_prompts(path, "letters")
        assert prompt.instruction == example.instruction
        assert (prompt.choices, prompt.options) == (example.choices, example.options)


def test_a_role_that_there_is_not_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "Hi"}')
    with pytest.raises(DataError, match="foo=x: foo is no role of a field; the roles are instr"):
        predict.read_prompts(tmp_path / "p.jsonl", fields={"foo": "x"})


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


def test_chats_and_what_data_jsonl_reads(tmp_path: Path) -> None:
    """A last message of the assistant, as any response, is not part of the prompt."""
    chat = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes?"), ("user", "Say one.")]
    messages = [{"role": role, "content": text} for role, text in chat]
    shared = [
        {"from": {"user": "human", "assistant": "gpt"}.get(r, r), "value": t} for r, t in chat
    ]
    path = tmp_path / "p.json"
    rows: list[dict[str, Any]] = [
        {"messages": messages},
        {"messages": [*messages, {"role": "assistant", "content": ""}]},
        {"conversations": [*shared, {"from": "gpt", "value": "One."}]},
        {
            "system": "Be brief.",
            "history": [["Hi", "Yes?"]],
            "instruction": "Say one.",
            "output": "",
        },
        {"prompt": messages, "completion": [{"role": "assistant", "content": "One."}]},
    ]
    path.write_text(json.dumps(rows))
    found = predict.read_prompts(path)
    assert [name for name, _ in found] == ["1", "2", "3", "4", "5"]
    for _, prompt in found:
        assert (prompt.history, prompt.instruction) == (tuple(chat[:3]), "Say one.")
        assert prompt.response == ""


@pytest.mark.parametrize("last", [[], [{"role": "assistant", "content": "No.", "weight": 0}]])
def test_a_chats_last_user_turn_is_asked_whatever_training_learns(
    last: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Training leaves out what stands after the last answer with loss."""
    texts = [("user", "Hi"), ("assistant", "Yes?"), ("user", "Say one.")]
    row = {"messages": [*({"role": role, "content": text} for role, text in texts), *last]}
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(row))
    ((_, asked),) = predict.read_prompts(path)
    assert (asked.history, asked.instruction) == (tuple(texts[:2]), "Say one.")
    learned = RowReader().read(row, "p.jsonl:1", "p.jsonl", 1)
    assert (learned.history, learned.instruction, learned.response) == ((), "Hi", "Yes?")


@pytest.mark.parametrize(
    ("row", "fields", "prompt"),
    [
        (
            {"response": "what?", "gold": "x"},
            {"instruction": "response", "response": "gold"},
            "what?",
        ),
        ({"answer": "what?", "k": 0}, {"instruction": "answer", "answer": "k"}, "what?"),
        ({"instruction": "Do", "instances": [{"input": "i", "output": "o"}]}, {}, "Do\n\ni"),
    ],
)
def test_prompts_are_those_of_training(
    row: dict[str, Any], fields: dict[str, str], prompt: str, tmp_path: Path
) -> None:
    """Fields that bear the usual name of another one, and a task with its inputs in a list."""
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(row))
    ((_, read),) = predict.read_prompts(path, "text", fields)
    assert read.instruction == prompt


def test_several_inputs_of_a_task_are_a_prompt_each(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    inputs = [{"input": text, "output": "o"} for text in "ij"]
    path.write_text(json.dumps({"id": "s", "instruction": "Do", "instances": inputs}))
    assert [(n, e.instruction) for n, e in predict.read_prompts(path)] == [
        ("s/0", "Do\n\ni"), ("s/1", "Do\n\nj"),
    ]  # fmt: skip


def test_a_field_that_no_row_has_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("q,A,B,C\nx,1,2,3\n")
    with pytest.raises(
        DataError, match="no field 'Q' for instruction=Q; the row has 'q', 'A', 'B'"
    ):
        predict.read_prompts(path, "text", {"instruction": "Q"})
    given = {"instruction": "q", "choices": ["A", "B", "D"]}
    with pytest.raises(DataError, match="no row has the column 'D', which --field choices names"):
        predict.read_prompts(path, "text", given, ["*"])


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
