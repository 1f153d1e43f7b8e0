"""A published data set as rows, read from a folder in its published layout or from the hub."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from elrea.data.readers import hub
from elrea.data.readers.layouts import Layout, looks_like, place_looks_like
from elrea.data.readers.tables import EmptyFile, Row, files_of, rows_of, split_files, suffix_of
from elrea.errors import DataError
from elrea.store.files import is_text

if TYPE_CHECKING:
    from elrea.data.drops import Drops


@dataclass
class DataSet(Layout):
    """A published data set. A folder and the hub give the same examples."""

    root: str | None = None
    """Folder with the published files, or one such file. If it is given, `hub` is not used."""
    hub: str | bool = False
    """true reads the public data set; a text is another id, or a folder in the hub's layout. Nothing is downloaded if
    it is false."""
    revision: str | None = None
    """Branch, tag or commit on the hub; None is the newest."""

    public: ClassVar[str]
    """Id of the public data set on the hub; empty if there is none."""
    holds: ClassVar[str]
    """The files that `root` must have, in words for the messages."""

    def is_located(self) -> bool:
        """Whether the settings say where the data is."""
        return bool(self.root or self.hub)

    def at(self, folder: Path) -> Self:
        """A copy that reads from a folder."""
        return replace(self, root=str(folder))

    def on_hub(self) -> Self:
        """A copy that reads the public data set; the same settings if there is none."""
        return replace(self, hub=True) if self.public else self

    def place(self) -> Path | None:
        """The folder or file to read; None to read from the hub.

        Raises:
            DataError: neither `root` nor `hub` is given, the folder does not exist, or there is no public data set.
        """
        if self.root:
            path = Path(self.root)
            if not path.exists():
                raise DataError(
                    f"{path}: no such file or folder (data.root must have {self.holds})"
                )
            return path
        if not self.hub:
            other = f", or data.hub=true ({self.public} from the hub)" if self.public else ""
            raise DataError(f"data={self.name} needs data.root=<folder with {self.holds}>{other}")
        if not self.hub_name:
            raise DataError(
                f"data={self.name} is not on the hub: set data.root=<folder with {self.holds}>"
            )
        return None

    def hub_rows(
        self, split: str, config: str | None = None, files: str | None = None
    ) -> Iterator[Row]:
        """Rows of one split on the hub (`elrea.data.readers.hub.rows`)."""
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
        """The hub id to read."""
        return self.hub if isinstance(self.hub, str) else self.public

    def file_rows(
        self,
        suffixes: Collection[str] = (),
        columns: tuple[str, ...] = (),
        drops: Drops | None = None,
    ) -> Iterator[Row]:
        """Rows of all data files in `root`, or of those with one of `suffixes`.

        Args:
            suffixes: ".tsv" and the like; empty for every kind of data file.
            columns: names of a TSV's columns.
            drops: an empty file of a folder is added to it; None refuses an empty file.

        Raises:
            DataError: there is no such file; the message says which data set the folder looks like.
        """
        place = self.place()
        assert place is not None
        files = files_of(place)
        if suffixes:
            files = [file for file in files if suffix_of(file) in suffixes]
        if not files:
            raise DataError(
                f"{place}: no data file in here; data.root must have {self.holds}{place_looks_like(place)}"
            )
        for file in files:
            try:
                yield from rows_of(file, columns)
            except EmptyFile:
                if drops is None or file == place:
                    raise
                drops.add(self.name, "empty file(s) in train", "no row", str(file))

    def has(self, split: str) -> bool:
        """Whether there is a file of a split in `root`; the hub has every split."""
        place = self.place()
        return place is None or bool(files_of(place, split))

    def split_rows(self, split: str) -> Iterator[Row]:
        """Rows of a split's file in `root`, or of its parts (`elrea.data.readers.tables.split_files`).

        Raises:
            DataError: there is no file of the split, or more than one candidate; the message says which data set the
                folder looks like.
        """
        place = self.place()
        assert place is not None
        files = split_files(place, split)
        if not files:
            raise DataError(
                f"{place}: no file {split}* in here; data.root must have {self.holds}{place_looks_like(place)}"
            )
        for file in files:
            yield from rows_of(file)

    def text(self, row: Row, name: str) -> str:
        """A required text field.

        Raises:
            DataError: the field is missing, empty or not a text; the message says which data set the row looks like.
        """
        return text_of(row.value, name, row.where, self.title)

    def optional(self, row: Row, name: str) -> str:
        """An optional field as a text; empty if the field is missing or empty.

        Raises:
            DataError: the field is not valid UTF-8.
        """
        text = str(row.value.get(name) or "")
        if not is_text(text):
            raise DataError(f"{row.where}: {name} is not UTF-8: half a surrogate pair")
        return text


def text_of(value: Mapping[str, Any], name: str, where: str, title: str) -> str:
    """A required text field of a row.

    Raises:
        DataError: the field is missing, empty or not a text; the message says which data set the row looks like.
    """
    if name not in value:
        raise DataError(f"{where}: no field {name!r}, so not a file of {title}{looks_like(value)}")
    text = value[name]
    if not isinstance(text, str):
        raise DataError(f"{where}: {name} must be a text, not {type(text).__name__}")
    if not text.strip():
        raise DataError(f"{where}: {name} is empty; fill it or remove the row")
    if not is_text(text):
        raise DataError(f"{where}: {name} is not UTF-8: half a surrogate pair")
    return text
