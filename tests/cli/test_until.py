"""`until=`: one stage and what it stands on, for jobs that come after."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from sklearn.metrics import normalized_mutual_info_score

from elrea.method.clustering.assignment import read_clusters
from elrea.pipeline.graph import graph_of
from elrea.store.stage import Store
from elrea.store.uses import recorded_uses
from tests.cli.commands import QUIET, Ended, run
from tests.cli.test_keys import experiment


def made(store: Path) -> dict[str, int]:
    """How many of each kind of stage the store has; the rehearsal is none."""
    found = Counter(path.parent.parent.name for path in store.glob("*/*/manifest.json"))
    return {name: count for name, count in found.items() if name != "rehearsal"}


def test_a_run_until_a_stage_makes_what_is_upstream_of_it(
    small_model: Path, tmp_path: Path
) -> None:
    words = ["routing=distilled", "evaluation.strategies=[base,elrea,mole,seed_ensemble]"]
    graph = graph_of(experiment(small_model, *words), Store(tmp_path))
    order = list(graph.nodes)

    def chain(until: str) -> list[str]:
        return [name for name in order if name in graph.needed(until)]

    clusters = ["base", "features-train", "clusters"]
    assert chain("base") == ["base"]
    assert chain("clusters") == clusters
    assert chain("expert-1") == [*clusters, "expert-1"]
    assert chain("features-test") == ["base", "features-test"]
    assert chain("routing") == [*clusters, "router", "routing"]
    assert chain("seed-1") == ["seed-1"], "it starts fresh"
    assert chain("gates-mole") == [*clusters, "expert-0", "expert-1", "gates-mole"]
    assert set(chain("scores")) == set(order) - {"features-test"}, "which only judges the router"


def test_until_is_known_before_data_is_here(tmp_path: Path) -> None:
    """`until=router` used to be refused as no such stage while the data was not here."""
    words = ["+experiment=elrea_math", "scale=paper", "plan=true", "hydra.run.dir=out"]
    for until in ("router", "routing"):
        ended = run(tmp_path, *words, "routing=distilled", f"until={until}")
        assert (ended.code, ended.err) == (0, "")
        assert "router" in ended.out and "scores" not in ended.out
    ended = run(tmp_path, *words, "until=router")
    assert ended.error.startswith("until=router: no such stage"), "routed by gradient"
    for until in ("expert-3", "answers-elrea", "gates-mole"):
        ended = run(tmp_path, *words, f"until={until}")
        assert (ended.code, ended.err) == (0, ""), until
    assert "gates-" in ended.out and "answers-" not in ended.out


def says_the_figures(ended: Ended, store: Path, boards: list[str]) -> None:
    """Of the clusters, against scikit-learn on the assignment and the training examples' boards."""
    (path,) = store.glob("clusters/*/quality.json")
    said = {
        line.split("  ")[0].strip(): line.split()[-1] for line in ended.out.splitlines() if line
    }
    found = read_clusters(path.parent)["assignment"].tolist()
    nmi = normalized_mutual_info_score(boards, found)
    assert said["agreement with the sources (NMI)"] == f"{nmi:.3f}"
    sizes = sorted(Counter(found).values(), reverse=True)
    (line,) = (line for line in ended.out.splitlines() if "training examples in each" in line)
    assert line.split("each")[1].strip() == ", ".join(map(str, sizes))
    assert f"are in {os.path.relpath(path, ended.folder)}" in ended.out
    assert max(len(line) for line in ended.out.splitlines() if str(store) not in line) <= 100


def test_jobs_share_out_the_work_of_one_run(
    words: list[str], small_model: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    command = [*words, f"store={store}", QUIET]
    ended = run(tmp_path, *command, "until=clusters")
    assert (ended.code, ended.err) == (0, "")
    assert "clusters is made, in the store" in ended.out
    assert made(store) == {"base": 1, "features": 1, "clusters": 1}
    (use,) = recorded_uses(store)
    assert use.run == tmp_path / "out" and {"base", "clusters", "expert-0"} <= set(use.stages)
    says_the_figures(ended, store, [e.source for e in experiment(small_model).corpus.train])
    ended = run(tmp_path, "-m", *command, "until=expert-1,features-test")
    assert (ended.code, ended.err) == (0, "")
    assert made(store) == {"base": 1, "features": 2, "clusters": 1, "adapter": 1}
    assert "2 of 2 jobs are done" in ended.out and "prepared" in ended.out
    ended = run(tmp_path, *command)
    assert (ended.code, ended.err) == (0, "")
    plan = [line.strip() for line in ended.out.splitlines()]
    assert [line.split()[0] for line in plan if line.endswith("to do")] == ["expert-0", "scores"]


def test_a_plan_ends_with_the_stage(words: list[str], tmp_path: Path) -> None:
    """Later stages are neither listed nor timed."""
    mine = f"store={tmp_path / 'store'}"  # in a shared one stages may be there already
    ended = run(tmp_path, *words, QUIET, mine, "until=clusters", "plan=true")
    assert (ended.code, ended.err) == (0, "")
    planned = [line.split()[0] for line in ended.out.splitlines() if line.endswith("to do")]
    assert planned == ["base", "features-train", "clusters"]
    assert "Expected of the whole run; time up to clusters" in ended.out


def test_a_stage_that_there_is_not(words: list[str], tmp_path: Path) -> None:
    ended = run(tmp_path, *words, QUIET, "until=cluster", "plan=true")
    assert ended.error.startswith(
        "until=cluster: no such stage; did you mean clusters? (there is: "
    )
    ended = run(tmp_path, *words, QUIET, "until=expert-9")
    assert "until=expert-9: no such stage" in ended.error
