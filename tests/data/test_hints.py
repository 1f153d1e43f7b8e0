"""Overrides in errors about data: each is read by a shell and by Hydra's own parser, and then it works."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from elrea.commands import combine
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
    for _ in range(3):
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
        {"instruction": "1 + 1?", "response": "2", "a b": 1, "k=v": 2, 'c,"d"': 3, "it's": 4, "[x]": 5},
        {"messages": [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}], "split": "x"},
    ],
    ids=lambda row: " ".join(row),
)  # fmt: skip
def test_following_the_hints_reads_the_row(row: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    (example,) = followed(tmp_path / "x.jsonl")
    assert (example.instruction, example.response) == ("1 + 1?", "2")


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
    mappings: list[dict[str, str | None]] = [{}, {"instruction": "question"}]
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
