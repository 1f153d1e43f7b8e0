"""Hydra's options between overrides, against Hydra's own parser."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
from hydra._internal.utils import get_args_parser

from elrea.commands.run import INFOS, options_first
from tests.cli.commands import EXAM, QUIET, run

ACTIONS = [action for action in get_args_parser()._actions if action.option_strings]
OPTIONS = [(option, action) for action in ACTIONS for option in action.option_strings]


def parsed(*words: str) -> dict[str, Any]:
    """What Hydra makes of the words in the order in which `elrea run` hands them on."""
    return vars(get_args_parser().parse_args(options_first(words)))


@pytest.mark.parametrize(("option", "action"), OPTIONS, ids=[option for option, _ in OPTIONS])
def test_every_option_may_stand_between_overrides(
    option: str, action: argparse.Action, capsys: pytest.CaptureFixture
) -> None:
    if isinstance(action, argparse._VersionAction):
        with pytest.raises(SystemExit) as ended:
            parsed("seed=1", option, "clustering.k=4")
        assert ended.value.code == 0 and capsys.readouterr().out.startswith("Hydra ")
        return
    value = [*(action.choices or ["mine"])][-1] if action.nargs is None else None
    given = [option] if value is None else [option, value]
    found = parsed("seed=1", *given, "clustering.k=4")
    assert found["overrides"] == ["seed=1", "clustering.k=4"]
    assert found[action.dest] == (action.const if value is None else value)
    if option.startswith("--") and value is not None:
        assert parsed("seed=1", f"{option}={value}", "clustering.k=4") == found


def test_info_has_a_value_or_none() -> None:
    (info,) = (action for action in ACTIONS if action.dest == "info")
    assert set(INFOS) == set(info.choices or ()) and info.const == INFOS[0]
    for value in INFOS:
        found = parsed("seed=1", "-i", value, "clustering.k=4")
        assert (found["info"], found["overrides"]) == (value, ["seed=1", "clustering.k=4"])
    assert parsed("-i")["info"] == info.const


def test_cfg_job_between_overrides(
    tiny: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("cfg")
    ended = run(folder, *tiny, *EXAM, QUIET, "--cfg", "job", "--package", "clustering", "seed=7")
    assert (ended.code, ended.err) == (0, "")
    assert "k: 2" in ended.out and "seed:" not in ended.out
