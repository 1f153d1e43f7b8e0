"""Plugins: what a file names is imported from packages that the user allowed, and from no others."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from elrea import plugins
from elrea.config import build
from elrea.errors import ConfigError

PART = """
import dataclasses, pathlib
pathlib.Path({sign!r}).touch()

@dataclasses.dataclass(frozen=True)
class Part:
    size: int = 1

class Bare:
    pass
"""


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test allows and imports is forgotten after it."""
    monkeypatch.setattr(plugins, "_named", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    plugins.installed.cache_clear()
    plugins.source_of.cache_clear()
    yield
    plugins.installed.cache_clear()
    plugins.source_of.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith("outer"):
            del sys.modules[name]


@pytest.fixture
def sign(tmp_path: Path) -> Path:
    """A file that exists as soon as the plugin was imported."""
    return tmp_path / "sign"


@pytest.fixture
def package(tmp_path: Path, sign: Path) -> Path:
    """The folder `outer`, a package with a module `part`, beside which nothing is on sys.path."""
    folder = tmp_path / "here" / "outer"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "part.py").write_text(PART.format(sign=str(sign)))
    return folder


def made(target: str = "outer.part.Part", **fields: object) -> object:
    return build({"_target_": target, **fields}, "clustering")


def announce(place: Path, value: str) -> None:
    """What pip leaves of a distribution with an entry point, without its code."""
    info = place / "outer_dist-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outer-dist\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{plugins.GROUP}]\nany = {value}\n")


def test_nothing_is_imported_that_nobody_allowed(package: Path, sign: Path) -> None:
    sys.path.append(str(package.parent))
    with pytest.raises(ConfigError) as caught:
        made()
    assert str(caught.value) == (
        "clustering._target_: 'outer.part.Part' is refused: a config may name classes of elrea and of plugins only; to "
        "allow outer, which runs its code, type plugins=[outer] (--plugins outer after other commands than run; "
        "elrea.plugins.allow(['outer']) in Python), or install it with an entry point in the group elrea.plugins"
    )
    assert not sign.exists() and "outer" not in sys.modules


def test_a_plugin_by_name_is_found_in_the_working_folder(
    package: Path, sign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(package.parent)
    plugins.allow(["outer"])
    assert not sign.exists(), "allowed, but not named by anything yet"
    part = made(size=3)
    assert sign.exists() and dataclasses.asdict(part) == {"size": 3}  # type: ignore[call-overload]
    assert sys.path[-1] == str(package.parent), "it shadows nothing that is installed"


def test_an_installed_plugin(package: Path, tmp_path: Path, sign: Path) -> None:
    sys.path.append(str(package.parent))
    announce(package.parent, "outer.part")
    assert type(made()).__name__ == "Part" and sign.exists()
    for other in ("outer.Part", "outer.other.Part", "outerpart.Part"):
        with pytest.raises(ConfigError, match="is refused"):
            made(other)


def test_a_folder_that_somebody_made_announces_nothing(
    package: Path, sign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -m` and notebooks have the working folder on sys.path."""
    announce(package.parent, "outer")
    monkeypatch.chdir(package.parent)
    for place in ("", str(package.parent)):
        monkeypatch.setattr(sys, "path", [place, *sys.path])
        plugins.installed.cache_clear()
        with pytest.raises(ConfigError, match="is refused"):
            made()
    assert not sign.exists()


@pytest.mark.parametrize(
    "target",
    [
        "os.system", "subprocess.Popen", "outer", "", "outer..part.Part", "outer.part._x.Part", "outer.__main__.Part",
        "outer.part.dataclasses.Field", "outer.part.Bare", "outer.part.pathlib", "elrea.plugins.sys.exit",
        "builtins.eval", "dataclasses.Field",
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere(target: str, package: Path) -> None:
    sys.path.append(str(package.parent))
    (package / "__main__.py").write_text("raise SystemExit('run')")
    plugins.allow(["outer"])
    with pytest.raises(ConfigError) as caught:
        made(target)
    assert str(caught.value).startswith("clustering._target_: ")
    assert "plugins=[os]" not in str(caught.value), "nobody is told to allow Python itself"


def test_a_plugin_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"^plugins: there is no module no_such: install it, or "):
        plugins.allow(["no_such"])
    for name in ("a-b", "../x", "x.py/", "", "_x", "a b"):
        with pytest.raises(ConfigError, match="is not the name of a package"):
            plugins.allow([name])
    assert plugins.named() == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\nraise KeyError('k')", r"cannot be imported: KeyError: 'k' \(.*part\.py:2\)$"),
        ("x = (\n", r"cannot be imported: SyntaxError: .*part\.py:1\)$"),
        ("raise SystemExit(3)", r"cannot be imported: SystemExit: 3 \(.*part\.py:1\)$"),
        ("import no_such_library", r"outer\.part needs no_such_library, which is not installed$"),
        ("from elrea.data import nothing", r"cannot be imported: ImportError: .*part\.py:1\)$"),
    ],
)
def test_a_plugin_that_fails_to_import(text: str, said: str, package: Path) -> None:
    sys.path.append(str(package.parent))
    (package / "part.py").write_text(text)
    plugins.allow(["outer"])
    with pytest.raises(ConfigError, match=said) as caught:
        made()
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"_target_: there is no module outer\.prt$"):
        made("outer.prt.Part")


def test_a_key_names_the_code(package: Path) -> None:
    sys.path.append(str(package.parent))
    plugins.allow(["outer"])
    found = [plugins.key_name(type(made()))]
    for file, text in (("other.py", "x = 1"), ("part.py", "y = 1"), ("deep/c.py", "z = 1")):
        (package / file).parent.mkdir(exist_ok=True)
        (package / file).write_text(text)
        plugins.source_of.cache_clear()  # as another process
        found.append(plugins.key_name(sys.modules["outer.part"].Part))
    assert len(set(found)) == 4 and all(name.startswith("outer.part.Part@") for name in found)
    (package / "notes.md").write_text("not code")
    (package / "__pycache__").mkdir(exist_ok=True)
    (package / "__pycache__" / "part.cpython-311.pyc").write_bytes(b"changed")
    (package / ".hidden").mkdir()
    (package / ".hidden" / "a.py").write_text("")
    plugins.source_of.cache_clear()
    assert plugins.key_name(sys.modules["outer.part"].Part) == found[-1]
    assert plugins.key_name(ConfigError) == "ConfigError", "ours has its name alone"


def test_a_folder_without_init_and_a_single_module(tmp_path: Path) -> None:
    sys.path.append(str(tmp_path))
    (tmp_path / "outer_space").mkdir()
    (tmp_path / "outer_space" / "a.py").write_text("x = 1")
    (tmp_path / "outer_space" / "inner").mkdir()
    (tmp_path / "outer_space" / "inner" / "__init__.py").write_text("x = 1")
    (tmp_path / "outer_file.py").write_text("x = 1")
    inner = plugins.source_of("outer_space.inner")
    first = plugins.source_of("outer_space.a"), plugins.source_of("outer_file")
    (tmp_path / "outer_space" / "b.py").write_text("x = 1")
    (tmp_path / "outer_other.py").write_text("x = 1")
    plugins.source_of.cache_clear()
    assert plugins.source_of("outer_space.a") != first[0], "a may import b"
    assert plugins.source_of("outer_file") == first[1]
    assert plugins.source_of("outer_space.inner") == inner, "a package in a namespace is alone"
    with pytest.raises(ConfigError, match="has no source file"):
        plugins.source_of("sys")


def test_a_key_covers_inherited_code(package: Path, tmp_path: Path) -> None:
    """Of a package beside it, and of another plugin; not of an installed package, whose version pip knows."""
    sys.path += [str(package.parent), str(tmp_path / "site-packages")]
    for name, place in (
        ("outer_help", package.parent),
        ("outer_far", tmp_path / "site-packages"),
        ("outer_more", tmp_path / "site-packages"),
    ):
        (place / name).mkdir(parents=True)
        (place / name / "__init__.py").write_text("class Base:\n    x = 1\n")
    bases = ("outer_help", "outer_far", "outer_more")
    imports = "".join(f"import {name}\n" for name in bases)
    listed = ", ".join(f"{name}.Base" for name in bases)
    (package / "part.py").write_text(f"{imports}class Mid({listed}): pass\nclass Part(Mid): pass\n")
    plugins.allow(["outer", "outer_more"])
    part = plugins.load("outer.part", "here").Part
    found = [plugins.key_name(part)]
    assert plugins.code_of(sys.modules["outer_help"].Base) == plugins.source_of("outer_help")
    for name in bases:
        file = sys.modules[name].__file__
        assert file is not None
        Path(file).write_text("class Base:\n    x = 2\n")
        plugins.source_of.cache_clear()  # as another process
        found.append(plugins.key_name(part))
    assert found[1] != found[0] and found[2] == found[1] and found[3] != found[2]


def test_a_key_covers_linked_subpackages(package: Path, tmp_path: Path) -> None:
    sys.path.append(str(package.parent))
    plain = plugins.source_of("outer")
    linked = tmp_path / "elsewhere"
    (linked / "deep").mkdir(parents=True)
    (linked / "deep" / "code.py").write_text("x = 1")
    (package / "loop").symlink_to(package)
    plugins.source_of.cache_clear()
    assert plugins.source_of("outer") == plain, "a circle adds nothing"
    (package / "linked").symlink_to(linked)
    (linked / "deep" / "back").symlink_to(package)
    plugins.source_of.cache_clear()
    first = plugins.source_of("outer")
    (linked / "deep" / "code.py").write_text("x = 2")
    plugins.source_of.cache_clear()
    assert len({plain, first, plugins.source_of("outer")}) == 3
