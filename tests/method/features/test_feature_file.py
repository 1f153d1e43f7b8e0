"""Files of features are valid safetensors files, and damage gives an error of one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from elrea.errors import DataError, ElreaError, StoreError
from elrea.method.features.to_disk import NAME, create, open_features, write_rows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / NAME


@pytest.mark.parametrize(("kind", "dtype"), [("F16", np.float16), ("F32", np.float32)])
def test_rows_written_in_any_order_are_read_by_safetensors(path: Path, kind, dtype) -> None:
    values = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
    create(path, 7, 5, kind)
    assert not open_features(path).any()
    write_rows(path, np.array([6, 0, 3]), values[[6, 0, 3]])
    write_rows(path, np.array([1, 2, 4, 5]), values[[1, 2, 4, 5]])
    mapped = open_features(path, 7, 5)
    assert isinstance(mapped, np.memmap) and not mapped.flags.writeable
    np.testing.assert_array_equal(mapped, values.astype(dtype))
    (name, loaded), *others = load_file(path).items()
    assert name == "features" and not others and loaded.dtype == dtype
    np.testing.assert_array_equal(loaded, mapped)
    assert [p.name for p in path.parent.iterdir()] == [NAME]


def test_what_safetensors_writes_is_read(path: Path) -> None:
    rows = np.arange(6, dtype=np.float16).reshape(3, 2)
    save_file({"features": rows}, path, metadata={"format": "np"})
    np.testing.assert_array_equal(open_features(path, 3, 2), rows)


def test_another_shape_is_named(path: Path) -> None:
    create(path, 7, 5, "F16")
    with pytest.raises(DataError, match=r"features of 5 dimensions, not 6: .*another projection"):
        open_features(path, 7, 6)
    with pytest.raises(DataError, match=r"features of 7 examples, not 8: it is of other data"):
        open_features(path, 8, 5)


def test_damage_is_named_in_one_line(path: Path) -> None:
    create(path, 7, 5, "F32")
    whole = path.read_bytes()
    broken = {
        "cut short": whole[:-1],
        "too long": whole + b"x",
        "in the header": whole[:20],
        "empty": b"",
        "a long header": (1 << 60).to_bytes(8, "little") + whole[8:],
        "no JSON": whole[:8] + b"[" + whole[9:],
        "another tensor": whole.replace(b'"features"', b'"fortunes"'),
        "another type": whole.replace(b'"F32"', b'"I32"'),
        "other offsets": whole.replace(b"[0,140]", b"[4,144]"),
        "a shape of three": whole.replace(b"[7,5]", b"[7,1,5]".ljust(5))[: len(whole) + 2],
    }
    for what, content in broken.items():
        path.write_bytes(content)
        with pytest.raises(StoreError) as caught:
            open_features(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value), what
    path.unlink()
    with pytest.raises(ElreaError, match="no such file"):
        open_features(path)
