"""A config node becomes the object that it names, and every mistake an error of one line with its key."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from omegaconf import OmegaConf

from elrea.config import build, plain, save_config
from elrea.errors import ConfigError, DataError


@dataclass(frozen=True)
class Inner:
    rank: int = 8


@dataclass(frozen=True)
class Outer:
    clusters: int
    rate: float = 0.1
    name: str | None = None
    targets: list[str] | Literal["all-linear"] = "all-linear"
    pair: tuple[int, float] = (1, 1.0)
    shares: dict[str, float] = field(default_factory=dict)
    root: Path = Path()
    fast: bool = False
    inner: Inner = field(default_factory=Inner)
    anything: Any = None


@dataclass(frozen=True)
class Strict:
    top: int = 1

    def __post_init__(self) -> None:
        if self.top == 0:
            raise ValueError("top has to be 1 or more")
        if self.top == -1:
            raise ConfigError("top has to be 1 or more")
        if self.top == -2:
            raise DataError("no such file: x")


@dataclass
class Internal:
    """A dataclass that is not for configs: its annotation does not exist at run time."""

    model: NotThere  # type: ignore[name-defined]  # noqa: F821


class NoDataclass:
    pass


@pytest.fixture(autouse=True)
def classes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Puts the classes above in a module of the package, with other names that a module may have."""
    module = types.ModuleType("elrea.sample")
    for cls in (Outer, Inner, Strict, Internal, NoDataclass):
        monkeypatch.setattr(cls, "__module__", "elrea.sample")
        setattr(module, cls.__name__, cls)
    # get_type_hints looks these up in the module of the class.
    vars(module).update(Path=Path, Any=Any, Literal=Literal)
    vars(module).update(os=os, types=types, function=lambda: None, Foreign=Foreign)
    monkeypatch.setitem(sys.modules, "elrea.sample", module)
    yield


@dataclass
class Foreign:
    """A dataclass, but of another package."""


def node(**fields: Any) -> dict[str, Any]:
    return {"_target_": "elrea.sample.Outer", "clusters": 4, **fields}


def message(of: Any, key: str = "clustering") -> str:
    with pytest.raises(ConfigError) as caught:
        build(of, key)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what is made


def test_a_node_becomes_its_class_with_nodes_inside() -> None:
    cfg = OmegaConf.create(
        {
            "rank": 2,
            "clustering": node(
                rate=1,
                targets=["q", "v"],
                pair=[3, 4],
                shares={"base": 1},
                root="some/folder",
                inner={"_target_": "elrea.sample.Inner", "rank": "${rank}"},
                anything=[{"deep": {"_target_": "elrea.sample.Inner"}}],
            ),
        }
    )
    made = build(cfg.clustering, "clustering")
    assert made == Outer(
        clusters=4,
        rate=1.0,
        targets=["q", "v"],
        pair=(3, 4.0),
        shares={"base": 1.0},
        root=Path("some/folder"),
        inner=Inner(2),
        anything=[{"deep": Inner()}],
    )
    # Stage keys are made of these values: 1 has to become 1.0, and lists plain lists.
    assert type(made.rate) is float and type(made.targets) is list


def test_a_node_without_a_target_stays_plain_around_its_objects() -> None:
    cfg = OmegaConf.create({"a": [1, {"_target_": "elrea.sample.Inner"}], "b": None})
    made = build(cfg, "trainer")
    assert made == {"a": [1, Inner()], "b": None} and type(made) is dict


# --- what is refused

ATTACKS = [
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "elrea",
    "elrea.store",
    "elrea.store.stage.os.system",
    "elrea.store.stage.shutil.rmtree",
    "elrea.store.stage.write_json",
    "elrea.store.stage.Path",
    "elrea.store.stage.Store",
    "elrea.config.importlib.import_module",
    "elrea.sample.os",
    "elrea.sample.os.system",
    "elrea.sample.types.ModuleType",
    "elrea.sample.function",
    "elrea.sample.Foreign",
    "elrea.sample.NoDataclass",
    "elrea.sample.Outer.__init__",
    "elrea.sample.__class__",
    "elrea.__init__.importlib.import_module",
    "elrea..store.os",
    ".elrea.store.Store",
    "elreas.sample.Outer",
    "elrea.sample.Outer\n",
    "",
    7,
    None,
]


@pytest.mark.parametrize("target", ATTACKS)
@pytest.mark.parametrize("depth", ["top", "field", "list", "dict"])
def test_only_config_classes_of_this_package_are_made(
    target: Any, depth: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def caught(*args: object) -> None:
        raise AssertionError("it ran")

    monkeypatch.setattr(os, "system", caught)
    attack = {"_target_": target, "command": "true"}
    nodes = {
        "top": attack,
        "field": node(inner=attack),
        "list": node(anything=[1, [attack]]),
        "dict": node(anything={"a": {"b": attack}}),
    }
    keys = {
        "top": "clustering._target_",
        "field": "clustering.inner._target_",
        "list": "clustering.anything[1][0]._target_",
        "dict": "clustering.anything.a.b._target_",
    }
    assert message(OmegaConf.create(nodes[depth])).startswith(f"{keys[depth]}: ")


def test_nothing_outside_the_package_is_even_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elrea_evil.py").write_text("raise AssertionError('it ran')")
    monkeypatch.syspath_prepend(tmp_path)
    assert "refused" in message({"_target_": "elrea_evil.Thing"})


# --- mistakes


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"cluster": 3}, "clustering.cluster: unknown key; did you mean clusters? (there is: "),
        ({"zzz": 3}, "clustering.zzz: unknown key (there is: anything, clusters, fast, "),
        ({"_partial_": True}, "clustering._partial_: unknown key"),
        ({"clusters": "four"}, "clustering.clusters: wants int, not 'four'"),
        ({"clusters": 4.0}, "clustering.clusters: wants int, not 4.0"),
        ({"clusters": True}, "clustering.clusters: wants int, not True"),
        ({"clusters": None}, "clustering.clusters: wants int, not null"),
        ({"rate": "1e-4"}, "clustering.rate: wants float, not '1e-4'"),
        ({"rate": False}, "clustering.rate: wants float, not False"),
        ({"name": 3}, "clustering.name: wants str or null, not 3"),
        ({"fast": 1}, "clustering.fast: wants bool, not 1"),
        (
            {"targets": "linear"},
            "clustering.targets: wants list[str] or 'all-linear', not 'linear'",
        ),
        ({"targets": ["q", 1]}, "clustering.targets: wants list[str] or 'all-linear', not"),
        ({"pair": [1]}, "clustering.pair: wants tuple[int, float], not [1]"),
        ({"shares": {"a": "b"}}, "clustering.shares: wants dict[str, float], not 'b'"),
        ({"rate": 10**400}, "clustering.rate: wants float, not 1000"),
        ({"inner": {"rank": 2}}, "clustering.inner: wants Inner, not {'rank': 2}"),
        ({"name": ["x" * 500]}, "... (list)"),
    ],
)
def test_a_mistake_is_named_by_its_key(fields: dict, said: str) -> None:
    assert said in message(node(**fields))


def test_a_missing_field() -> None:
    assert message({"_target_": "elrea.sample.Outer"}) == (
        "clustering.clusters: missing; it wants int"
    )


def test_a_mistake_deep_inside_has_its_full_key() -> None:
    inner = {"_target_": "elrea.sample.Inner", "rang": 1}
    assert message(node(anything=[{"x": inner}])).startswith(
        "clustering.anything[0].x.rang: unknown key; did you mean rank?"
    )


def test_a_misspelt_class_suggests_the_nearest() -> None:
    said = message({"_target_": "elrea.sample.Outr"})
    assert "did you mean Outer? (there is: Inner, Internal, Outer, Strict)" in said
    assert "no module elrea.sampel" in message({"_target_": "elrea.sampel.Outer"})


def test_a_package_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import elrea

    (tmp_path / "needy.py").write_text("import not_there_at_all.deep\n")
    monkeypatch.setattr(elrea, "__path__", [*elrea.__path__, str(tmp_path)])
    said = message({"_target_": "elrea.needy.Thing"})
    assert "needs not_there_at_all, which is not installed" in said


def test_a_dataclass_that_is_not_for_configs() -> None:
    assert "Internal is not a config class" in message({"_target_": "elrea.sample.Internal"})


@pytest.mark.parametrize("top", [0, -1])
def test_a_value_that_the_class_refuses(top: int) -> None:
    assert message({"_target_": "elrea.sample.Strict", "top": top}) == (
        "clustering: top has to be 1 or more"
    )


def test_other_errors_of_the_class_are_passed_on() -> None:
    with pytest.raises(DataError, match=r"^no such file: x$"):
        build({"_target_": "elrea.sample.Strict", "top": -2}, "data")


def test_missing_values_and_broken_interpolations() -> None:
    cfg = OmegaConf.create({"data": node(name="???"), "other": node(name="${nowhere}")})
    assert message(cfg.data, "data") == "data.name: has to be given: set data.name=..."
    assert message(cfg.other, "other").startswith("other.name: ")
    with pytest.raises(ConfigError, match=r"^data\.name: has to be given"):
        plain(cfg)


# --- saving


def test_plain_is_resolved() -> None:
    made = plain(OmegaConf.create({"seed": 3, "data": {"seed": "${seed}", "parts": ["${seed}"]}}))
    assert made == {"seed": 3, "data": {"seed": 3, "parts": [3]}}
    assert type(made["data"]) is dict and type(made["data"]["parts"]) is list


def test_a_saved_config_holds_no_value_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "s3cret")
    cfg = OmegaConf.create(
        {
            "seed": 3,
            "copy": "${seed}",
            "direct": "${oc.env:SECRET}",
            "inside": "key=${oc.env:SECRET}!",
            "through": {"another": "${direct}"},
            "whole": "${through}",
            "listed": ["${inside}"],
            "decoded": "${oc.decode:${oc.env:SECRET}}",
            "default": "${oc.env:UNSET,'a, b'}",
            "nothing": "${oc.env:UNSET,null}",
            "chain": "${oc.env:UNSET,${oc.env:SECRET}}",
            "missing": "???",
        }
    )
    save_config(cfg, tmp_path / "run" / "config.yaml")
    text = (tmp_path / "run" / "config.yaml").read_text()
    assert "s3cret" not in text and "copy: 3\n" in text

    # Reading it gives the same values, here and in another environment.
    again = OmegaConf.load(tmp_path / "run" / "config.yaml")
    expected = OmegaConf.to_container(cfg, resolve=True)
    assert OmegaConf.to_container(again, resolve=True) == expected
    assert cfg.direct == "s3cret", "the resolver oc.env was not restored"
    monkeypatch.setenv("SECRET", "another")
    assert again.whole.another == "another" and again.listed[0] == "key=another!"
