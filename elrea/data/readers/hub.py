"""Data sets from the hub, or from a folder as the hub has it, as rows for the same readers as files are for.

Nothing that comes with a data set is run: sets that are a script are read from the Parquet files that the hub makes of
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from elrea.data.readers.tables import Row
from elrea.errors import DataError, NotHere

CONVERTED = "refs/convert/parquet"
"""The revision that holds the hub's own Parquet files of a data set."""

fetching = ContextVar("fetching", default=True)
"""Whether data may be fetched; a plan does without."""

PATIENCE = 10.0
"""Seconds in which the hub has to answer; `datasets` itself goes on trying for half a minute."""


def rows(
    name: str,
    split: str,
    *,
    holds: str,
    config: str | None = None,
    revision: str | None = None,
    files: str | None = None,
) -> Iterator[Row]:
    """Read one split.

    Args:
        name: hub id, or a folder as the hub has it (or as `Dataset.save_to_disk` leaves it).
        split: the split's name there.
        holds: what a folder given as data.root has to hold, for the messages.
        config: the part of the data set, "main"; None where it has one part.
        revision: branch, tag or commit; None the newest.
        files: pattern of the files to read, "train/**/*.jsonl", where the set's own layout says nothing.

    Raises:
        DataError: `datasets` is missing, the hub cannot be reached or has no such thing; the line says how to give a
            folder.
    """
    with _told(name, holds):
        read = _load(name, split, config, revision, files)
    for number, row in enumerate(read):
        yield Row(row, f"{name} {split}, row {number}", config or "")


def configs(name: str, *, holds: str, revision: str | None = None) -> Sequence[str]:
    """The parts of a data set; BIG-Bench Hard's tasks.

    Raises:
        DataError: as `rows`.
    """
    with _told(name, holds):
        datasets = _library(name, revision)
        try:
            return sorted(datasets.get_dataset_config_names(name, revision=revision))
        except RuntimeError as error:
            if revision is not None or not _is_script(error):
                raise
            return sorted(datasets.get_dataset_config_names(name, revision=CONVERTED))


def _load(
    name: str, split: str, config: str | None, revision: str | None, files: str | None
) -> Any:
    datasets = _library(name, revision)
    if Path(name, "dataset_dict.json").is_file():
        return datasets.load_from_disk(name)[split]
    if Path(name, "dataset_info.json").is_file() and Path(name, "state.json").is_file():
        return datasets.load_from_disk(name)
    given: dict[str, Any] = {"data_files": {split: files}} if files else {}
    try:
        return datasets.load_dataset(name, config, split=split, revision=revision, **given)
    except RuntimeError as error:
        if revision is not None or not _is_script(error):
            raise
        return datasets.load_dataset(name, config, split=split, revision=CONVERTED, **given)


def _is_script(error: RuntimeError) -> bool:
    return "scripts are no longer supported" in str(error)


def _library(name: str, revision: str | None) -> Any:
    """`datasets`, quiet; asks first whether the hub is there, unless HF_HUB_OFFLINE says not to."""
    import datasets

    datasets.disable_progress_bars()
    if not Path(name).exists() and not datasets.config.HF_HUB_OFFLINE:
        if not fetching.get():
            raise NotHere(f"data.hub={name} is not here yet")
        from huggingface_hub import HfApi

        HfApi().dataset_info(name, revision=revision, timeout=PATIENCE)
    return datasets


@contextmanager
def _told(name: str, holds: str) -> Iterator[None]:
    """Whatever goes wrong inside, in one line that says how to do without the hub."""
    folder = f"give data.root=<folder of {holds}>"
    try:
        yield
    except NotHere:
        raise
    except ImportError as error:
        if not fetching.get():
            raise NotHere(f"data.hub={name} is not here yet") from error
        raise DataError(
            f"data.hub={name} needs datasets: pip install 'elrea[hub]', or {folder}"
        ) from error
    except Exception as error:
        from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

        said = " ".join(str(error).split("\n")[0].split()) or type(error).__name__
        if isinstance(error, RepositoryNotFoundError):
            raise DataError(
                f"data.hub={name}: the hub has no such data set, or not for you; name another, or {folder}"
            ) from error
        unreachable = isinstance(error, OSError) or _is_network(error)
        if unreachable and not isinstance(error, HfHubHTTPError) and not Path(name).exists():
            if not fetching.get():
                raise NotHere(f"data.hub={name} is not here yet") from error
            from datasets.config import HF_HUB_OFFLINE

            cached = "" if HF_HUB_OFFLINE else ", or HF_HUB_OFFLINE=1 if the cache has it"
            raise DataError(
                f"data.hub={name}: cannot reach the hub ({said}); {folder}{cached}"
            ) from error
        raise DataError(f"data.hub={name}: cannot be read ({said}); {folder}") from error


def _is_network(error: Exception) -> bool:
    """Errors of the hub's HTTP library, whose name changes with its version."""
    return any(cls.__name__ in ("TransportError", "RequestError") for cls in type(error).__mro__)
