"""Data sets of the hub, from folders of Parquet files in the hub's layout: nothing is downloaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from elrea.data.readers import hub
from elrea.data.sources.bbh import Bbh
from elrea.data.sources.dolly import Dolly
from elrea.data.sources.gsm8k import Gsm8k
from elrea.data.sources.less import Less
from elrea.data.sources.math import Math
from elrea.data.sources.mathqa import Mathqa
from elrea.data.sources.mmlu import Mmlu
from elrea.data.sources.oasst import Oasst
from elrea.data.sources.svamp import Svamp
from elrea.errors import DataError
from tests.data import published as files

datasets = pytest.importorskip("datasets", reason="the extra hub is not installed")

SOURCES = [Gsm8k, Svamp, Mathqa, Math, Dolly, Oasst]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    yield


def repository(name: str, folder: Path) -> str:
    """Write a folder in the hub's layout: Parquet files, and a card that names their splits."""
    card = ["---", "configs:"]
    by_config: dict[str, list[str]] = {}
    for (config, split), rows in files.on_hub(name).items():
        path = f"{config}/{split}.parquet"
        (folder / config).mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(list(rows)).to_parquet(folder / path)
        by_config.setdefault(config, []).append(f"  - split: {split}\n    path: {path}")
    for config, splits in by_config.items():
        card += [f"- config_name: {config}", "  data_files:", *splits]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))
    return str(folder)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_files_and_hub_give_the_same_examples(source: Any, published: Any, tmp_path: Path) -> None:
    on_disk = source(root=str(published(source.name))).load()
    from_hub = source(hub=repository(source.name, tmp_path / "hub")).load()
    assert on_disk.train and on_disk.test
    assert replace(from_hub, left_out=()) == replace(on_disk, left_out=())  # its places differ


@pytest.mark.parametrize(
    ("source", "more"),
    [(Mmlu, {"shots": 2, "subjects": ["astronomy", "virology"]}), (Bbh, {"shots": 2})],
)
def test_files_and_hub_give_the_same_benchmark(
    source: Any, more: Any, published: Any, tmp_path: Path
) -> None:
    train = Dolly(root=str(published("dolly")))
    on_disk = source(root=str(published(source.name)), train=train, **more).load()
    hub = repository(source.name, tmp_path / "hub")
    if source is Bbh:
        with pytest.raises(DataError, match=r"has no worked examples: set data\.prompts=<folder"):
            Bbh(hub=hub, train=train).load()
        more["prompts"] = str(tmp_path / "published" / "bbh" / "cot-prompts")
    assert source(hub=hub, train=train, **more).load() == on_disk


def test_files_are_found_by_a_pattern(published: Any) -> None:
    folder = str(published("less"))
    assert Less(hub=folder).load() == Less(root=folder).load()


def test_a_folder_of_save_to_disk(published: Any, tmp_path: Path) -> None:
    parts = {split: datasets.Dataset.from_list(rows) for split, rows in files.GSM8K.items()}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    assert Gsm8k(hub=str(tmp_path / "saved")).load() == Gsm8k(root=str(published("gsm8k"))).load()


def test_parquet_files_as_a_root(published: Any, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for split, rows in files.GSM8K.items():
        datasets.Dataset.from_list(rows).to_parquet(
            tmp_path / "p" / f"{split}-00000-of-00001.parquet"
        )
    assert Gsm8k(root=str(tmp_path / "p")).load() == Gsm8k(root=str(published("gsm8k"))).load()


def fails(source: Any) -> str:
    with pytest.raises(DataError) as caught:
        source.load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unreachable_hub_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("datasets.config", "huggingface_hub.constants"):
        monkeypatch.setattr(f"{library}.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    said = fails(Gsm8k(hub=True))
    assert said.startswith("data.hub=openai/gsm8k: cannot reach the hub (")
    assert "set data.root=<folder with GSM8K's train.jsonl and test.jsonl>" in said
    assert "HF_HUB_OFFLINE=1" in said


def test_offline_mode_sends_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "cannot reach the hub" in fails(Gsm8k(hub="openai/gsm8k"))


def test_a_missing_extra_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    said = fails(Gsm8k(hub=True))
    assert said == (
        "data.hub=openai/gsm8k needs datasets: pip install 'elrea[hub]', or set"
        " data.root=<folder with GSM8K's train.jsonl and test.jsonl>"
    )


def test_a_data_set_with_a_script_is_read_from_converted_parquet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str | None] = []

    def load(name: str, config: str | None, *, split: str, revision: str | None) -> Any:
        asked.append(revision)
        if revision is None:
            raise RuntimeError(f"Dataset scripts are no longer supported, but found {name}.py")
        return datasets.Dataset.from_list(files.GSM8K[split])

    monkeypatch.setattr("datasets.load_dataset", load)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    found = list(hub.rows("some/set", "test", holds="x"))
    assert asked == [None, "refs/convert/parquet"]
    assert [row.value for row in found] == files.GSM8K["test"]
    with pytest.raises(DataError, match=r"data\.hub=some/set: cannot be read \('none'\); set"):
        list(hub.rows("some/set", "none", holds="x"))


def test_another_benchmarks_columns_are_recognised(tmp_path: Path) -> None:
    folder = repository("dolly", tmp_path / "hub")
    said = fails(Math(hub=folder))
    assert "no field 'problem', so not a file of MATH; it looks like Dolly (data=dolly)" in said
