"""Files that are whole or not there: JSON and text written aside and renamed, checksums, fsync."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from elrea.errors import StoreError


def canonical(obj: Any) -> str:
    """One text for equal JSON values: keys sorted, no white space, floats by `repr`, ASCII.

    Args:
        obj: plain JSON (mappings with string keys, lists or tuples, str, int, float, bool, None).

    Raises:
        StoreError: something in it is no JSON, or not finite; the message says where.
    """
    return json.dumps(jsonable(obj), sort_keys=True, separators=(",", ":"))


def jsonable(obj: Any, where: str = "") -> Any:
    """The same value in dicts and lists, checked at every depth.

    `json` alone writes NaN, which is no JSON, and turns the key 1 into "1", which makes two
    different values one.

    Raises:
        StoreError: a key that is no string, a number that is not finite, a value of another kind.
    """
    here = where or "the value"
    if obj is None or isinstance(obj, bool | str):
        return obj
    if isinstance(obj, int):
        return int(obj)
    if isinstance(obj, float):
        if not math.isfinite(obj):
            raise StoreError(f"{here} is {obj}: JSON holds finite numbers only")
        return float(obj)
    if isinstance(obj, Mapping):
        for key in obj:
            if not isinstance(key, str):
                raise StoreError(f"{here} has the key {key!r}: JSON keys are strings")
        return {
            str(key): jsonable(value, f"{where}.{key}".lstrip(".")) for key, value in obj.items()
        }
    if isinstance(obj, list | tuple):
        return [jsonable(value, f"{where}[{i}]") for i, value in enumerate(obj)]
    raise StoreError(f"{here} is of type {type(obj).__name__}: make it plain JSON first")


def is_text(text: str) -> bool:
    """Whether UTF-8 has bytes for it: half a surrogate pair, which JSON lets through, has none."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def write_text(path: Path, text: str) -> None:
    """Writes a whole UTF-8 file: aside, to the disk, then renamed over the old one.

    Raises:
        StoreError: the file cannot be written; the old one, if any, stands.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        aside.unlink(missing_ok=True)


def drop_asides(folder: Path, pattern: str = "**/") -> None:
    """Removes what a killed `write_text` left in a folder, where nobody else is writing.

    Args:
        folder: Need not be there.
        pattern: Where in it: at any depth, or "" for nowhere below.
    """
    for path in list(folder.glob(f"{pattern}.*.[0-9]*.tmp")):
        path.unlink(missing_ok=True)


def write_json(path: Path, obj: Any, *, ordered: bool = False) -> None:
    """Writes JSON by `write_text`.

    Args:
        path: Of the file.
        obj: Plain JSON.
        ordered: Whether keys keep their order, for readers; else they are sorted, so that equal values are equal bytes.

    Raises:
        StoreError: `obj` is no JSON or not finite, or the file cannot be written.
    """
    try:
        plain = jsonable(obj)
    except StoreError as error:
        raise StoreError(f"cannot write {path}: {error}") from error
    text = json.dumps(plain, sort_keys=not ordered, indent=2, ensure_ascii=False)
    if not is_text(text):
        text = json.dumps(plain, sort_keys=not ordered, indent=2)
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        StoreError: the file is not there, cannot be read, or is no (finite) JSON.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except FileNotFoundError as error:
        raise StoreError(f"no such file: {path}") from error
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    except json.JSONDecodeError as error:
        raise StoreError(f"{path}, line {error.lineno}: broken JSON ({error.msg})") from error
    except RecursionError as error:
        raise StoreError(f"{path}: broken JSON (nested too deeply)") from error
    except ValueError as error:  # not UTF-8, or a constant that is no number
        raise StoreError(f"{path}: broken JSON ({error})") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a finite number")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        _refuse(text)
    return number


def key_of(obj: Any) -> str:
    """16 hexadecimal digits that name a JSON value: the head of its canonical text's SHA-256.

    Raises:
        StoreError: as `canonical`.
    """
    return hashlib.sha256(canonical(obj).encode("ascii")).hexdigest()[:16]


OWN = "own_sha256"


def seal(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The same JSON object with a checksum of itself, for a file that no other file vouches for.

    Raises:
        StoreError: as `canonical`.
    """
    rest = {name: value for name, value in facts.items() if name != OWN}
    return {**rest, OWN: hashlib.sha256(canonical(rest).encode("ascii")).hexdigest()}


def read_sealed(path: Path) -> dict[str, Any]:
    """Reads a JSON object that `seal` made; one without a checksum is of an older version, and taken as it is.

    Raises:
        StoreError: as `read_json`, or it is no object, or not as it was written.
    """
    facts = read_json(path)
    if not isinstance(facts, dict):
        raise StoreError(f"{path}: not as this version writes it: no JSON object")
    try:
        holds = not facts.get(OWN) or facts[OWN] == seal(facts)[OWN]
    except RecursionError as error:
        raise StoreError(f"{path}: broken JSON (nested too deeply)") from error
    if not holds:
        raise StoreError(f"{path}: is not as it was written: its own checksum does not hold")
    return facts


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes in hexadecimal, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def walk(folder: Path) -> Iterator[Path]:
    """Every file under `folder`, sorted by path.

    Raises:
        StoreError: there is a link or something else that is neither file nor folder: its
            content could change from outside.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise StoreError(f"{path} is neither a file nor a folder: copy the content instead")
        if path.is_file():
            yield path


def sync(path: Path) -> None:
    """Has a file's bytes, or a folder's own entries, written to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a full disk: each library words that its own way."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        # safetensors hands on the system's words; numpy counts: "100 requested and 8 written".
        if re.search(r"No space left on device|\d+ requested and \d+ written", str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def publish(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder beside `folder`, then rename it into place.

    A process killed at any moment leaves the old `folder`, none, or the new one, never a part
    of it. Everything reaches the disk before the name does, which holds for a power cut too.

    Args:
        folder: the folder to make; an older one of that name is replaced.
        write: called once with the folder to fill.

    Raises:
        OSError: no space left, or no permission.
    """
    aside = folder.with_name(folder.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    write(aside)
    for path in sorted(aside.rglob("*")):
        sync(path)
    sync(aside)
    if folder.exists():
        shutil.rmtree(folder)
    aside.rename(folder)
    sync(folder.parent)
