"""`elrea <command> ...`: it lists and finds the commands, and refuses bad arguments before it imports torch."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from elrea.commands.cli import COMMANDS
from elrea.commands.config_files import config_folder
from elrea.commands.old_names import COMMANDS as OLD_COMMANDS
from elrea.errors import ConfigError
from tests.cli.commands import EXAM, QUIET, ROOT, Ended, run_module

OLD_RUN = ROOT / "tests" / "old_run"
SLOW = {"torch", "transformers", "peft", "pytorch_lightning", "lm_eval", "wandb", "matplotlib"}
"""Modules that take long to import, and that no early refusal needs."""
WATCHED = f"""
import sys
from elrea.commands.cli import main
try:
    main()
finally:
    print(sorted(set(sys.modules) & {SLOW | {"hydra", "numpy", "omegaconf"}!r}), file=sys.stderr)
"""


def start(folder: Path, *words: str, module: str = "elrea") -> subprocess.CompletedProcess[str]:
    """`python -m <module> <words>` in a folder."""
    return python(folder, "-m", module, *words)


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, input="", capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip


def watched(folder: Path, *words: str) -> tuple[int, list[str], set[str]]:
    """Exit code of `elrea <words>`, its lines, and which of the slow modules it has imported."""
    ended = python(folder, "-c", WATCHED, *words)
    *lines, imported = ended.stderr.splitlines()
    return ended.returncode, ended.stdout.splitlines() + lines, set(eval(imported))


def test_help_lists_every_command_and_imports_nothing_slow(tmp_path: Path) -> None:
    code, lines, imported = watched(tmp_path, "--help")
    assert code == 0 and imported == set()
    for name, (_, line) in COMMANDS.items():
        assert f"  {name:<12}{line}" in lines
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("run", "harness")])
def test_each_command_has_its_help(command: str, tmp_path: Path) -> None:
    code, lines, imported = watched(tmp_path, command, "--help")
    assert code == 0 and not imported & SLOW
    assert lines[0].startswith(f"usage: elrea {command} ")
    assert max(map(len, lines)) <= 100


def test_every_command_has_a_module_with_main() -> None:
    for module, _ in COMMANDS.values():
        assert callable(import_module(f"elrea.commands.{module}").main)


def test_an_unknown_command_is_one_line(tmp_path: Path) -> None:
    code, lines, imported = watched(tmp_path, "predcit")
    assert code == 1 and imported == set()
    assert lines == [
        "error: elrea predcit: no such command; did you mean predict? (`elrea --help` lists them)"
    ]


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["--no-such-option"], "elrea: unrecognized arguments: --no-such-option"),
        (["compare"], "elrea compare: the following arguments are required: runs, --a, --b"),
        (["store", "tidy"], "elrea store: argument action: invalid choice: 'tidy'"),
        (["store", "ls", "--houres=3"], "elrea store: unrecognized arguments: --houres=3; did you mean --hours?"),
    ],
)  # fmt: skip
def test_a_usage_error_is_one_line_and_exits_with_2(
    words: list[str], wrong: str, tmp_path: Path
) -> None:
    ended = start(tmp_path, *words)
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 2 and ended.stdout == ""
    assert line.startswith(f"error: {wrong}") and line.endswith("--help` lists what it takes)")


def test_without_a_command_all_are_listed(tmp_path: Path) -> None:
    ended = start(tmp_path)
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr.startswith("usage: elrea <command> ...")
    assert all(f"\n  {name} " in ended.stderr for name in COMMANDS)


def test_the_old_spellings_show_the_new_one_in_their_help(tmp_path: Path) -> None:
    names = {module: name for name, (module, _) in COMMANDS.items()}
    for old, file in OLD_COMMANDS.items():
        folder, _, module = file.rpartition("/")
        if (
            module == "harness" or folder != "commands"
        ):  # its --help is lm-eval's; it has no new command
            continue
        ended = start(tmp_path, "--help", module=old.removesuffix(".__main__"))
        assert ended.stdout.startswith(f"usage: elrea {names[module]} "), ended.stderr


def prompts(folder: Path, text: str = '{"prompt": "Hi"}\n') -> str:
    """A file of prompts."""
    (folder / "prompts.jsonl").write_text(text)
    return "prompts.jsonl"


RUN = str(OLD_RUN / "run")
PREDICT = ["predict", RUN, "--in", "prompts.jsonl", "--out", "answers.jsonl"]
REFUSED = [
    (["chat", "gone"], "gone: no such folder; give a run's, as outputs/<day>/<time>"),
    (["chat", "."], ".: no ensemble.json there; give the folder of a finished run"),
    (["chat", RUN, "--top-k", "0"], "--top-k 0: must be at least 1"),
    (["chat", RUN, "--max-new-tokens", "0"], "max_new_tokens=0: must be at least 1"),
    (["chat", RUN, "--temperature", "-1"], "temperature=-1.0: must be 0 or more, and finite"),
    (["chat", RUN, "--backbone", "./gone"], "./gone: no such folder"),
    ([*PREDICT[:3], "gone.jsonl", *PREDICT[4:]], "gone.jsonl: cannot be read"),
    ([*PREDICT[:3], "empty.jsonl", *PREDICT[4:]], "empty.jsonl: the file has no prompts"),
    ([*PREDICT[:5], "gone/answers.jsonl"], "gone: no such folder; make it"),
    ([*PREDICT[:5], "other.jsonl"], "other.jsonl: has answers of another ensemble"),
    (["merge", RUN, "--out", "."], ".: exists already; name another folder"),
    (["merge", RUN, "--out", "m", "--rank", "9"], "--rank 9: must be 1 to 3"),
    (["merge", RUN, "--out", "m", "--weights", "bse=1"], "--weights: no member 'bse'"),
    (["merge", RUN, "--out", "m", "--prompts", "gone.jsonl"], "gone.jsonl: cannot be read"),
    (["neighbours", "gone", "Hi"], "gone: no config.yaml there; give the folder of a run"),
    (["neighbours", RUN, "Hi", "-k", "0"], "k=0: must be at least 1"),
    (["neighbours", RUN, "Hi", "--store", "gone"], "--store gone: no such folder"),
    (["compare", "gone", "--a", "elrea", "--b", "base"], "gone: no predictions.jsonl there"),
    (["compare", RUN, "--a", "elrae", "--b", "base"], "no strategy 'elrae' with seed 0; did you"),
    (["store", "ls", "--store", "gone"], "gone: no such folder; name the store with --store"),
    (["dashboard", "--timeout", "0"], "--timeout 0: give seconds above 0"),
    (["combine", "--out", "m"], "--root: give the folder of math/"),
    (["combine", "--out", "m", "--root", "gone"], "--root gone: no such folder"),
]


@pytest.mark.parametrize(
    ("words", "line"), REFUSED, ids=[f"{words[0]}-{line[:24]}" for words, line in REFUSED]
)
def test_a_refusal_comes_before_torch_is_imported(
    words: list[str], line: str, tmp_path: Path
) -> None:
    prompts(tmp_path)
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "other.jsonl").write_text('{"id": "1", "by": "0"}\n')
    code, lines, imported = watched(tmp_path, *words)
    assert code == 1 and len(lines) == 1, lines
    assert lines[0].startswith("error: ") and line in lines[0]
    assert not imported & SLOW


def test_predict_needs_no_model_when_everything_is_answered(tmp_path: Path) -> None:
    prompts(tmp_path)
    assert run_module(tmp_path, "elrea", *PREDICT, "--max-new-tokens", "4").code == 0
    answers = (tmp_path / "answers.jsonl").read_bytes()
    code, lines, imported = watched(tmp_path, *PREDICT, "--max-new-tokens", "4")
    assert (code, lines) == (0, ["1 of 1 prompts are answered already"])
    assert not imported & SLOW and (tmp_path / "answers.jsonl").read_bytes() == answers


def test_harness_checks_the_folder_first(tmp_path: Path) -> None:
    (tmp_path / "lm_eval.py").write_text("")  # found, whether or not the extra is installed
    code, lines, imported = watched(tmp_path, "harness", "--model_args", "path=gone,top_k=1")
    assert code == 1 and lines[0].startswith("error: gone: no such folder; give a run's")
    assert imported == set()


def test_run_is_run_py(whole: Ended, words: list[str], tmp_path: Path) -> None:
    """The same words find the stages of run.py and give the same summary, from any folder."""
    ended = run_module(tmp_path, "elrea", "run", *words)
    assert (ended.code, ended.err) == (0, "")
    assert ended.summary == whole.summary


def test_a_sweep_by_elrea_run(tiny: list[str], tmp_path: Path) -> None:
    ended = run_module(tmp_path, "elrea", "run", "-m", *tiny, *EXAM, QUIET, "plan=true", "seed=0,1")
    assert (ended.code, ended.err) == (0, "")


def test_an_unknown_key_of_elrea_run(tiny: list[str], tmp_path: Path) -> None:
    ended = start(tmp_path, "run", *tiny, "trainng.epochs=1")
    assert ended.returncode == 1
    assert ended.stderr == "error: trainng.epochs: unknown key; did you mean training.epochs?\n"


def test_without_the_clone_run_says_where_to_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("elrea.commands.config_files.__file__", str(tmp_path / "a/b/c/d.py"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="run the command in a clone of the repository"):
        config_folder()
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/config.yaml").write_text("")
    assert config_folder() == tmp_path / "conf"
