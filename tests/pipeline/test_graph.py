"""A new kind of stage is one class and one line: the plan, until=, the run and the advice follow from it."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from elrea.errors import ConfigError, ElreaError
from elrea.pipeline import graph
from elrea.pipeline.graph import graph_of
from elrea.pipeline.run import Pipeline
from elrea.pipeline.step import Step
from elrea.pipeline.steps.adapters import Adapter
from elrea.reporting.collect import needed_stages
from elrea.store.lock import Lease
from elrea.store.stage import Stage, Store
from tests.cli.test_keys import experiment
from tests.store.test_stage import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from elrea.pipeline.context import Context


@dataclass(frozen=True)
class Note(Step):
    """Writes down where the base adapter is."""

    kind: ClassVar[str] = "note"
    version: ClassVar[int] = 1
    oom_advice: ClassVar[str] = "nothing"

    @classmethod
    def of(cls, context: Context, clusters: int | None) -> Sequence[Step]:
        return [cls("note", ("base",))]

    def inputs(self, context: Context, upstream: Mapping[str, Stage]) -> dict[str, Any]:
        return {"base": upstream["base"].key}

    def make(self, context: Context, upstream: Mapping[str, Stage], folder: Path) -> None:
        (folder / "note.txt").write_text(upstream["base"].folder.name)


def test_a_new_stage_is_one_class_and_one_line(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = graph.ORDER
    monkeypatch.setattr(graph, "ORDER", (first, Note, *others))
    pipeline = Pipeline(experiment(small_model), Store(tmp_path))
    assert list(pipeline.graph.nodes)[:3] == ["base", "note", "features-train"]
    assert pipeline.graph.upstream("note") == {"base": pipeline.graph.keys["base"]}
    pipeline.run("note")
    stage = pipeline.graph.stages["note"]
    assert (stage.folder / "note.txt").read_text() == pipeline.graph.keys["base"]
    assert pipeline.reused == {"base": False, "note": False}


@contextmanager
def made_elsewhere(pipeline: Pipeline, name: str, until: Sequence[str]) -> Iterator[None]:
    """Holds a stage's lease until other stages are there, or for two minutes: a fault must not wait for ever."""
    stage = pipeline.graph.stages[name]
    lease = Lease(stage.folder.with_name(f"{stage.key}.lease"))
    lease.path.parent.mkdir(parents=True)
    assert lease.acquire(wait=False)
    folders = [pipeline.graph.stages[other].folder for other in until]

    def release() -> None:
        with suppress(AssertionError):  # the order of the stages shows it
            wait_for(lambda: all(folder.exists() for folder in folders), 120)
        lease.release()

    other = threading.Thread(target=release)
    other.start()
    yield
    other.join()


def test_what_another_process_is_making_comes_last(small_model: Path, tmp_path: Path) -> None:
    """A run does not wait for a stage as long as it has others to make that do not need it."""
    words = ["evaluation.strategies=[base,continued,compute_matched]", "ensemble=base"]
    pipeline = Pipeline(experiment(small_model, *words), Store(tmp_path))
    planned = list(pipeline.graph.nodes)
    assert planned.index("continued") < planned.index("compute-matched") < planned.index("scores")
    with made_elsewhere(pipeline, "continued", until=["compute-matched"]):
        assert pipeline.graph.stages["continued"].busy()
        pipeline.run()
    made = [name for name in pipeline.reused if name in ("continued", "compute-matched", "scores")]
    assert made == ["compute-matched", "continued", "scores"]


def rank_of(pipeline: Pipeline, name: str) -> int:
    step = pipeline.graph.nodes[name].step
    assert isinstance(step, Adapter)
    return step.spec.lora.r


def test_what_the_number_of_clusters_changes_waits_for_it(
    small_model: Path, tmp_path: Path
) -> None:
    """Else an adapter of rank C·r would be of the rank that was asked for, where fewer clusters are found."""
    words = ["evaluation.strategies=[base,compute_matched,parameter_matched,elrea]"]
    more = ["clustering.k=3", "clustering.min_size=12"]
    pipeline = Pipeline(experiment(small_model, *words, *more), Store(tmp_path))
    assert rank_of(pipeline, "parameter-matched") == 6
    with made_elsewhere(pipeline, "clusters", until=["compute-matched", "features-test"]):
        pipeline.run()
    nodes = pipeline.graph.nodes
    count = sum(name.startswith("expert-") for name in nodes)
    assert count < 3 and rank_of(pipeline, "parameter-matched") == 2 * count
    assert all(node.stage.done() for node in nodes.values())
    assert len(list((tmp_path / "adapter").iterdir())) == 2 + count
    made = list(pipeline.reused)
    assert made.index("compute-matched") < made.index("clusters") < made.index("parameter-matched")


def test_memory_that_runs_out_names_the_stage(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Note, "make", fail)
    monkeypatch.setattr(graph, "ORDER", (graph.ORDER[0], Note))
    with pytest.raises(ElreaError, match=r"^note: out of memory; lower nothing"):
        Pipeline(experiment(small_model), Store(tmp_path)).run()


def test_every_step_comes_after_all_that_it_reads(small_model: Path, tmp_path: Path) -> None:
    words = ["routing=distilled", "evaluation.by=generation", "evaluation.strategies=[all]"]
    made = graph_of(experiment(small_model, *words), Store(tmp_path))
    seen: set[str] = set()
    assert len(made.nodes) > 40
    for name, node in made.nodes.items():
        assert set(made.upstream(name)) <= seen, name
        assert list(node.upstream) == list(node.step.upstream)
        seen.add(name)


def test_keys_hold_the_keys_of_all_that_is_read(small_model: Path, tmp_path: Path) -> None:
    """Else a stage would be reused that was made of something else."""
    words = ["routing=distilled", "evaluation.by=generation", "evaluation.strategies=[all]"]
    made = graph_of(experiment(small_model, *words), Store(tmp_path))
    for name, node in made.nodes.items():
        through = str(node.stage.inputs) + "".join(str(s.inputs) for s in node.upstream.values())
        for other, key in made.upstream(name).items():
            assert key in through, f"{name} reads {other}"


def test_until_of_an_unknown_stage(small_model: Path, tmp_path: Path) -> None:
    pipeline = Pipeline(experiment(small_model), Store(tmp_path))
    with pytest.raises(
        ConfigError, match=r"^until=cluster: no such stage; did you mean clusters\?"
    ):
        pipeline.check("cluster")


def test_what_each_strategy_needs_before_it_can_answer(small_model: Path, tmp_path: Path) -> None:
    """So that training costs a strategy its own stages: not another one's, and not the scoring."""
    words = ["routing=distilled", "evaluation.strategies=[all]", "clustering.k=2"]
    made = graph_of(experiment(small_model, *words), Store(tmp_path))
    needed = needed_stages(made)
    grouped = {"base", "features-train", "clusters"}
    experts = {*grouped, "expert-0", "expert-1"}
    wanted = {
        "backbone": set(),
        "base": {"base"},
        "uniform": experts,
        "elrea": {*experts, "router"},
        "elrea_top1": {*experts, "router"},
        "mole": {*experts, "gates-mole"},
        "random_cluster": {*grouped, "random-0", "random-1"},
        "compute_matched": {"compute-matched"},
        "continued": {"base", "continued"},
    }
    assert {name: needed[name] for name in wanted} == wanted
    assert needed["instruction_embedding"] == {
        "base", *(f"instruction_embedding/{n}" for n in ("features-train", "clusters", "expert-0", "expert-1")),
    }  # fmt: skip
    scoring = ("scores", "answers", "features-test", "routing")
    assert not {n for names in needed.values() for n in names if n.rpartition("/")[2].startswith(scoring)}  # fmt: skip
    assert set(needed) == {
        name for each in made.branches for name in each.context.experiment.strategies
    }
