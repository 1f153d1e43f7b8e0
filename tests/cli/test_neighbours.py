"""`elrea neighbours RUN "a prompt"` on a finished run."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.cells import cell_len

from elrea.commands import neighbours as command
from elrea.commands.exit import one_line_errors
from elrea.commands.neighbours import Neighbour, neighbours
from elrea.pipeline.assemble import experiment_of
from tests.cli.commands import Ended


def test_an_examples_nearest_neighbour_is_itself(whole: Ended, capsys) -> None:
    run = whole.folder / "out"
    example = next(e for e in experiment_of(run)[0].corpus.train if not e.header and not e.history)
    found = neighbours(run, example.instruction, 5)
    assert len(found) == 5 and found[0].id == example.id
    assert found[0].cosine == pytest.approx(1, abs=1e-3) and found[0].source == example.source
    cosines = [one.cosine for one in found]
    assert cosines == sorted(cosines, reverse=True) and all(0 <= one.cluster < 2 for one in found)
    command.main([str(run), example.instruction, "-k", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and example.id in lines[1] and example.source in lines[1]
    assert " ".join(example.instruction.split()) in lines[1], "whole in a pipe"


def test_a_terminal_gets_what_fits() -> None:
    texts = ["word " * 60, "short", "\u662f" * 60]
    nearest = [Neighbour(0.5, f"id:{n}", "boards", n, text) for n, text in enumerate(texts)]
    head, *lines = command.table(nearest, 80)
    assert [cell_len(line) for line in lines] == [80, cell_len(lines[1]), 80 - 1]
    assert lines[0].endswith("...  (id:0)") and "short  (id:1)" in lines[1]
    assert head.index("example") == lines[1].index("short")
    assert max(map(cell_len, command.table(nearest, 10))) < 80, "too narrow: what is least"
    assert "word " * 59 in command.table(nearest)[1]


def test_an_error_is_one_line(whole: Ended, tmp_path: Path, capsys) -> None:
    for words, said in (
        ([str(tmp_path), "x"], "no config.yaml there; give the folder of a run"),
        ([str(whole.folder / "out"), "x", "-k", "0"], "k=0: must be at least 1"),
        ([str(whole.folder / "out"), "x", "--store", str(tmp_path)], "its stage base is not in"),
    ):
        with pytest.raises(SystemExit), one_line_errors():
            command.main(words)
        err = capsys.readouterr().err
        assert said in err and len(err.splitlines()) == 1
