"""Parts from outside the project: docs/extending.md's own text at work, and what may not bring code along.

The blocks of that page whose first line names a file become these files, in an empty folder.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from elrea.commands.jobs.job import HydraTask
from elrea.errors import ElreaError
from tests.cli.commands import EXAM, QUIET, ROOT, TINY, Ended, run, run_code

PAGE = ROOT / "docs" / "extending.md"
BLOCK = re.compile(r"^```(?:python|yaml)\n# ((?:mypkg|mine)/\S+)\n(.*?)^```$", re.M | re.S)
OUTSIDE = ["--config-dir", "mine", "plugins=[mypkg]"]
CHOICES = [
    "data=larger", "features=token_counts", "clustering=halves", "routing=raw_cosines", "ensemble=nearest",
    "evaluation.strategies=[base,elrea,elrea_top2,nearest]", "evaluation.max_new_tokens=4",
]  # fmt: skip
PARTS = {
    "nearest", "halves", "token_counts", "fold", "raw_cosines", "first_word", "larger",
}  # fmt: skip

USE = """
import json, logging, sys
logging.basicConfig(format="%(message)s")
from elrea import Ensemble, plugins
from elrea.errors import ElreaError
from elrea.models.device import Device

folder, backbone, *allowed = sys.argv[1:]
plugins.allow(allowed)
try:
    ensemble = Ensemble.load(folder, backbone=backbone, device=Device("cpu", threads=1))
except ElreaError as error:
    print(json.dumps({"error": str(error), "imported": "mypkg" in sys.modules}))
    sys.exit()
(route,) = ensemble.route(["Which is larger, 3 or 4?"])
print(json.dumps({
    "features": repr(ensemble.saved.features), "router": repr(ensemble.saved.router), "cosines": route.cosines,
    "weights": list(route.weights.values()),
}))
"""


def lay_out(folder: Path) -> Path:
    """Writes the page's files."""
    for name, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def told(folder: Path, *words: str) -> tuple[dict[str, Any], str]:
    """What `USE` prints in a folder, with that folder on Python's path, and what it says on stderr."""
    done = run_code(folder, USE, *words)
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found, done.err


@pytest.fixture(scope="module")
def of_page(small_model: Path) -> list[str]:
    mine = [word for word in TINY if not word.startswith(("features.", "clustering."))]
    return ["+experiment=elrea_mmlu", *mine, QUIET, f"backbone.name={small_model}"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, of_page: list[str]) -> Ended:
    """A run of all the page's parts at once."""
    folder = lay_out(tmp_path_factory.mktemp("outside"))
    ended = run(folder, *of_page, *OUTSIDE, *CHOICES)
    assert (ended.code, ended.err) == (0, "")
    return ended


def test_the_page_has_a_whole_example_of_every_part(tmp_path: Path) -> None:
    lay_out(tmp_path)
    assert {path.stem for path in (tmp_path / "mypkg").iterdir()} == PARTS
    for path in (tmp_path / "mypkg").iterdir():
        assert len(path.read_text().splitlines()) <= 45, f"{path}: about 30 lines are enough"
    named = {str(p.relative_to(tmp_path / "mine")) for p in (tmp_path / "mine").rglob("*.yaml")}
    assert named == {
        "ensemble/nearest.yaml", "ensemble/elrea_top2.yaml", "clustering/halves.yaml", "features/token_counts.yaml",
        "features/projection/fold.yaml", "routing/raw_cosines.yaml", "data/larger.yaml",
    }  # fmt: skip


def test_the_pages_parts_train_and_score(trained: Ended) -> None:
    assert set(trained.summary["strategies"]) == {"base", "elrea", "elrea_top2", "nearest"}
    assert {"clusters", "expert-0", "expert-1", "answers-nearest"} <= set(trained.summary["stages"])
    rows = [json.loads(row) for row in (trained.folder / "out/predictions.jsonl").open()]
    assert {row["strategies"]["nearest"]["why"] for row in rows} <= {"the first word", "no word"}
    inputs = {
        path.parent.parent.name: json.loads(path.read_text())["inputs"]
        for path in (trained.folder / ".elrea").glob("*/*/manifest.json")
    }
    for stage, key, name in (
        ("features", "features", "token_counts.TokenCounts"),
        ("clusters", "clustering", "halves.Halves"),
        ("scores", "router", "raw_cosines.RawCosines"),
    ):
        assert re.fullmatch(rf"mypkg\.{name}@[0-9a-f]{{64}}", inputs[stage][key]["class"])
    assert re.fullmatch(r"mypkg\.fold\.Fold@\w+", inputs["features"]["features"]["projection"]["class"])  # fmt: skip
    assert list(inputs["scores"]["plugin_judges"]) == ["mypkg.first_word"]
    assert inputs["scores"]["strategies"]["elrea"]["class"] == "Elrea"


def test_a_changed_plugin_is_another_key(
    trained: Ended, of_page: list[str], tmp_path: Path
) -> None:
    """Stages that the plugin takes part in are to be made again; the base adapter is found."""
    shutil.copytree(trained.folder, tmp_path, dirs_exist_ok=True)
    with (tmp_path / "mypkg" / "halves.py").open("a") as file:
        file.write("# another version\n")
    plan = run(
        tmp_path, *of_page, *OUTSIDE, *CHOICES, "plan=true", f"store={trained.folder}/.elrea"
    )
    assert (plan.code, plan.err) == (0, "")
    states = {line.split()[0]: line.split()[-1] for line in plan.out.splitlines() if line.split()}
    assert states["base"] == states["answers-base"] == "reused"
    assert "reused" not in {states[name] for name in ("features-train", "clusters", "scores")}


def test_an_exported_ensemble_runs_only_what_is_allowed(
    trained: Ended, small_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained.folder, tmp_path, dirs_exist_ok=True)
    where = (str(tmp_path / "out" / "ensemble"), str(small_model))
    refused, _ = told(tmp_path, *where)
    assert not refused["imported"] and "--plugins mypkg" in refused["error"]
    assert "\n" not in refused["error"]

    used, said = told(tmp_path, *where, "mypkg")
    assert used["features"].startswith("TokenCounts(projection=Fold(d=24)") and not said
    assert used["router"] == "RawCosines(temperature=1.0, renormalise=True, sharpness=4.0)"
    base, *experts = used["weights"]
    assert base == pytest.approx(1 - max(used["cosines"]), abs=1e-6)
    ratio = 2.718281828 ** (4 * (used["cosines"][0] - used["cosines"][1]))
    assert experts[0] / experts[1] == pytest.approx(ratio, rel=1e-4)

    (tmp_path / "mypkg" / "more.py").write_text("x = 1\n")
    again, said = told(tmp_path, *where, "mypkg")
    assert again == used and "the plugin's code has changed since this was made" in said


EVIL = 'from pathlib import Path\nPath(r"{}").touch()\n'
"""A module that leaves a file where it is imported."""


ALL = "# @package _global_\n"


@pytest.fixture
def sign(tmp_path: Path) -> Path:
    """The file that a package `evil`, which lies in the working folder and on Python's path, leaves."""
    sign = tmp_path / "sign"
    (tmp_path / "evil").mkdir()
    for name in ("__init__", "part"):
        (tmp_path / "evil" / f"{name}.py").write_text(EVIL.format(sign))
    return sign


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("clustering/x.yaml", "_target_: evil.part.Part", ["clustering=x"]),
        ("ensemble/x.yaml", "_target_: evil.part.Part", ["evaluation.strategies=[x]"]),
        ("ensemble/x.yaml", "defaults: [elrea]\nof: {_target_: evil.part.Part}", ["ensemble=x"]),
        ("experiment/x.yaml", f"{ALL}plugins: [evil]", ["+experiment=x"]),
        ("experiment/x.yaml", f"{ALL}plugins: 3", ["+experiment=x"]),
        ("experiment/x.yaml", f"{ALL}plugins: evil\nclustering: {{_target_: evil.part.Part}}", ["+experiment=x"]),
        ("experiment/x.yaml", f"{ALL}hydra: {{sweeper: {{params: {{plugins: '[evil]'}}}}}}", ["+experiment=x", "-m"]),
        ("data/x.yaml", "_target_: evil.part.Part", ["data=x", "plugins=[mine]"]),
    ],
)  # fmt: skip
def test_a_config_folder_allows_nothing(
    file: str, text: str, words: list[str], tiny: list[str], tmp_path: Path, sign: Path
) -> None:
    (tmp_path / "mine" / file).parent.mkdir(parents=True)
    (tmp_path / "mine" / file).write_text(text)
    (tmp_path / "mine" / "__init__.py").touch()
    ended = run(tmp_path, *tiny, *EXAM, QUIET, "--config-dir", "mine", *words)
    assert ended.code == 1 and not sign.exists()
    (line,) = [line for line in ended.err.splitlines() if line.startswith(("error: ", "job 0"))]
    assert any(
        part in line for part in ("plugins=[evil]", "unknown key", "comes from a config file")
    )


def test_data_allows_nothing(tiny: list[str], tmp_path: Path, sign: Path) -> None:
    for name in ("train", "test"):
        rows = [
            {"instruction": f"{name} {i}", "response": "a", "judge": "evil.part"} for i in range(20)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ["data=jsonl", "data.train=train.jsonl", "data.test=test.jsonl"]
    ended = run(tmp_path, *tiny, *data, QUIET)
    assert "the judge 'evil.part' is refused" in ended.error and not sign.exists()


def test_a_run_that_somebody_made_allows_nothing(
    whole: Ended, tmp_path: Path, sign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from elrea.commands.neighbours import neighbours

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    shutil.copytree(whole.folder / "out", tmp_path / "run")
    facts = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    changed = {**facts, "plugins": ["evil"], "clustering": {"_target_": "evil.part.Part"}}
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(changed))
    with pytest.raises(ElreaError, match=r"^clustering\._target_: 'evil\.part\.Part' is refused"):
        neighbours(tmp_path / "run", "one", store=whole.folder / "store")
    assert not sign.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plugins=[nosuch]"], "plugins: there is no module nosuch: install it, or give its name in the folder that"),
        (["plugins=[a,3]"], "plugins: wants the names of packages, as plugins=[mypkg]"),
        (["-m", "plugins=a,b"], "plugins: wants the names of packages, as plugins=[mypkg]"),
        (["plugins=[broken]", "clustering._target_=broken.X"], "clustering._target_: the plugin broken cannot be "),
        (["plugins=[fine]", "clustering._target_=fine.Fin"], "'fine.Fin' is not a config class; did you mean Fine?"),
        (["plugins=[fine]", "clustering._target_=fine.Fine"], "fine.Fine is not a subclass of Clustering"),
        (["clustering._target_=fine.Fine"], "type plugins=[fine] (--plugins fine after other commands than run; "),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(
    words: list[str], said: str, tiny: list[str], tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text("import json\njson.loads('')\n")
    (tmp_path / "fine.py").write_text(
        "from dataclasses import dataclass\n\n@dataclass\nclass Fine:\n    size: int = 1\n"
    )
    assert said in run(tmp_path, *tiny, *EXAM, QUIET, *words).error


def test_a_class_that_is_no_data_source(tiny: list[str], tmp_path: Path) -> None:
    (tmp_path / "fine.py").write_text(
        "from dataclasses import dataclass\n\n@dataclass\nclass Fine:\n    name: str = 'x'\n\n"
        "    def load(self):\n        return [1]\n\n@dataclass\nclass Bare:\n    size: int = 1\n"
    )
    for name, said in (
        ("Bare", "data._target_: Bare is no data source: it needs a name and load() -> Corpus"),
        ("Fine", "data=x: load() returned list, not a Corpus"),
    ):
        path = tmp_path / "mine" / "data" / f"{name.lower()}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"_target_: fine.{name}\n")
        words = ["--config-dir", "mine", "plugins=[fine]", f"data={name.lower()}"]
        assert run(tmp_path, *tiny, QUIET, *words).error == said
    path = path.rename(path.with_name("less.yaml"))
    said = run(tmp_path, *tiny, *EXAM, QUIET, "--config-dir", "mine").error
    assert said == f"{path}: data=less is elrea's own already; give the file another name"


def test_settings_alone_are_found_on_the_search_path(tiny: list[str], tmp_path: Path) -> None:
    """In evaluation.strategies too, which are composed apart from the run's config."""
    folder = tmp_path / "it's, mine" / "ensemble"
    folder.mkdir(parents=True)
    (folder / "elrea_top2.yaml").write_text("defaults: [elrea, _self_]\ntop_k: 2\n")
    place = str(folder.parent).replace("'", r"\'")
    for words in (
        [f"hydra.searchpath=['file://{place}']", "evaluation.strategies=[elrea_top2]"],
        ["evaluation.strategies=[elrea_top2]", "--config-dir", str(folder.parent), "ensemble=base"],
    ):
        ended = run(tmp_path, *tiny, *EXAM, QUIET, *words, "plan=true")
        assert (ended.code, ended.err) == (0, "")


def test_a_launchers_process_gets_what_was_typed() -> None:
    """joblib and submitit pickle what Hydra calls; the config alone allows nothing there."""
    task = pickle.loads(pickle.dumps(HydraTask(("mypkg", "other"))))
    assert task == HydraTask(("mypkg", "other"))
    with pytest.raises(SystemExit):
        task(None)
