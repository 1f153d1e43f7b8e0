"""`python run.py -m ...`: jobs share stages, fail independently, and are not repeated."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from elrea.commands.jobs.sweep import (
    Record,
    claim_default_folder,
    claim_named_folder,
    failures,
    hint,
)
from elrea.errors import ConfigError
from elrea.reporting.sweep_report import draw_sweep, row_keys, seed_means
from elrea.reporting.sweeps import as_csv, read_jobs, setting_keys, varied_values
from tests.cli.commands import QUIET, Command, Ended, run

SWEPT = ["clustering.k=2,100", "seed=0", QUIET]


@pytest.fixture(scope="module")
def swept(whole: Ended, words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A sweep of two jobs on the whole run's store; the second has too few examples and fails."""
    assert whole.code == 0
    return run(tmp_path_factory.mktemp("swept"), "-m", *words, *SWEPT, plots=True)


def folder_of(ended: Ended) -> Path:
    (path,) = ended.folder.glob("multirun/*/*")
    return path


def status(ended: Ended, job: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder_of(ended) / f"{job}" / "status.json").read_text())
    return found


def test_a_job_that_fails_leaves_its_siblings_running(swept: Ended, whole: Ended) -> None:
    assert swept.code == 1
    why = "32 training examples cannot make clustering.k=100 clusters; lower it or give more data"
    assert swept.err == f"job 1 failed: {why}\n"
    assert (status(swept, 0)["state"], status(swept, 1)["state"]) == ("done", "failed")
    assert status(swept, 1)["error"] == why
    summary = json.loads((folder_of(swept) / "0" / "summary.json").read_text())
    assert summary["strategies"] == whole.summary["strategies"]
    assert all(stage["reused"] for stage in summary["stages"].values())


def test_the_last_table_lists_failed_jobs_with_their_errors(swept: Ended) -> None:
    table = swept.out[swept.out.index("\nJobs") :]
    assert [line.split()[:4] for line in table.splitlines() if line[:3].strip().isdigit()] == [
        ["0", "2", "elrea", table.splitlines()[4].split()[3]],
        ["1", "100", "elrea", "failed"],
    ]
    assert f"job 1 failed: {status(swept, 1)['error']}" in " ".join(table.split())
    folder = folder_of(swept).relative_to(swept.folder)
    last = "1 of 2 jobs are done; mend what failed, and run the command again\nEverything is in"
    assert f"{last} {folder}\n" in table
    assert max(map(len, table.splitlines())) <= 100


def test_a_reason_that_several_jobs_share_is_one_line() -> None:
    states = [("failed", "no space"), ("done", ""), ("failed", "no space"), ("failed", "other")]
    jobs = [{"number": n, "state": s, "error": e} for n, (s, e) in enumerate(states)]
    assert failures([*jobs, {"number": 4, "state": "stopped"}]) == [
        "jobs 0, 2 failed: no space",
        "job 3 failed: other",
        "job 4 stopped: killed",
    ]


@pytest.mark.parametrize(
    ("states", "said"),
    [
        (["done", "prepared"], ""),
        (["done", "stopped", "running"], "; run the same command again to resume the others"),
        (["done", "stopped", "failed"], "; mend what failed, and run the command again"),
    ],
)
def test_a_job_that_failed_is_to_be_mended_first(states: list[str], said: str) -> None:
    assert hint([{"state": state} for state in states]) == said


def test_sweep_csv_has_a_row_per_job_and_strategy(swept: Ended, whole: Ended) -> None:
    with (folder_of(swept) / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["clustering.k"] for row in rows] == ["2"] * 5 + ["100"]
    for row in rows[:5]:
        known = whole.summary["strategies"][row["strategy"]]
        assert float(row["accuracy"]) == known["accuracy"]
    assert (rows[5]["state"], rows[5]["strategy"], rows[5]["accuracy"]) == ("failed", "", "")


def test_reports_are_self_contained(swept: Ended) -> None:
    """Each is one file with its pictures inside; it has no script, fetches nothing and escapes all text."""
    folder = folder_of(swept)
    sweep, job = ((folder / name / "report.html").read_text() for name in ("", "0"))
    for page in (sweep, job):
        assert "<script" not in page and "http://" not in page and "https://" not in page
        assert page.count("src=") == page.count('src="data:image/png;base64,') > 0
        assert "default-src 'none'" in page
    assert "python run.py -m +experiment=elrea_mmlu" in sweep and "clustering.k=2,100" in sweep
    assert "failed: 32 training examples cannot" in sweep and 'href="0/report.html"' in sweep
    assert not (folder / "1" / "report.html").exists()
    shown = json.loads((folder / "0" / "summary.json").read_text())["strategies"]["elrea"]
    assert f'<td class="number">{100 * shown["accuracy"]:.1f}</td>' in job
    assert job.count("<figure>") == 6, "accuracy, subjects, clusters, features, routing, training"


def test_the_same_command_again_skips_finished_jobs(swept: Ended, words: list[str]) -> None:
    before = (folder_of(swept) / "0" / "summary.json").stat().st_mtime_ns
    again = run(swept.folder, "-m", *words, *SWEPT)
    assert (again.code, again.err) == (1, swept.err)
    assert folder_of(again) == folder_of(swept), "a new folder was made"
    assert (folder_of(swept) / "0" / "summary.json").stat().st_mtime_ns == before
    assert "Job 0 is done already: multirun/" in again.out
    status_file = folder_of(swept) / "0" / "status.json"
    status_file.write_text(status_file.read_text().replace('"key": "', '"key": "0'))
    changed = run(swept.folder, "-m", *words, *SWEPT)
    assert "is done already" not in changed.out, "its key differs"
    assert status(changed, 0)["state"] == "done"


def test_a_stopped_sweep_is_resumed(words: list[str], tmp_path: Path) -> None:
    """Ctrl-C while the second job trains: exit code 130 and one line; then only the second job is resumed."""
    line = ["-m", *words, "seed=0,7", QUIET, f"store={tmp_path / 'store'}"]

    def second_trains() -> bool:
        return len(list(tmp_path.glob("store/base/*.partial"))) == 1 and any(
            '"done"' in path.read_text() for path in tmp_path.glob("multirun/*/*/0/status.json")
        )

    stopped = Command(tmp_path, *line).signal_when(second_trains, signal.SIGINT)
    assert stopped.code == 130 and stopped.err.count("\n") == 1
    assert (status(stopped, 0)["state"], status(stopped, 1)["state"]) == ("done", "stopped")
    ended = run(tmp_path, *line)
    assert (ended.code, ended.err) == (0, "")
    assert "Job 0 is done already" in ended.out and "Job 1 is done" not in ended.out
    assert "2 of 2 jobs are done\nEverything is in" in ended.out
    assert "Over seeds" in ended.out, "two seeds of one setting"
    assert status(ended, 1)["state"] == "done"


def test_two_sweeps_of_one_command_at_once_have_a_folder_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, lock = claim_default_folder(["a=1,2"])
    second, other = claim_default_folder(["a=1,2"])
    assert first != second
    lock.release()
    assert claim_default_folder(["a=1,2"])[0] == first, "the lock was released"
    other.release()
    assert claim_default_folder(["a=1,3"])[0] not in (first, second)
    (tmp_path / "multirun" / first / "sweep.json").write_text("{")
    assert claim_default_folder(["a=1,2"])[0] == second, "a damaged sweep.json is skipped"


def test_a_named_folder_holds_one_sweep(tmp_path: Path) -> None:
    """The same command resumes it; a different one would overwrite its jobs or mix both in one table."""
    (tmp_path / "0").mkdir()
    claim_named_folder(tmp_path, ["a=1,2", "plan=true"]).release()
    lease = claim_named_folder(tmp_path, ["a=1,2,3"])  # it has no jobs yet
    with pytest.raises(ConfigError, match="another process is running this sweep"):
        claim_named_folder(tmp_path, ["a=1,2,3"])
    lease.release()
    (tmp_path / "0" / "status.json").write_text("{}")
    for words in (["a=1,2,3"], ["a=1,2,3", "plan=true"], ["a=1,2,3", "until=base"], ["a=1,2,3"]):
        claim_named_folder(tmp_path, words).release()
    for words in (["a=1,2"], ["a=1,2,3", "b=1"], ["b=1", "a=1,2,3"], []):
        with pytest.raises(ConfigError, match="has jobs of a different sweep; name another"):
            claim_named_folder(tmp_path, words)
    assert json.loads((tmp_path / "sweep.json").read_text()) == {"overrides": ["a=1,2,3"]}


def test_a_named_folder_without_sweep_json(tmp_path: Path) -> None:
    """Its overrides are read from Hydra's multirun.yaml, if there is one."""
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "status.json").write_text("{}")
    with pytest.raises(ConfigError, match="has jobs of a different sweep"):
        claim_named_folder(tmp_path, ["a=1,2"])
    text = "hydra: {overrides: {task: ['a=1,2', 'b=${oc.env:NOWHERE}']}, x: '${now:}'}"
    (tmp_path / "multirun.yaml").write_text(text)
    with pytest.raises(ConfigError, match="has jobs of a different sweep"):
        claim_named_folder(tmp_path, ["a=1,2"])
    claim_named_folder(tmp_path, ["a=1,2", "b=${oc.env:NOWHERE}"]).release()
    assert (tmp_path / "sweep.json").is_file()


@pytest.mark.parametrize("debug", [False, True])
def test_a_different_sweep_in_a_used_folder_is_refused(tmp_path: Path, debug: bool) -> None:
    """Before any job starts, with debug=true too: Hydra alone would only warn and continue."""
    (tmp_path / "out" / "0").mkdir(parents=True)
    (tmp_path / "out" / "0" / "status.json").write_text("{}")
    (tmp_path / "out" / "sweep.json").write_text('{"overrides": ["seed=0,1,2"]}')
    ended = run(tmp_path, "-m", "seed=0,1", "hydra.sweep.dir=out", *["debug=true"] * debug)
    said = "hydra.sweep.dir=out: has jobs of a different sweep; name another folder, or"
    assert ended.code == 1 and said in ended.err.splitlines()[-1]
    assert debug or said in ended.error
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"0", "sweep.json"}
    assert (tmp_path / "out" / "0" / "status.json").read_text() == "{}"


def test_the_record_of_a_job(tmp_path: Path) -> None:
    folder = tmp_path / "sweep" / "0"
    folder.mkdir(parents=True)
    (folder / ".status.json.1.tmp").write_text("{")
    with Record(folder, {"words": [], "chosen": "elrea"}) as record:
        record.begin("k")
        assert [path.name for path in folder.iterdir()] == ["status.json"]
        assert read_jobs(tmp_path / "sweep")[0]["state"] == "running"
        assert not record.finished("k")
        (folder / "summary.json").write_text('{"strategies": {}}')
        record.end("k")
    assert record.finished("k") and not record.finished("l")
    with pytest.raises(ZeroDivisionError), record:
        raise ZeroDivisionError("by\nnought")
    (job,) = read_jobs(tmp_path / "sweep")
    assert (job["state"], job["error"]) == ("failed", "ZeroDivisionError: by nought")


def test_no_cell_of_sweep_csv_is_a_formula() -> None:
    job = {"number": "0", "state": "failed", "seconds": 1.5, "strategies": {}, "chosen": "elrea"}
    jobs = [{**job, "words": ["+experiment=x", f"data.train={name}"]} for name in ("=1+1", "@a", "-b")]  # fmt: skip
    assert varied_values(jobs) == {"data.train": ["=1+1", "@a", "-b"]}
    cells = [row.split(",")[1] for row in as_csv(jobs).splitlines()]
    assert cells == ["data.train", "'=1+1", "'@a", "'-b"]
    numbers = [{**job, "words": [f"seed={seed}"]} for seed in ("-1", "2")]
    assert [row.split(",")[1] for row in as_csv(numbers).splitlines()] == ["seed", "-1", "2"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("status.json", "[]"),
        ("status.json", '{"state": "done"}'),
        ("status.json", "[" * 100_000),
        ("summary.json", '{"strategies": {}} '),
        ("summary.json", '{"strat'),
        ("summary.json", None),
    ],
)
def test_a_job_with_changed_files_is_damaged(
    name: str, content: str | None, tmp_path: Path
) -> None:
    """It is listed as damaged, does not count as done, and the same command makes it again."""
    folder = tmp_path / "0"
    with Record(folder, {"words": [], "chosen": "elrea"}) as record:
        record.begin("k")
        (folder / "summary.json").write_text('{"strategies": {}}')
        record.end("k")
    assert read_jobs(tmp_path)[0]["state"] == "done" and record.finished("k")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    (job,) = read_jobs(tmp_path)
    assert job["state"] == "damaged" and name in job["error"] and not record.finished("k")


def test_errors_outside_the_jobs_are_one_line(
    swept: Ended, words: list[str], tmp_path: Path
) -> None:
    """Hydra alone would only warn, and exit with 0."""
    (folder_of(swept) / "sweep.csv").unlink()
    (folder_of(swept) / "sweep.csv").mkdir()
    ended = run(swept.folder, "-m", *words, *SWEPT)
    assert ended.code == 1 and "sweep.csv: Is a directory" in ended.err.splitlines()[-1]
    (folder_of(swept) / "sweep.csv").rmdir()
    (tmp_path / "multirun").write_text("")
    ended = run(tmp_path, "-m", *words, *SWEPT)
    assert ended.error.startswith("multirun")


def test_means_over_seeds() -> None:
    """Jobs of two settings and two seeds; two jobs that differ only in `ensemble=` count once."""

    def job(number: int, k: int, seed: int, ensemble: str, accuracy: float) -> dict[str, Any]:
        row = {"accuracy": accuracy, "delta_to_base": accuracy - 0.5, "forward_passes": k + 1}
        words = [f"clustering.k={k}", f"seed={seed}", f"ensemble={ensemble}"]
        strategies = {"base": {**row, "accuracy": 0.5, "delta_to_base": None}, "elrea": row}
        return {"number": str(number), "words": words, "strategies": strategies}

    jobs = [
        job(0, 2, 0, "elrea", 0.6), job(1, 2, 1, "elrea", 0.8), job(2, 4, 0, "elrea", 0.7),
        job(3, 2, 0, "uniform", 0.6),
    ]  # fmt: skip
    assert setting_keys(varied_values(jobs)) == ["clustering.k"]
    rows = {(row["group"], row["strategy"]): row for row in seed_means(jobs)}
    assert set(rows) == {(("2",), "base"), (("2",), "elrea"), (("4",), "base"), (("4",), "elrea")}
    two = rows[("2",), "elrea"]
    assert (two["seeds"], two["accuracy_seeds"], two["passes"]) == (2, (0.6, 0.8), 3)
    assert two["accuracy"] == pytest.approx(0.7) and two["delta"] == pytest.approx(0.2)
    assert rows[("2",), "base"]["delta"] is None


def seeded(number: int, k: str, seed: int, accuracies: dict[str, float]) -> dict[str, Any]:
    strategies = {
        name: {
            "accuracy": accuracy, "ci95": [accuracy - 0.1, accuracy + 0.2], "forward_passes": 1.0,
            "delta_to_base": None if name == "base" else accuracy - accuracies["base"],
            "delta_ci95": None if name == "base" else [0.01 * seed, 0.03 * seed],
        }
        for name, accuracy in accuracies.items()
    }  # fmt: skip
    words = [f"clustering.k={k}", f"seed={seed}"]
    return {"number": str(number), "words": words, "strategies": strategies}


JOBS = [
    seeded(0, "2", 1, {"base": 0.5, "elrea": 0.6, "uniform": 0.5}),
    seeded(1, "2", 3, {"base": 0.6, "elrea": 0.8, "uniform": 0.7}),
    seeded(2, "4", 1, {"base": 0.5, "elrea": 0.7}),
]


def test_without_the_answers_several_seeds_have_no_interval() -> None:
    """The mean of the seeds' intervals is none: it says nothing about other seeds."""
    rows = {(*row["group"], row["strategy"]): row for row in seed_means(JOBS)}
    two = rows["2", "elrea"]
    assert two["accuracy_ci95"] is None is two["delta_ci95"] is two["training"]
    assert two["delta_seeds"] == pytest.approx((0.1, 0.2))
    assert rows["4", "elrea"]["accuracy_ci95"] == pytest.approx((0.6, 0.9)), "one seed has its own"
    assert rows["2", "base"]["delta_ci95"] is rows["2", "base"]["delta_seeds"] is None


def test_without_the_base_adapter_there_is_no_difference() -> None:
    job = seeded(0, "2", 1, {"base": 0.5, "elrea": 0.6})
    del job["strategies"]["base"]
    (row,) = seed_means([job])
    assert row["delta"] is row["delta_seeds"] is row["delta_ci95"] is None


@pytest.mark.parametrize(
    ("words", "pictures"),
    [
        (["clustering.k=2", "seed=1"], {"cost", "trend", "gain"}),
        (["seed=1"], {"cost", "accuracy"}),
        (["data=exam", "seed=1"], {"cost"}),
    ],
)
def test_which_pictures_a_sweep_has(words: list[str], pictures: set[str], tmp_path: Path) -> None:
    other = [word.replace("=2", "=4").replace("exam", "mmlu") for word in words[:-1]] + ["seed=3"]
    jobs = [{**JOBS[0], "words": words}, {**JOBS[1], "words": other}]
    draw_sweep(seed_means(jobs), row_keys(jobs), tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == pictures
