"""Where a data set is read from: a folder in its published layout, or the hub."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from elrea.data.readers import hub
from elrea.data.readers.layouts import looks_like, place_looks_like
from elrea.data.readers.tables import Row, files_of, rows_of, split_files, suffix_of
from elrea.errors import DataError
from elrea.store.files import is_text


@dataclass
class Placed:
    """A published data set, from a folder or from the hub: the same examples either way."""

    root: str | None = None
    """Folder with the files as they are published, or the one file. It goes before `hub`."""
    hub: str | bool = False
    """true takes the public data set, a text another id, or a folder as the hub has it. Nothing is downloaded unless
    this is said."""
    revision: str | None = None
    """Branch, tag or commit on the hub; None the newest."""

    name: ClassVar[str]
    """Of the data set and of its choice in `data`: "gsm8k"."""
    title: ClassVar[str]
    """As its users write it: "GSM8K"."""
    public: ClassVar[str]
    """Its hub id; empty where there is none."""
    holds: ClassVar[str]
    """What `root` has to hold, in words."""

    def placed(self) -> bool:
        """Whether it is said where the data is."""
        return bool(self.root or self.hub)

    def at(self, folder: Path) -> Self:
        """The same, read from a folder."""
        return replace(self, root=str(folder))

    def on_hub(self) -> Self:
        """The same, read from the public data set where there is one."""
        return replace(self, hub=True) if self.public else self

    def place(self) -> Path | None:
        """The folder or file; None for the hub.

        Raises:
            DataError: neither is given, or there is no such folder.
        """
        if self.root:
            path = Path(self.root)
            if not path.exists():
                raise DataError(f"{path}: no such file or folder (data.root holds {self.holds})")
            return path
        if not self.hub:
            other = f", or data.hub=true ({self.public} from the hub)" if self.public else ""
            raise DataError(f"data={self.name} needs data.root=<folder of {self.holds}>{other}")
        if not self.hub_name:
            raise DataError(
                f"data={self.name} is not on the hub: give data.root=<folder of {self.holds}>"
            )
        return None

    def hub_rows(
        self, split: str, config: str | None = None, files: str | None = None
    ) -> Iterator[Row]:
        """One split of the hub's data set."""
        return hub.rows(
            self.hub_name,
            split,
            holds=self.holds,
            config=config,
            revision=self.revision,
            files=files,
        )

    @property
    def hub_name(self) -> str:
        """The hub id that was asked for."""
        return self.hub if isinstance(self.hub, str) else self.public

    def file_rows(
        self, suffixes: Collection[str] = (), columns: tuple[str, ...] = ()
    ) -> Iterator[Row]:
        """Rows of all data files under `root`, or of those with some suffixes.

        Raises:
            DataError: there is none; the line says what the folder looks like.
        """
        place = self.place()
        assert place is not None
        files = files_of(place)
        if suffixes:
            files = [file for file in files if suffix_of(file) in suffixes]
        if not files:
            raise DataError(
                f"{place}: no data file in here; data.root holds {self.holds}{place_looks_like(place)}"
            )
        for file in files:
            yield from rows_of(file, columns)

    def split_rows(self, split: str) -> Iterator[Row]:
        """Rows of a split's file under `root`, or of its parts (`elrea.data.readers.tables.split_files`).

        Raises:
            DataError: there is none, or it cannot be told which; the line says what the folder looks like.
        """
        place = self.place()
        assert place is not None
        files = split_files(place, split)
        if not files:
            raise DataError(
                f"{place}: no file {split}* in here; data.root holds {self.holds}{place_looks_like(place)}"
            )
        for file in files:
            yield from rows_of(file)

    def text(self, row: Row, name: str) -> str:
        """A field that has to be there and hold a text.

        Raises:
            DataError: it is not, or does not; the line says what the row looks like.
        """
        return text_of(row.value, name, row.where, self.title)

    def optional(self, row: Row, name: str) -> str:
        """A field that need not be there, as a text; empty where it is not, or holds nothing.

        Raises:
            DataError: it holds what is no UTF-8.
        """
        text = str(row.value.get(name) or "")
        if not is_text(text):
            raise DataError(f"{row.where}: {name} is not UTF-8: half a surrogate pair")
        return text


def text_of(value: Mapping[str, Any], name: str, where: str, title: str) -> str:
    """A field of a row that has to hold a text.

    Raises:
        DataError: it is not there or empty, or no text; the line says what the row looks like.
    """
    if name not in value:
        raise DataError(f"{where}: no field {name!r}, so no file of {title}{looks_like(value)}")
    text = value[name]
    if not isinstance(text, str):
        raise DataError(f"{where}: {name} must be a text, not {type(text).__name__}")
    if not text.strip():
        raise DataError(f"{where}: {name} is empty; fill it or remove the row")
    if not is_text(text):
        raise DataError(f"{where}: {name} is not UTF-8: half a surrogate pair")
    return text
