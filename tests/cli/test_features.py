"""Embeddings in place of gradients, and a number of clusters that shows on the way."""

from __future__ import annotations

from pathlib import Path

from tests.cli.commands import EXAM, QUIET, Ended, run


def test_embeddings_and_an_open_number_of_clusters(tiny: list[str], tmp_path: Path) -> None:
    own = [word for word in tiny if not word.startswith(("features.", "clustering."))]
    words = [*own, *EXAM, QUIET, "features=embedding", "clustering.k=auto", "clustering.min_size=2"]
    words += ["clustering.candidates=[2,3]", f"store={tmp_path / 'store'}"]
    first = run(tmp_path, *words)
    assert (first.code, first.err) == (0, "")
    assert [line.split()[0] for line in first.out.splitlines() if line.strip().endswith("to do")] == [
        "base", "features-train", "clusters", "expert-*", "features-test", "scores",
    ]  # fmt: skip
    found = len(first.summary["clusters"]["sizes"])
    assert found in (2, 3)
    stages = list(first.summary["stages"])
    assert [name for name in stages if name.startswith("expert-")] == [
        f"expert-{c}" for c in range(found)
    ]
    # A pass for the embedding, and one per member.
    assert first.summary["strategies"]["elrea"]["forward_passes"] == 2 + found
    again = run(tmp_path, *words)
    assert again.code == 0 and "to do" not in again.out
    assert again.summary["strategies"] == first.summary["strategies"]


def test_two_processes_share_the_features(whole: Ended, words: list[str], tmp_path: Path) -> None:
    own = [word for word in words if not word.startswith("store=")]
    shared = run(tmp_path, *own, QUIET, f"store={tmp_path / 'store'}", "trainer.devices=2")
    assert (shared.code, shared.err) == (0, "")
    assert "process" not in shared.out, "nothing of Lightning's remarks"
    assert shared.summary["strategies"] == whole.summary["strategies"]
    for stage in ("features-train", "features-test"):
        assert shared.summary["stages"][stage]["key"] == whole.summary["stages"][stage]["key"]


def test_adapters_without_clusters_need_no_features(tiny: list[str], tmp_path: Path) -> None:
    names = "evaluation.strategies=[base,seed_ensemble,lora_ensembles,continued]"
    ended = run(tmp_path, *tiny, *EXAM, QUIET, names, "ensemble=base", "clustering.k=2")
    assert (ended.code, ended.err) == (0, "")
    rows = ended.summary["strategies"]
    passes = {name: row["forward_passes"] for name, row in rows.items()}
    assert passes == {"base": 1, "seed_ensemble": 3, "lora_ensembles": 4, "continued": 1}
    assert set(ended.summary["stages"]) == {
        "base", "seed-1", "seed-2", "seed-3", "continued", "scores",
    }  # fmt: skip
