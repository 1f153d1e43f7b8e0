"""`until=`: one stage and what it stands on, for jobs that come after."""

from __future__ import annotations

from pathlib import Path

from elrea.pipeline.until import needed
from tests.cli.commands import QUIET, run

ORDER = [
    "base", "features-train", "clusters", "router", "routing", "expert-0", "expert-1", "gates-mole",
    "features-test", "scores",
]  # fmt: skip


def made(store: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for path in store.glob("*/*/manifest.json"):
        found[path.parent.parent.name] = found.get(path.parent.parent.name, 0) + 1
    return found


def test_what_a_stage_stands_on() -> None:
    def chain(until: str) -> list[str]:
        return [name for name in ORDER[: ORDER.index(until) + 1] if needed(name, until)]

    assert chain("base") == ["base"]
    assert chain("clusters") == ["base", "features-train", "clusters"]
    assert chain("expert-1") == ["base", "features-train", "clusters", "expert-1"]
    assert chain("features-test") == ["base", "features-test"]
    assert chain("routing") == ["base", "features-train", "clusters", "router", "routing"]
    assert chain("scores") == ORDER
    assert chain("gates-mole") == ORDER[: ORDER.index("gates-mole") + 1]


def test_jobs_share_out_the_work_of_one_run(words: list[str], tmp_path: Path) -> None:
    store = tmp_path / "store"
    command = [*words, f"store={store}", QUIET]
    ended = run(tmp_path, *command, "until=clusters")
    assert (ended.code, ended.err) == (0, "")
    assert "clusters is made, in the store" in ended.out
    assert made(store) == {"base": 1, "features": 1, "clusters": 1}
    ended = run(tmp_path, "-m", *command, "until=expert-1,features-test")
    assert (ended.code, ended.err) == (0, "")
    assert made(store) == {"base": 1, "features": 2, "clusters": 1, "adapter": 1}
    assert "2 of 2 jobs are done" in ended.out and "prepared" in ended.out
    ended = run(tmp_path, *command)
    assert (ended.code, ended.err) == (0, "")
    plan = [line.strip() for line in ended.out.splitlines()]
    assert [line.split()[0] for line in plan if line.endswith("to do")] == ["expert-0", "scores"]


def test_a_stage_that_there_is_not(words: list[str], tmp_path: Path) -> None:
    ended = run(tmp_path, *words, QUIET, "until=cluster", "plan=true")
    assert ended.error.startswith(
        "until=cluster: no such stage; did you mean clusters? (there is: "
    )
    ended = run(tmp_path, *words, QUIET, "until=expert-9")
    assert "until=expert-9: no such stage" in ended.error
