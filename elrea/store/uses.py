"""Which run uses which stages, recorded in the store: `elrea store gc` may be called where the run's folder is not.

`<store>/runs/<16 hexadecimal digits>.json` names one run's folder, the machine on which it ran, and its stages.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from elrea.errors import StoreError
from elrea.store.files import key_of, read_json, write_json

RECORDS = "runs"
"""Folder of the records in a store; no stage has this name."""


@dataclass(frozen=True)
class Use:
    """What one run uses.

    Attributes:
        record: The file that says so.
        run: The run's folder.
        host: Name of the machine on which it ran.
        stages: Keys of its stages, by the names in its plan.
    """

    record: Path
    run: Path
    host: str
    stages: Mapping[str, str]

    @property
    def here(self) -> bool:
        """Whether the run's folder is on this machine; so is one that this user must not look into."""
        try:
            self.run.lstat()
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no path at all
            return False
        except OSError:
            return True
        return True

    @property
    def gone(self) -> bool:
        """Whether the run's folder was removed or moved. A folder of another machine may still be there."""
        return not self.here and self.host == socket.gethostname()


def record_use(store: Path, run: Path, stages: Mapping[str, str]) -> None:
    """Records what a run uses, in place of what it used before.

    A store that cannot be written to stays as it is: the run works, and is not recorded.

    Args:
        store: Folder of the store.
        run: The run's folder.
        stages: Keys of its stages, by the names in its plan.
    """
    host, folder = socket.gethostname(), str(run.resolve())
    found = {"run": folder, "host": host, "stages": dict(stages)}
    with suppress(OSError, StoreError):
        records = store / RECORDS
        records.mkdir(parents=True, exist_ok=True)
        name = f"{key_of([host, folder])}.json"
        for left in records.glob(f".{name}.*.tmp"):  # by a process of this run that was killed
            left.unlink(missing_ok=True)
        write_json(records / name, found)


def recorded_uses(store: Path) -> list[Use]:
    """What the runs use that the store has records of, those whose folder is gone too.

    Raises:
        StoreError: A record cannot be read.
    """
    uses = []
    for path in sorted((store / RECORDS).glob("[!.]*.json")):
        try:
            found = read_json(path)
            stages = {str(name): str(key) for name, key in found["stages"].items()}
            uses.append(Use(path, Path(found["run"]), str(found["host"]), stages))
        except (AttributeError, LookupError, TypeError, StoreError) as error:
            raise StoreError(
                f"{path}: does not list the stages that its run uses; restore it, or delete it if the run is gone"
            ) from error
    return uses
