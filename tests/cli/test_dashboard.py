"""`elrea dashboard`: its panels read only what runs log, and its errors are one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import ROOT
from tests.cli.conftest import SECRET
from tests.reporting.wandb_reader import Run, runs


def dashboard(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    home = {"HOME": str(folder), "WANDB_CONFIG_DIR": str(folder), "WANDB_CACHE_DIR": str(folder)}
    return subprocess.run(
        [sys.executable, "-m", "elrea", "dashboard", *words],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), **home, **environment},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory, compared: Path) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("dashboard")
    group = "/".join(compared.parts[-2:])
    done = dashboard(folder, "--out", "d.json", "--group", group, WANDB_API_KEY=SECRET)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "The dashboard's spec is in d.json\n"
    text = (folder / "d.json").read_text()
    assert SECRET not in text
    found: dict[str, Any] = json.loads(text)
    return found


def panels(spec: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    sections = spec["spec"]["section"]["panelBankConfig"]["sections"]
    return {section["name"]: section["panels"] for section in sections}


def named(panel: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(kind, name) of everything that a panel reads: config, summary, history, table, column or media."""
    config, kind = panel["config"], panel["viewType"]
    if kind == "Scatter Plot":
        for axis in ("xAxis", "yAxis"):
            room, _, name = config[axis].partition(":")
            yield room, name.replace(".value", "", 1) if room == "config" else name
    elif kind == "Bar Chart":
        yield "config", config["groupBy"].replace(".value", "", 1)
        yield from (("summary", name) for name in config["metrics"])
    elif kind == "Run History Line Plot":
        yield from (("history", name) for name in [config["xAxis"], *config["metrics"]])
    elif kind == "Vega2":
        (query,) = config["userQuery"]["queryFields"]
        (table,) = [field for field in query["fields"] if field["name"] == "summaryTable"]
        key = table["args"][0]["value"]
        yield "table", key
        yield from (("column", f"{key}/{name}") for name in config["fieldSettings"].values())
    elif kind == "Media Browser":
        yield from (("media", key) for key in config["mediaKeys"])
    elif kind == "Weave":
        yield "table", config["panel2Config"]["exp"]["fromOp"]["inputs"]["key"]["val"]
    else:
        raise AssertionError(f"the test does not know what a {kind} reads")


def flat(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")


def logged(run: Run) -> set[tuple[str, str]]:
    """(kind, name) of everything that a run logged."""
    logs = {("config", name) for name in flat(run.config)}
    logs |= {("summary", name) for name in flat(run.summary)}
    for row in run.history:
        for name, value in row.items():
            logs.add(("history", name))
            kind = value.get("_type") if isinstance(value, dict) else None
            if kind == "image-file":
                logs.add(("media", name))
            if kind == "table-file":
                columns = run.table(name)["columns"]
                logs |= {("table", name), *(("column", f"{name}/{column}") for column in columns)}
    return logs


def test_every_panel_names_what_runs_log(spec: dict[str, Any], compared: Path) -> None:
    read = {pair for each in panels(spec).values() for panel in each for pair in named(panel)}
    (feed,) = spec["spec"]["section"]["runSets"]
    columns = {name.partition(":")[::2] for name in feed["runFeed"]["columnOrder"]}
    read |= columns - {("run", "displayName")}
    assert len(read) >= 35 and {room for room, _ in read} == {
        "config", "summary", "history", "table", "column", "media",
    }  # fmt: skip
    for job in ("0", "1"):
        (run,) = runs(compared / job)
        assert not read - logged(run), f"job {job} does not log this"


def test_the_sections_and_their_panels(spec: dict[str, Any]) -> None:
    found = panels(spec)
    assert list(found) == [
        "Accuracy against clustering.k", "Cost against accuracy", "Clusters", "Routing", "Training",
    ]  # fmt: skip
    lines, bars, *_ = (panel["config"] for panel in found["Accuracy against clustering.k"])
    assert lines["panelDefId"] == "wandb/lineseries/v0"
    assert lines["fieldSettings"] == {
        "step": "clusters", "lineKey": "strategy", "lineVal": "accuracy",
    }  # fmt: skip
    assert bars["metrics"][1] == "strategies.elrea.accuracy" and bars["groupAgg"] == "mean"
    first = found["Cost against accuracy"][0]["config"]["fieldSettings"]
    assert first == {"step": "forward_passes", "lineKey": "strategy", "lineVal": "accuracy"}


def test_group_shows_only_that_sweep(spec: dict[str, Any], compared: Path) -> None:
    (feed,) = spec["spec"]["section"]["runSets"]
    (only,) = feed["filters"]["filters"]
    (run,) = runs(compared / "0")
    assert (only["key"]["name"], only["value"]) == ("group", run.info["group"])


def test_another_key_and_other_strategies(tmp_path: Path) -> None:
    words = ["--against", "data.conflict", "--strategies", "elrea, mole", "--entity", "us"]
    done = dashboard(tmp_path, *words, "--project", "p", "--out", "d.json")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "d.json").read_text()
    assert "config:data.value.conflict" in text and "strategies.mole.accuracy" in text
    assert "uniform" not in text and "clustering" not in text
    spec = json.loads(text)
    assert (spec["entity"], spec["project"]) == ("us", "p")
    assert spec["spec"]["section"]["runSets"][0]["filters"]["filters"] == []


def test_help_is_fast(tmp_path: Path) -> None:
    began = time.monotonic()
    done = dashboard(tmp_path, "--help")
    assert done.returncode == 0 and "--against" in done.stdout
    assert time.monotonic() - began < 1.5
    code = "import sys, elrea.commands.dashboard; print({'wandb', 'torch', 'hydra'} & set(sys.modules))"  # fmt: skip
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert loaded.stdout == "set()\n"


def error(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1 and done.stdout == ""
    assert SECRET not in done.stderr
    (line,) = done.stderr.splitlines()
    return line


def test_without_a_key(tmp_path: Path) -> None:
    line = error(dashboard(tmp_path))
    assert line.startswith("error: no W&B key: run `wandb login` or set WANDB_API_KEY, or write")


def test_without_a_network(tmp_path: Path) -> None:
    nobody = "http://127.0.0.1:9"
    words = ["--timeout", "1", "--entity", "us"]
    line = error(dashboard(tmp_path, *words, WANDB_API_KEY=SECRET, WANDB_BASE_URL=nobody))
    assert line.startswith("error: W&B did not take the dashboard (")
    assert line.endswith("or write the spec with --out dashboard.json")


def test_without_the_extra(tmp_path: Path) -> None:
    (tmp_path / "wandb_workspaces.py").write_text("raise ImportError('not there')")
    shadowed = f"{tmp_path}{os.pathsep}{ROOT}"
    line = error(dashboard(tmp_path, "--out", "d.json", PYTHONPATH=shadowed))
    assert line.endswith("needs wandb-workspaces (not there): pip install 'elrea[dashboard]'")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--timeout", "0"], "--timeout 0: give seconds above 0"),
        (["--out", "."], "--out .: is a folder"),
        (["--strategies", ","], "--strategies: name at least one"),
    ],
)
def test_bad_arguments(words: list[str], said: str, tmp_path: Path) -> None:
    assert error(dashboard(tmp_path, *words)).startswith(f"error: {said}")
