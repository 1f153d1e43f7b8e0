"""W&B: the contents of an offline run, and that no W&B error or stall can stop a job."""

from __future__ import annotations

import dataclasses
import logging
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from elrea.errors import ConfigError
from elrea.reporting.plots import figures as plots
from elrea.reporting.report import MadeStage, Members
from elrea.reporting.summary import summary_of
from elrea.reporting.wandb.run import headline, log_run
from elrea.reporting.wandb.tracker import Tracker
from tests.reporting.reports import ROW, report
from tests.reporting.wandb_reader import Run, runs

CURVE = [
    {"step": step, "epoch": 1, "examples": 16 * step, "loss": 1 / step, "learning_rate": 1e-3}
    for step in range(1, 21)
]
ROWS: list[list[Any]] = [["base", 0.64, None], ["elrea", 0.7, 0.06]]
SECRET = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Run], list[str]]:
    """Two runs of one process; the second fails."""
    folder = tmp_path_factory.mktemp("job")
    picture = folder / "accuracy.png"
    plots.accuracy({"base": {"accuracy": 0.6, "ci95": [0.5, 0.7]}}, picture, chance=0.25)
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("WANDB_API_KEY", SECRET)
        patch.setenv("WANDB_RUN_ID", "from-outside")
        with Tracker(group="sweep", name="first", tags=["exam", "tiny"]) as tracker:
            config = {
                "seed": np.int64(3),
                "data": {"root": folder / "mmlu", "subjects": ("law", "logic")},
                "key": f"key={SECRET}",
                "hub": {"api_key": "shh", "max_tokens": 8},
            }
            tracker.start(config, folder)
            tracker.curve("base", CURVE)
            tracker.curve("expert_00", [{**row, "loss": row["loss"] / 2} for row in CURVE])
            tracker.curve("long", [{"step": step, "loss": 0.0} for step in range(1001)])
            tracker.table("results", ["strategy", "accuracy", "delta"], ROWS)
            tracker.images({"plots/accuracy": picture})
            for number, reused in enumerate((False, True)):
                facts = {"seconds": 1.5, "reused": reused, "upstream": {"base": "abcd"}}
                tracker.artifact(f"expert-{number}", "adapter", f"key{number}", facts)
            tracker.summary({"strategies": {"elrea": {"accuracy": np.float64(0.7)}}, "n": 400})
            lines.append(tracker.sync_line())
        lines.append(tracker.sync_line())
        with pytest.raises(RuntimeError, match="boom"), tracker:
            tracker.start({}, folder)
            raise RuntimeError("boom")
        lines.append(tracker.sync_line())
    return runs(folder), lines


def test_two_runs_of_a_process_differ(recorded: tuple[list[Run], list[str]]) -> None:
    found, _ = recorded
    assert len(found) == 2
    assert len({run.id for run in found} | {"from-outside"}) == 3
    assert [run.exit_code for run in found] == [0, 1], "a failed job must be marked as failed"
    assert not found[1].history, "the second run shows the first one's history"


def test_names_and_config_are_recorded(recorded: tuple[list[Run], list[str]]) -> None:
    run = recorded[0][0]
    names = {key: run.info[key] for key in ("project", "group", "name", "tags")}
    assert names == {
        "project": "elrea",
        "group": "sweep",
        "name": "first",
        "tags": ["exam", "tiny"],
    }
    assert run.config["seed"] == 3
    assert run.config["data"] == {"root": "mmlu", "subjects": ["law", "logic"]}


def test_nothing_private_is_recorded(recorded: tuple[list[Run], list[str]]) -> None:
    run = recorded[0][0]
    assert run.config["key"] == "key=(hidden)"
    assert run.config["hub"] == {"api_key": "(hidden)", "max_tokens": 8}
    assert run.info["host"] == ""
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    written = next(run.folder.glob("*.wandb")).read_bytes()
    assert str(run.folder.parent).encode() not in written
    assert not [path.name for path in files if "requirements" in path.name or "meta" in path.name]


def test_every_curve_is_recorded_on_its_own_axis(recorded: tuple[list[Run], list[str]]) -> None:
    run = recorded[0][0]
    for adapter in ("base", "expert_00"):
        assert run.metrics[f"{adapter}/*"] == f"{adapter}/step"
        assert run.column(f"{adapter}/step") == [row["step"] for row in CURVE]
        for metric in ("epoch", "examples", "loss", "learning_rate"):
            assert len(run.column(f"{adapter}/{metric}")) == len(CURVE)
    assert run.column("expert_00/loss") == [row["loss"] / 2 for row in CURVE]


def test_long_curves_are_thinned_and_keep_their_ends(
    recorded: tuple[list[Run], list[str]],
) -> None:
    steps = recorded[0][0].column("long/step")
    assert len(steps) <= 501
    assert (steps[0], steps[-1]) == (0, 1000)


def test_table_image_and_summary_are_recorded(recorded: tuple[list[Run], list[str]]) -> None:
    run = recorded[0][0]
    assert run.table("results") == {"columns": ["strategy", "accuracy", "delta"], "data": ROWS}
    assert run.media("plots/accuracy").read_bytes().startswith(b"\x89PNG")
    assert run.summary["strategies"] == {"elrea": {"accuracy": 0.7}}
    assert run.summary["n"] == 400


def test_stages_are_artifacts_by_reference_with_their_upstream(
    recorded: tuple[list[Run], list[str]],
) -> None:
    assert recorded[0][0].artifacts == {
        f"adapter-key{number}": {
            "type": "adapter",
            "reference": f"elrea://adapter/key{number}",
            "seconds": 1.5,
            "reused": bool(number),
            "upstream": {"base": "abcd"},
        }
        for number in (0, 1)
    }


def test_the_sync_line_names_each_run(recorded: tuple[list[Run], list[str]]) -> None:
    found, lines = recorded
    assert lines == [
        f"wandb sync wandb/{found[0].folder.name}",
        f"wandb sync wandb/{found[0].folder.name}",
        f"wandb sync wandb/{found[1].folder.name}",
    ]


def test_disabled_does_not_import_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import of it would raise
    with Tracker(mode="disabled") as tracker:
        use(tracker, tmp_path)
    assert tracker.sync_line() == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["init", "log", "define_metric", "finish", "setup", "import"])
def test_a_failing_wandb_costs_one_warning(
    part: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise SystemExit("wandb gives up\nat length") if part == "log" else OSError("gone\nso")

    fake = Fake({part: fail})
    monkeypatch.setitem(sys.modules, "wandb", None if part == "import" else fake)
    with Tracker() as tracker:
        use(tracker, tmp_path)
    assert len(warnings(caplog)) == 1
    assert "\n" not in warnings(caplog)[0]
    if part in ("log", "define_metric"):
        assert fake.calls[-1] == "finish", "a run whose logging failed must still be closed"
        assert fake.calls.count("summary") == 1, "what still works must still be recorded"
    if part == "finish":
        assert tracker.sync_line() == f"wandb sync {tmp_path}/wandb/run"


@pytest.mark.parametrize("part", ["init", "log", "finish"])
def test_a_hanging_wandb_does_not_stall(
    part: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    monkeypatch.setitem(sys.modules, "wandb", Fake({part: release.wait}))
    start = time.monotonic()
    with Tracker(timeout=0.2) as tracker:
        use(tracker, tmp_path)
    seconds = time.monotonic() - start
    release.set()
    assert seconds < 2, f"waited {seconds:.1f} s for calls limited to 0.2 s"
    assert len(warnings(caplog)) == 1
    assert "no answer in 0.2 s" in warnings(caplog)[0]


def test_online_without_a_key_falls_back_to_offline_without_a_prompt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake = Fake({}, logged_in=False)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with Tracker(mode="online") as tracker:
        use(tracker, tmp_path)
    assert fake.modes == ["offline"]
    assert "wandb login" in warnings(caplog)[0] and len(warnings(caplog)) == 1
    assert tracker.sync_line() == f"wandb sync {tmp_path}/wandb/run"


def test_online_leaves_nothing_to_send(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake = Fake({})
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with Tracker(mode="online") as tracker:
        use(tracker, tmp_path)
    assert fake.modes == ["online"]
    assert tracker.sync_line() == "" and not warnings(caplog)


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_reused_stage_is_an_input_when_online(
    mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Online, W&B tells a run's input artifacts from its outputs; offline all artifacts are outputs."""
    fake = Fake({})
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with Tracker(mode=mode) as tracker:
        tracker.start({}, tmp_path)
        for name, reused in (("base", True), ("expert-0", False)):
            facts: dict[str, Any] = {"seconds": 1.0, "reused": reused, "upstream": {}}
            tracker.artifact(name, "adapter", f"key-of-{name}", facts)
    first = "use_artifact" if mode == "online" else "log_artifact"
    assert fake.artifacts == [
        (first, "adapter-key-of-base"), ("log_artifact", "adapter-key-of-expert-0"),
    ]  # fmt: skip
    assert not warnings(caplog)


@pytest.mark.parametrize("part", ["use_artifact", "log_artifact"])
def test_a_refused_artifact_costs_one_warning(
    part: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ValueError("no such project")

    fake = Fake({part: fail})
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with Tracker(mode="online") as tracker:
        tracker.start({}, tmp_path)
        for reused in (True, False):
            facts: dict[str, Any] = {"seconds": 1.0, "reused": reused, "upstream": {}}
            tracker.artifact("base", "adapter", f"key{reused}", facts)
        tracker.summary({"n": 1})
    assert len(warnings(caplog)) == 1 and len(fake.artifacts) == 1
    assert fake.calls[-2:] == ["summary", "finish"]


def test_no_table_has_two_columns_of_one_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A strategy may be called as a fact of the item is, as `source`."""
    made: list[Any] = []
    fake = Fake({})
    monkeypatch.setattr(fake, "Table", lambda **content: made.append(content), raising=False)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    names = ["base", "source", "answer", "id"]
    with Tracker() as tracker:
        tracker.start({}, tmp_path)
        log_run(
            tracker,
            report(strategies={name: {**ROW, "macro": 0.5} for name in names}, chosen="base"),
            {},
            None,
            7.5,
        )
        tracker.table("any", ["a", "b", "a", "a", "a (2)"], [[1, 2, 3, 4, 5]])
    columns = [list(table["columns"]) for table in made]
    assert all(len(set(each)) == len(each) for each in columns)
    assert columns[-2] == [
        "id", "source", "category", "answer", "base", "source (strategy)", "answer (strategy)", "id (strategy)",
        "nearest cluster", "w_base",
    ]  # fmt: skip
    assert columns[-1] == ["a", "b", "a (3)", "a (4)", "a (2)"]


def test_making_and_this_run_are_two_figures() -> None:
    """A reused stage counts as what it took when it was made."""
    stages = {
        "base": MadeStage("base", "k", 20.0, True, {}),
        "expert-0": MadeStage("adapter", "l", 3.0, False, {}),
    }
    summary = summary_of(report(stages=stages, strategies={"elrea": {**ROW, "macro": 0.5}}))
    found = headline(summary, "elrea", 4.25)
    assert (found["seconds_making"], found["seconds_run"]) == (23.0, 4.25)
    assert headline(summary, "elrea")["seconds_run"] is None


def test_invalid_settings_are_one_line() -> None:
    with pytest.raises(ConfigError, match=r"tracking\.mode is 'ofline': choose offline, online"):
        Tracker(mode="ofline")
    with pytest.raises(ConfigError, match=r"tracking\.timeout"):
        Tracker(timeout=0)


def test_the_config_file_has_every_setting_at_its_default() -> None:
    path = Path(__file__).parents[2] / "conf" / "tracking" / "wandb.yaml"
    node: Any = OmegaConf.to_container(OmegaConf.load(path))
    assert node.pop("_target_") == "elrea.reporting.wandb.tracker.Tracker"
    assert node == dataclasses.asdict(Tracker())


def use(tracker: Tracker, folder: Path) -> None:
    """Makes every call that a job makes."""
    tracker.start({"seed": 0}, folder)
    tracker.curve("base", CURVE)
    tracker.table("results", ["a"], [[1]])
    tracker.images({"plot": folder / "plot.png"})
    tracker.summary({"n": 1})


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


class Fake:
    """A fake wandb module; `broken` maps names of its parts to functions that replace them."""

    def __init__(self, broken: dict[str, Any], logged_in: bool = True) -> None:
        self.broken, self.logged_in = broken, logged_in
        self.calls: list[str] = []
        self.modes: list[str] = []
        self.artifacts: list[tuple[str, str]] = []

    def part(self, name: str) -> None:
        self.calls.append(name)
        self.broken.get(name, lambda: None)()

    def Settings(self, **settings: Any) -> None:
        return None

    def setup(self, settings: Any) -> None:
        self.part("setup")

    def login(self, prompt: bool, verify: bool) -> bool:
        assert not prompt, "nobody may be asked for a key"
        return self.logged_in

    def Table(self, **content: Any) -> str:
        return "table"

    def Image(self, path: str) -> str:
        return path

    def Artifact(self, name: str, type: str, metadata: Any) -> Any:
        return SimpleNamespace(name=name, add_reference=lambda *_, **__: None)

    def kept(self, way: str, made: Any) -> None:
        self.part(way)
        self.artifacts.append((way, made.name))

    def init(self, **arguments: Any) -> Any:
        self.modes.append(arguments["mode"])
        self.part("init")
        return SimpleNamespace(
            dir=f"{arguments['dir']}/wandb/run/files",
            id=arguments["id"],
            url="",
            log=lambda row: self.part("log"),
            define_metric=lambda *names, **options: self.part("define_metric"),
            summary=SimpleNamespace(update=lambda values: self.part("summary")),
            finish=lambda exit_code: self.part("finish"),
            use_artifact=lambda made: self.kept("use_artifact", made),
            log_artifact=lambda made: self.kept("log_artifact", made),
        )


def test_the_ensemble_comes_from_the_stages_of_its_own_experts(tmp_path: Path) -> None:
    """Trained at twice the rate; those of another row, at rate 1, have the plain name."""
    (tmp_path / "ensemble.json").write_text("{}")
    names = {"base": "aa", "expert-0": "bb", "expert-x2.0-0": "cc", "clusters": "dd"}
    stages = {
        name: MadeStage("base" if name == "base" else "adapter", key, 1.0, False, {})
        for name, key in names.items()
    }
    adapters = {"base": Path("s/base/aa/adapter"), "expert-0": Path("s/adapter/cc/adapter")}
    members = Members(adapters, [], torch.zeros(1, 1), None, {})
    made = report(
        stages=stages, members=members, strategies={"base": ROW, "elrea": {**ROW, "macro": 0.5}}
    )
    tracker = MagicMock()
    log_run(tracker, made, {}, tmp_path)
    facts = tracker.artifact.call_args.args[3]
    assert tracker.artifact.call_args.args[0] == "ensemble"
    assert facts["members"] == ["base", "expert-0"]
    assert facts["upstream"] == {"base": "aa", "expert-x2.0-0": "cc", "clusters": "dd"}
