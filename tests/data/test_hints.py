"""Overrides in errors about data: each is read by a shell and by Hydra's own parser, and then it works."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from elrea.commands import combine
from elrea.commands.predict import read_prompts
from elrea.data.readers.hints import ignore_options, ignoring, mapping
from elrea.data.sources.dolly import Dolly
from elrea.data.sources.gsm8k import Gsm8k
from elrea.data.sources.jsonl import Jsonl
from elrea.data.sources.mathqa import Mathqa
from elrea.data.sources.mix import Mix
from elrea.errors import DataError


def settings_in(message: str) -> dict[str, Any]:
    """The overrides that a message names, as a shell and Hydra read them: keys below `data.` -> values."""
    words = re.findall(r"'data\..*?'(?= |$)|data\.\S*=\S+", message)
    parsed = OverridesParser.create().parse_overrides([shlex.split(word)[0] for word in words])
    return {each.key_or_group.removeprefix("data."): each.value() for each in parsed}


def followed(path: Path) -> Any:
    """Reads a file as its errors say, one after the other."""
    settings: dict[str, Any] = {}
    for _ in range(4):
        cfg = OmegaConf.create()
        for key, value in settings.items():
            OmegaConf.update(cfg, key, value)
        given: Any = OmegaConf.to_container(cfg)
        try:
            return Jsonl(train=str(path), **given).read().train
        except DataError as error:
            assert "\n" not in str(error)
            found = settings_in(str(error))
            assert found, error
            settings |= found
    raise AssertionError(settings)


@pytest.mark.parametrize(
    "row",
    [
        {"question": "1 + 1?", "solution": "2"},
        {"Solution": "2", "Question": "1 + 1?", "level": 3},
        {"the problem": "1 + 1?", "final answer": "2", "a,b": 3},
        {"question": "1 + 1?", "answer": "2"},
        {"instruction": "1 + 1?", "answer": "2"},
        {"instruction": "1 + 1?", "target": "2"},
        {"instruction": "1 + 1?", "response": "2", "output": "3"},
        {"instruction": "1 + 1?", "output": "", "answer": "2"},
        {"instruction": "1 + 1?", "Lösung": "2"},
        {"instruction": "1 + 1?", "response": "2", "Maß": 3, "null": 4, "1e5": 5},
        {"instruction": "1 + 1?", "response": "2", "a b": 1, "k=v": 2, 'c,"d"': 3, "it's": 4, "[x]": 5},
        {"messages": [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}], "split": "x"},
    ],
    ids=lambda row: " ".join(row),
)  # fmt: skip
def test_following_the_hints_reads_the_row(row: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    (example,) = followed(tmp_path / "x.jsonl")
    assert (example.instruction, example.response) == ("1 + 1?", "2")


@pytest.mark.parametrize(
    "row",
    [
        {"Context": "TEXT", "Question": "ASKED", "Answer": "SAID"},
        {"system_prompt": "TEXT", "question": "ASKED", "response": "SAID", "id": "7"},
        {"system_prompt": "TEXT", "user_prompt": "ASKED", "response": "SAID"},
        {"Instruction": "ASKED", "Input": "TEXT", "Output": "SAID", "Source": "web"},
        {"passage": "TEXT", "question": "ASKED", "response": "SAID", "question_type": "why"},
        {"instruction": "ASKED", "passage": "TEXT", "response": "SAID"},
        {"article": "TEXT", "question": "ASKED", "options": ["SAID", "b"], "answer": "A", "example_id": "h1"},
        {"question": "ASKED TEXT", "options": ["b", "SAID"], "correct_option_index": 1, "explanation": "e"},
        {"question": "ASKED TEXT", "A": "a", "B": "SAID", "answer": "B"},
        {"prompt": "ASKED TEXT", "A": "a", "B": "b", "C": "SAID", "D": "", "answer": "C", "id": "7"},
        {"question": "ASKED TEXT", "option_a": "a", "option_b": "SAID", "answer": "option_b", "difficulty": "low"},
        {"question": "ASKED TEXT", "option 1": "SAID", "option 2": "b", "answer": "1"},
        {"sentence": "TEXT", "question": "ASKED", "option1": "a", "option2": "SAID", "answer": 2},
        {"text": "ASKED TEXT", "summary": "SAID", "url": "x"},
        {"inputs": "ASKED TEXT", "targets": "SAID", "task": "x"},
        {"prompt": "ASKED TEXT", "chosen": "SAID", "rejected": "no"},
        {"dialog": [{"role": "user", "content": "ASKED TEXT"}, {"role": "assistant", "content": "SAID"}], "nr": 1},
        {"prompt": "ASKED TEXT", "prompt_id": "7",
         "messages": [{"role": "user", "content": "ASKED TEXT"}, {"role": "assistant", "content": "SAID"}]},
    ],
    ids=lambda row: " ".join(row),
)  # fmt: skip
def test_following_the_hints_loses_no_part_of_the_question(
    row: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    (example,) = followed(tmp_path / "x.jsonl")
    asked = f"{example.history} {example.instruction}"
    assert "ASKED" in asked and "TEXT" in asked
    assert "SAID" in (example.options or (example.response,))[example.answer or 0]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"question": "q", "distractor1": "a", "distractor2": "b", "correct_answer": "c"},
         "'distractor1', 'distractor2' look like the wrong choices of one question; write all of its"),
        ({"chosen": "a", "rejected": "b"}, "map them with data.fields (instruction, input,"),
        ({"question": "q", "query": "r", "answer": "a"}, "map them with data.fields (instruction, input,"),
        ({"premise": "p", "hypothesis": "h", "response": "yes"}, "map them with data.fields (instruction, input,"),
        ({"instruction": "i", "input": "x", "passage": "p", "output": "o"}, "map them with data.fields (instr"),
        ({"question": "q", "solution": "steps", "answer": "4"}, "map them with data.fields (instruction, input,"),
        ({"question": "q", "answer": "a", "code": "x = 1"}, "map them with data.fields (instruction, input,"),
        ({"Frage": "q", "Antwort": "a"}, "map them with data.fields (instruction, input,"),
        ({"data": [{"instruction": "i", "output": "o"}], "version": 1}, "if 'data' holds the rows, save that list"),
    ],
    ids=lambda row: " ".join(row) if isinstance(row, dict) else "",
)  # fmt: skip
def test_what_the_names_leave_open_is_left_to_the_user(
    row: dict[str, Any], said: str, tmp_path: Path
) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError) as caught:
        Jsonl(train=str(tmp_path / "x.jsonl")).read()
    assert f"; {said}" in str(caught.value) and not settings_in(str(caught.value))


@pytest.mark.parametrize(
    "name",
    ["a", "a.b-c_1", "Lösung", "质量", "a b", "a,b", "null", "True", "1", "1e5", "inf", "-x", "[x]", "it's", 'say "a"',
     "a\\", 'a\\"b', "a\\b", "${a}", "\\${a}", "\\\\${a}", "*", "#", "~", "a=b", "$HOME", "`a`", ""],
)  # fmt: skip
def test_every_name_survives_a_shell_and_hydra(name: str) -> None:
    for word in (mapping("response", name), ignoring([name, "b"])):
        typed = subprocess.run(["sh", "-c", f"printf %s {word}"], capture_output=True, check=True)
        (read,) = OverridesParser.create().parse_overrides([typed.stdout.decode()])
        value = OmegaConf.to_container(OmegaConf.create({"a": read.value()}), resolve=True)
        assert value == {"a": name if "fields" in word else [name, "b"]}


def test_one_hint_is_enough_where_an_answer_has_no_choices(tmp_path: Path) -> None:
    row = {"question": "1 + 1?", "answer": "2", "difficulty": "low"}
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError) as caught:
        Jsonl(train=str(tmp_path / "x.jsonl")).read()
    assert settings_in(str(caught.value)) == {
        "fields.instruction": "question", "fields.response": "answer", "ignore": ["difficulty"],
    }  # fmt: skip


def test_an_option_takes_a_name_that_looks_like_one() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ignore", action="append")
    names = ["a", "-x", "--field", "b c"]
    assert parser.parse_args(shlex.split(ignore_options(names))).ignore == names


def test_a_second_field_for_a_role_is_the_users_to_choose(tmp_path: Path) -> None:
    row = {"instruction": "Add.", "prompt": "1 + 1?", "response": "2"}
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(
        DataError, match=r"as data\.ignore=\[instruction\] or data\.ignore=\[prompt\]$"
    ):
        Jsonl(train=str(tmp_path / "x.jsonl")).read()


def test_hints_about_tools_do_not_go_in_circles(tmp_path: Path) -> None:
    said: list[dict[str, Any]] = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "2", "tool_calls": [1]},
    ]
    (tmp_path / "x.jsonl").write_text(
        json.dumps({"messages": said, "tools": [1], "made": 1}) + "\n"
    )
    assert followed(tmp_path / "x.jsonl")[0].response == "2"
    said[1]["content"] = None
    (tmp_path / "x.jsonl").write_text(json.dumps({"messages": said}) + "\n")
    with pytest.raises(DataError, match="tool calls are not read; remove the line") as caught:
        Jsonl(train=str(tmp_path / "x.jsonl")).read()
    assert "data.ignore" not in str(caught.value)


def test_commands_name_their_own_option(tmp_path: Path) -> None:
    """They have --ignore, and no data.ignore."""
    said = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]
    said[0]["my note"] = "x"
    said[0]["thinking"] = "x"
    (tmp_path / "x.jsonl").write_text(json.dumps({"messages": said, "prompt": "1 + 1?"}) + "\n")
    ignore: list[str] = []
    for _ in range(3):
        with pytest.raises(DataError) as caught:
            read_prompts(tmp_path / "x.jsonl", ignore=ignore)
        assert "data." not in str(caught.value)
        found = re.findall(r"--ignore ('.*?'|\S+)", str(caught.value))
        ignore = [shlex.split(word)[0] for word in found]
    ((_, prompt),) = read_prompts(tmp_path / "x.jsonl", ignore=ignore)
    assert prompt.instruction == "1 + 1?"


@pytest.mark.parametrize("answer", ["right", "correct_answer", "gold"])
@pytest.mark.parametrize("options", ['["one", "two"]', ["one", "two"]])
def test_a_list_of_texts_becomes_the_choices(answer: str, options: object, tmp_path: Path) -> None:
    """Whatever the field is called: the answer without its choices would be another question."""
    row = {"Question text": "1 + 1?", "opt_list": options, answer: "two", "level": 3}
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    (example,) = followed(tmp_path / "x.jsonl")
    assert (example.options, example.answer) == (("one", "two"), 1)


def test_an_answer_is_not_given_twice(tmp_path: Path) -> None:
    """A solution beside the answer is no other answer."""
    row = {"question": "1 + 1?", "options": ["one", "two"], "answer": "two", "solution": "Add."}
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    (example,) = followed(tmp_path / "x.jsonl")
    assert (example.options, example.answer) == (("one", "two"), 1)


def test_a_list_beside_a_response_is_no_choices(tmp_path: Path) -> None:
    row = {"instruction": "1 + 1?", "response": "2", "tags": ["sum", "easy"]}
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    (example,) = followed(tmp_path / "x.jsonl")
    assert (example.instruction, example.response, example.choices) == ("1 + 1?", "2", ())


def test_a_hint_keeps_what_is_skipped_already(tmp_path: Path) -> None:
    row = {"instruction": "1 + 1?", "response": "2", "level": 3, "made": "today"}
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=r"data\.ignore=\[made,level\]$"):
        Jsonl(train=str(tmp_path / "x.jsonl"), ignore=["made"]).read()


def test_files_with_different_fields_lead_to_a_mix(tmp_path: Path) -> None:
    """No mapping serves both, so that the hints alone would go round in a circle."""
    (tmp_path / "a.jsonl").write_text('{"instruction": "1 + 1?", "response": "2"}\n')
    (tmp_path / "b.jsonl").write_text('{"question": "1 + 1?", "response": "2"}\n')
    files = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
    mappings: list[dict[str, str | list[str] | None]] = [{}, {"instruction": "question"}]
    for fields in mappings:
        with pytest.raises(DataError, match="make each a source of data=mix: docs/quickstart"):
            Jsonl(train=files, fields=fields).read()


def test_a_source_in_a_mix_names_its_settings_in_full(published, write) -> None:
    (published("mathqa") / "train.json").unlink()
    root = str(published("mathqa").parent)
    (Path(root) / "mathqa" / "train.json").unlink()
    mine = write("published/mine/train.jsonl", [{"question": "1 + 1?", "solution": "2"}])
    with pytest.raises(DataError, match=r"set data\.sources\.mathqa\.train_split=dev to train on"):
        Mix({"mathqa": Mathqa()}, root=root).load()
    said = r"data\.sources\.mine\.fields\.instruction=question data\.sources\.mine\.fields\.response=solution"
    with pytest.raises(DataError, match=said):
        Mix({"mine": Jsonl()}, root=root).load()
    with pytest.raises(DataError, match=r"\(data\.sources\.dolly\.root must have"):
        Mix({"dolly": Dolly(root="nowhere"), "mine": Jsonl(train=str(mine))}).load()


def test_what_combine_suggests_works(published, tmp_path: Path, capsys) -> None:
    """Its words have no `data.`; what it prints at the end is the command that reads its files."""
    for name in ("math", "gsm8k", "svamp", "mathqa"):
        root = published(name).parent
    (root / "mathqa" / "train.json").unlink()
    words = ["--root", str(root), "--out", str(tmp_path / "my out")]
    with pytest.raises(DataError) as caught:
        combine.main(words)
    hint = re.search(r"or set (\S+) to train on dev\.json", str(caught.value))
    assert hint and hint[1] == "sources.mathqa.train_split=dev"
    combine.main([*words, hint[1]])
    last = capsys.readouterr().out.splitlines()[-1]
    command = shlex.split(last[last.index("elrea run") :])
    assert command[:3] == ["elrea", "run", "data=jsonl"]
    given: dict[str, Any] = dict(word.removeprefix("data.").split("=", 1) for word in command[3:])
    corpus = Jsonl(**given).load()
    assert {example.source for example in corpus.train} == {"math", "gsm8k", "svamp", "mathqa"}


def test_combine_says_root_and_hub_as_its_own_options(published, tmp_path: Path) -> None:
    root = published("gsm8k").parent
    with pytest.raises(DataError) as caught:
        combine.main(["--root", str(root), "--out", str(tmp_path / "out"), "only=[gsm8k,svamp]"])
    assert "data." not in str(caught.value)
    assert Gsm8k(root=str(root / "gsm8k")).load()
