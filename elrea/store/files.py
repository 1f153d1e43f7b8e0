"""Atomic writes, checksums and strict JSON.

`atomic_file` and `publish` write a file or a folder under a temporary name, flush it to the disk and rename it, so that
a process killed at any moment never leaves a part of it. `sha256` is the checksum of a file, `sha256_of` of bytes or
text, `json_checksum` of a JSON value, and `checksums` lists those of a folder's files.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from elrea.errors import StoreError

UMASK = os.umask(0)
"""Of this process; it can only be read by setting it."""
os.umask(UMASK)


def canonical(obj: Any) -> str:
    """The canonical JSON text of a value: keys sorted, no white space, floats by `repr`, ASCII.

    Args:
        obj: Plain JSON (mappings with string keys, lists or tuples, str, int, float, bool, None).

    Raises:
        StoreError: Part of it is not JSON or not finite; the message says where.
    """
    return json.dumps(jsonable(obj), sort_keys=True, separators=(",", ":"))


def jsonable(obj: Any, where: str = "") -> Any:
    """Converts a value to plain dicts and lists, and checks it at every depth.

    The `json` module would write NaN, which is not JSON, and would turn the key 1 into "1", so that two different
    values get the same text.

    Args:
        obj: The value.
        where: Its path in the whole value, for the message.

    Raises:
        StoreError: A key is not a string, a number is not finite, or a value has another type.
    """
    here = where or "the value"
    if obj is None or isinstance(obj, bool | str):
        return obj
    if isinstance(obj, int):
        return int(obj)
    if isinstance(obj, float):
        if not math.isfinite(obj):
            raise StoreError(f"{here} is {obj}: JSON has finite numbers only")
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
    raise StoreError(f"{here} is of type {type(obj).__name__}: convert it to plain JSON first")


def is_text(text: str) -> bool:
    """Whether a string can be encoded as UTF-8: JSON also allows half a surrogate pair, which cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Replaces a file atomically: yields a temporary path, and renames it to `path` when the block has succeeded.

    The content is flushed to the disk before the rename. If the block fails, the temporary file is removed and `path`
    is unchanged; a killed process leaves a temporary file for `remove_temporary_files`.

    Args:
        path: The file to write; its folder exists.

    Raises:
        OSError: No space left, or no permission.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file atomically.

    Raises:
        StoreError: The file cannot be written; an existing file is unchanged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            temporary.write_bytes(text.encode("utf-8"))
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def remove_temporary_files(folder: Path, pattern: str = "**/") -> None:
    """Removes the temporary files of killed processes; only for a folder that no other process writes to.

    Args:
        folder: The folder; it may be missing.
        pattern: Where to look: at any depth, or "" for the folder itself only.
    """
    for path in list(folder.glob(f"{pattern}.*.[0-9]*.tmp")):
        path.unlink(missing_ok=True)


def write_json(path: Path, obj: Any, *, ordered: bool = False) -> None:
    """Writes a JSON file atomically.

    Args:
        path: The file to write.
        obj: Plain JSON.
        ordered: Keep the order of keys, for human readers. Otherwise keys are sorted, so that equal values give equal
            bytes.

    Raises:
        StoreError: `obj` is not JSON or not finite, or the file cannot be written.
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
        StoreError: The file is missing, cannot be read, or is not JSON with finite numbers.
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
    except ValueError as error:  # not UTF-8, or NaN
        raise StoreError(f"{path}: broken JSON ({error})") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a finite number")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        _refuse(text)
    return number


def key_of(obj: Any) -> str:
    """The first 16 hexadecimal digits of a JSON value's checksum; they name a stage.

    Raises:
        StoreError: As `canonical`.
    """
    return json_checksum(obj)[:16]


def json_checksum(obj: Any) -> str:
    """The SHA-256 of a value's canonical JSON text, in hexadecimal.

    Raises:
        StoreError: As `canonical`.
    """
    return sha256_of(canonical(obj)).hexdigest()


CHECKSUM = "own_sha256"
"""The key under which a JSON object holds its own checksum."""


def with_checksum(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Adds to a JSON object a checksum of its other keys, for a file whose checksum no other file lists.

    Raises:
        StoreError: As `canonical`.
    """
    rest = {name: value for name, value in facts.items() if name != CHECKSUM}
    return {**rest, CHECKSUM: json_checksum(rest)}


def read_with_checksum(path: Path) -> dict[str, Any]:
    """Reads a JSON object that `with_checksum` made; one without a checksum (an older version's) is accepted.

    Raises:
        StoreError: As `read_json`, or it is not an object, or its checksum does not match.
    """
    facts = read_json(path)
    if not isinstance(facts, dict):
        raise StoreError(f"{path}: not as this version writes it: not a JSON object")
    try:
        matches = not facts.get(CHECKSUM) or facts[CHECKSUM] == with_checksum(facts)[CHECKSUM]
    except RecursionError as error:
        raise StoreError(f"{path}: broken JSON (nested too deeply)") from error
    if not matches:
        raise StoreError(f"{path}: checksum mismatch: the file was changed after it was written")
    return facts


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal; the file is read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(data: bytes | str = b"") -> hashlib._Hash:
    """A SHA-256 object that has read some bytes, or the UTF-8 bytes of a string; it can be updated with more."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data)


def checksums(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file under a folder, by its path relative to the folder.

    Raises:
        StoreError: As `walk`.
    """
    return {path.relative_to(folder).as_posix(): sha256(path) for path in walk(folder)}


def walk(folder: Path) -> Iterator[Path]:
    """Every file under a folder, sorted by path.

    Raises:
        StoreError: There is a link, or something else that is neither a file nor a folder. A link's content could
            change without any change in the folder.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise StoreError(f"{path} is neither a file nor a folder: copy the content instead")
        if path.is_file():
            yield path


def sync(path: Path) -> None:
    """Flushes a file's bytes, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def share(path: Path) -> None:
    """Gives a file the mode that the umask allows, as other programs do; safetensors writes for the owner alone."""
    path.chmod(0o666 & ~UMASK)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one of its causes, is a full disk or an exceeded quota."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        # safetensors quotes the system's message; numpy says "100 requested and 8 written".
        if re.search(r"No space left on device|\d+ requested and \d+ written", str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


PARTIAL = ".partial"
"""Ends the name of a folder that is not finished."""


def publish(folder: Path, write: Callable[[Path], None]) -> None:
    """Replaces a folder: `write` fills a temporary folder beside it, which is then renamed.

    A process killed at any moment leaves the old folder, no folder, or the new one, never a part of it. All files are
    flushed to the disk before the rename, so this also holds for a power failure.

    Args:
        folder: The folder to make; an existing one is replaced.
        write: Called once with the temporary folder.

    Raises:
        OSError: No space left, or no permission.
    """
    temporary = folder.with_name(folder.name + PARTIAL)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write(temporary)
    for path in sorted(temporary.rglob("*")):
        if path.is_file():
            share(path)
        sync(path)
    sync(temporary)
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)
    sync(folder.parent)
