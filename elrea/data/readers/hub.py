"""Reads rows of data sets on the hub, or in a folder with the hub's layout.

No code that comes with a data set is run: a data set that is a script is read from the Parquet files into which the hub
has converted it.
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
"""The revision with the Parquet files into which the hub has converted a data set."""

fetching = ContextVar("fetching", default=True)
"""Whether data may be downloaded. plan=true forbids it; a read that needs a download then raises `NotHere`."""

PATIENCE = 10.0
"""Seconds to wait for the hub's answer. `datasets` by itself retries for half a minute."""


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
        name: hub id, or a folder in the hub's layout or written by `Dataset.save_to_disk`.
        split: the split's name on the hub.
        holds: the files that a folder given as data.root must have, for the messages.
        config: the configuration of the data set, "main"; None if it has only one.
        revision: branch, tag or commit; None is the newest.
        files: pattern of the files to read, "train/**/*.jsonl"; None lets `datasets` find them.

    Raises:
        DataError: `datasets` is not installed, the hub cannot be reached, or it has no such data set, split or
            configuration. The message says how to use a folder instead.
        NotHere: the data would have to be downloaded, and `fetching` is False.
    """
    with _one_line_errors(name, holds):
        table = _load(name, split, config, revision, files)
    for number, row in enumerate(table):
        yield Row(row, f"{name} {split}, row {number}", config or "")


def configs(name: str, *, holds: str, revision: str | None = None) -> Sequence[str]:
    """The configurations of a data set, sorted: for BIG-Bench Hard, its tasks.

    Raises:
        DataError: as `rows`.
    """
    with _one_line_errors(name, holds):
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
    options: dict[str, Any] = {"data_files": {split: files}} if files else {}
    try:
        return datasets.load_dataset(name, config, split=split, revision=revision, **options)
    except RuntimeError as error:
        if revision is not None or not _is_script(error):
            raise
        return datasets.load_dataset(name, config, split=split, revision=CONVERTED, **options)


def _is_script(error: RuntimeError) -> bool:
    return "scripts are no longer supported" in str(error)


def _library(name: str, revision: str | None) -> Any:
    """The module `datasets` without progress bars, after a check that the hub has the data set.

    The check is skipped for folders and if HF_HUB_OFFLINE is set.
    """
    import datasets

    datasets.disable_progress_bars()
    if not Path(name).exists() and not datasets.config.HF_HUB_OFFLINE:
        if not fetching.get():
            raise NotHere(f"data.hub={name} is not here yet")
        from huggingface_hub import HfApi

        HfApi().dataset_info(name, revision=revision, timeout=PATIENCE)
    return datasets


@contextmanager
def _one_line_errors(name: str, holds: str) -> Iterator[None]:
    """Turns every error inside into one line that says how to use a folder instead of the hub."""
    folder = f"set data.root=<folder with {holds}>"
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

        reason = " ".join(str(error).split("\n")[0].split()) or type(error).__name__
        if isinstance(error, RepositoryNotFoundError):
            raise DataError(
                f"data.hub={name}: the hub has no such data set, or you have no access to it; name another, or {folder}"
            ) from error
        unreachable = isinstance(error, OSError) or _is_network(error)
        if unreachable and not isinstance(error, HfHubHTTPError) and not Path(name).exists():
            if not fetching.get():
                raise NotHere(f"data.hub={name} is not here yet") from error
            from datasets.config import HF_HUB_OFFLINE

            cached = "" if HF_HUB_OFFLINE else ", or HF_HUB_OFFLINE=1 if it is in the cache"
            raise DataError(
                f"data.hub={name}: cannot reach the hub ({reason}); {folder}{cached}"
            ) from error
        raise DataError(f"data.hub={name}: cannot be read ({reason}); {folder}") from error


def _is_network(error: Exception) -> bool:
    """Whether an error is of the hub's HTTP library: requests or httpx, depending on its version."""
    return any(cls.__name__ in ("TransportError", "RequestError") for cls in type(error).__mro__)
