"""Files that are nearly right: bytes and JSON values changed at drawn places."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

TOKENS = [
    b"", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\n", b"\r", b'"', b"'", b",", b"[", b"{", b"]", b"}", b":", b"\\",
    b"null", b"true", b"NaN", b"Infinity", b"-1", b"0", b"1e999", b"-1e308", b"1e-400", b"9" * 400, b"9" * 5000,
    b"[" * 2000, b'{"a":' * 600, b"\\ud800", "\u202e\u0000é🙂".encode(), b"../../etc/passwd", b"=1+1", b"__class__",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 3, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, 5e-324, "", "a", "é🙂\u202e", "\ud800",
    "x" * 5000, "../../x", "/etc/passwd", [], {}, [[]], [None], ["a"], [0, 0], {"": 0}, {"a": {"a": {}}},
]  # fmt: skip


def values() -> st.SearchStrategy[Any]:
    return (
        st.sampled_from(VALUES)
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text()
    )


@st.composite
def broken_bytes(draw: st.DrawFn, whole: bytes) -> bytes:
    """Some of: cut, a bit flipped, a part left out, repeated, or replaced by something awkward."""
    data = whole
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.sampled_from([0, 1, 2, 8, 64])))
        how = draw(st.sampled_from(["cut", "flip", "drop", "twice", "put", "put"]))
        if how == "cut":
            data = data[:at]
        elif how == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
        elif how == "drop":
            data = data[:at] + data[end:]
        elif how == "twice":
            data = data[:end] + data[at:]
        else:
            data = data[:at] + draw(st.sampled_from(TOKENS)) + data[end:]
    return data


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside: Any = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        inside = enumerate(value)
    return [path, *(found for name, child in inside for found in _places(child, (*path, name)))]


@st.composite
def broken_json(draw: st.DrawFn, whole: Any) -> Any:
    """The same value with something else in a few places, or something missing, or more."""
    value = json.loads(json.dumps(whole))
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(_places(value)))
        other = copy.deepcopy(draw(values()))
        if not path:
            value = other
            continue
        place = value
        for name in path[:-1]:
            place = place[name]
        if draw(st.booleans()) or isinstance(place, list):
            place[path[-1]] = other
        elif draw(st.booleans()):
            del place[path[-1]]
        else:
            place[draw(st.sampled_from(["", "more", "_target_", "class"]))] = other
    return value


@st.composite
def broken(draw: st.DrawFn, whole: bytes, is_json: bool) -> bytes:
    """Either kind of change; of JSON lines, in one line."""
    if is_json and draw(st.booleans()):
        lines = whole.decode().splitlines() if whole.count(b"\n{") else [whole.decode()]
        number = draw(st.integers(0, len(lines) - 1))
        lines[number] = json.dumps(draw(broken_json(json.loads(lines[number]))))
        return "\n".join(lines).encode()
    return draw(broken_bytes(whole))
