"""The figures of one part in a JSON file, which is written after each figure and read by the next call."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from elrea.errors import StoreError
from elrea.store.files import read_json, write_json
from elrea.store.manifest import versions

DONE, FAILED, SKIPPED, UNFINISHED = "done", "failed", "skipped", "unfinished"


class Skip(Exception):
    """A part cannot be measured here; why."""


class Record:
    """One part's file.

    Args:
        path: The JSON file.
        about: The setting: figures of another one in the file are dropped.

    Attributes:
        content: `about`, `status`, `note` (why, for all but `done`), `seconds` (of all calls), `figures`, `at` (the
            machine and the versions that each figure was measured with).
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path = path
        self.content: dict[str, Any] = {
            "about": dict(about), "status": UNFINISHED, "note": "", "seconds": 0.0, "figures": {}, "at": {},
        }  # fmt: skip
        try:
            found = read_json(path)
            if found["about"] == self.content["about"]:
                self.content = found
        except (StoreError, LookupError, TypeError):
            pass  # none yet, or damaged: everything is measured again

    @property
    def figures(self) -> dict[str, Any]:
        """By name."""
        found: dict[str, Any] = self.content["figures"]
        return found

    def figure(self, name: str, make: Callable[[], Any]) -> Any:
        """A figure, measured unless an earlier call has measured it."""
        if name not in self.figures:
            print(f"  {name} ...", flush=True)
            self.figures[name] = make()
            self.content["at"][name] = machine()
            self.write()
        return self.figures[name]

    def end(self, status: str, note: str = "", seconds: float = 0.0) -> None:
        """Writes how a call ended."""
        spent = round(self.content["seconds"] + seconds, 1)
        self.content |= {"status": status, "note": note, "seconds": spent}
        self.write()

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.content)


def machine() -> dict[str, Any]:
    """The device, and the versions of the libraries that decide a figure."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    found: dict[str, str | None] = {**versions(), "cuda": torch.version.cuda}
    with suppress(PackageNotFoundError):
        found["bitsandbytes"] = version("bitsandbytes")
    there = torch.cuda.is_available()
    return {"device": torch.cuda.get_device_name() if there else "cpu", "versions": found}


class Watch:
    """Time and peak memory of a piece of work, with the device waited for at both ends."""

    def __enter__(self) -> Watch:
        import torch

        self.cuda = torch.cuda.is_available()
        if self.cuda:
            torch.cuda.empty_cache()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        self.start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        import torch

        self.peak: float | None = None
        if self.cuda:
            torch.cuda.synchronize()
            self.peak = float(torch.cuda.max_memory_allocated())
        self.seconds = time.perf_counter() - self.start
