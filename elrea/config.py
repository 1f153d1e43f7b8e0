"""From a config node to the object that it names, and back to a file.

A node names a dataclass of this package (`_target_`); its other keys are that class's fields. Every
mistake in it becomes one line that begins with the key. Classes of other packages cannot be named:
what is needed of them, a class of this package makes.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from omegaconf.resolvers import oc
from yaml import YAMLError  # type: ignore[import-untyped]  # OmegaConf's own reader

from elrea.errors import ConfigError, ElreaError, did_you_mean
from elrea.fields import Misfit, fit, spell
from elrea.files import write_text

TARGET = "_target_"
PACKAGE = __name__.partition(".")[0]


def build(node: Any, key: str) -> Any:
    """Makes what a node names; nodes inside it that name something are made first.

    Args:
        node: a node of a composed config, or plain containers. Without `_target_` it comes back
            as plain containers, with what was made inside.
        key: where the node stands in the config, for the messages.

    Raises:
        ConfigError: what is wrong, in one line that begins with the key.
    """
    return _build(_contain(node, key), key)


def _build(node: Any, key: str) -> Any:
    if isinstance(node, list):
        return [_build(child, f"{key}[{i}]") for i, child in enumerate(node)]
    if not isinstance(node, dict):
        return node
    children = {name: _build(child, f"{key}.{name}") for name, child in node.items()}
    if TARGET not in children:
        return children
    cls = _find(children.pop(TARGET), f"{key}.{TARGET}")
    return _make(cls, children, key)


def _make(cls: type, given: dict[Any, Any], key: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for name in given:
        if name not in fields:
            raise ConfigError(f"{key}.{name}: unknown key{_nearest(str(name), fields)}")
    try:
        hints = get_type_hints(cls)
    except NameError as error:  # its annotations are not there at run time: made for other use
        raise ConfigError(f"{key}: {cls.__name__} is no config class: {error}") from error
    values = {}
    for name, field in fields.items():
        if name in given:
            try:
                values[name] = fit(given[name], hints[name])
            except Misfit as misfit:
                wanted, got = spell(hints[name]), misfit.args[0]
                raise ConfigError(f"{key}.{name}: wants {wanted}, not {got}") from misfit
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{key}.{name}: not given; it wants {spell(hints[name])}")
    try:
        return cls(**values)
    except ConfigError as error:
        line = str(error)
        if not line.startswith(key):  # "rate=-1: ..." names a field of this node
            line = f"{key}{'.' if line.partition('=')[0] in fields else ': '}{line}"
        raise ConfigError(line) from error
    except ElreaError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}: {error}") from error


def _find(target: Any, key: str) -> type:
    """The class that a `_target_` names, if it is one that a config may name.

    A name's beginning says nothing about what it leads to (`elrea.store.shutil.rmtree`), so that
    one module of this package is imported, one name is looked up in it, and what is found there
    has to be a dataclass that says itself that it comes from this package.
    """
    if not isinstance(target, str):
        raise ConfigError(f"{key}: wants the name of a class, not {target!r}")
    if not re.fullmatch(rf"{PACKAGE}(\.[A-Za-z]\w*)+", target):
        raise ConfigError(f"{key}: {target!r} is refused: a config names classes of {PACKAGE} only")
    home, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(home)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not f"{home}.".startswith(f"{missing}."):
            line = f"{key}: {target} needs {missing}, which is not installed"
            raise ConfigError(f"{line}: pip install {missing}") from error
        raise ConfigError(f"{key}: there is no {target}: no module {missing}") from error
    found = vars(module).get(name)
    if found is None or not _may_be_named(found):
        classes = [name for name, value in vars(module).items() if _may_be_named(value)]
        raise ConfigError(f"{key}: {target!r} is no config class{_nearest(name, classes)}")
    return found


def _may_be_named(value: Any) -> bool:
    return (
        isinstance(value, type)
        and dataclasses.is_dataclass(value)
        and value.__module__.partition(".")[0] == PACKAGE
    )


def _nearest(name: str, valid: Iterable[str]) -> str:
    valid = sorted(valid)
    guess = did_you_mean(name, valid)
    return f"{guess} (there is: {', '.join(valid)})" if valid else guess


def plain(cfg: Any) -> dict[str, Any]:
    """A composed config as plain containers, with every interpolation resolved.

    Raises:
        ConfigError: a value that had to be given was not, or an interpolation leads nowhere.
    """
    contained = _contain(cfg, "")
    if not isinstance(contained, dict):
        raise ConfigError(f"a config is a mapping, not {contained!r}")
    return contained


def load_config(path: Path) -> DictConfig:
    """Reads what `save_config` wrote.

    Raises:
        ConfigError: It is no YAML file, or holds no mapping.
    """
    try:
        cfg = OmegaConf.load(path)
    except (YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} is no YAML file: {str(error).splitlines()[0]}") from error
    if not isinstance(cfg, DictConfig):
        raise ConfigError(f"{path} is no config of a run")
    return cfg


def leaves(cfg: DictConfig) -> dict[str, Any]:
    """Every value of a config by its key with points, as `clustering.k`; interpolations stay as they are written."""

    def below(node: Any, key: str) -> Iterator[tuple[str, Any]]:
        if not isinstance(node, dict):
            yield key, node
            return
        for name, child in node.items():
            yield from below(child, f"{key}.{name}" if key else str(name))

    return dict(below(OmegaConf.to_container(cfg, resolve=False), ""))


def save_config(cfg: DictConfig, path: Path) -> None:
    """Writes a config as YAML with everything resolved but the environment's values.

    `${oc.env:NAME}` stays as it is, wherever a value comes from it: a saved config travels, and
    what is in the environment of one machine (a key, a home folder) is not to travel with it.

    Raises:
        ConfigError: an interpolation leads nowhere.
        StoreError: the file cannot be written.
    """
    OmegaConf.register_new_resolver("oc.env", _spell_env, replace=True)
    try:
        contained = _contain(cfg, "", missing=True)
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)
    write_text(path, OmegaConf.to_yaml(OmegaConf.create(contained)))


def _contain(node: Any, key: str, missing: bool = False) -> Any:
    """Plain containers of a node, resolved; `missing` lets "???" through."""
    if isinstance(node, dict):
        return {name: _contain(child, f"{key}.{name}") for name, child in node.items()}
    if isinstance(node, list | tuple):
        return [_contain(child, f"{key}[{i}]") for i, child in enumerate(node)]
    if not isinstance(node, DictConfig | ListConfig):
        return node
    try:
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=not missing)
    except OmegaConfBaseException as error:
        where = error.full_key or key
        if isinstance(error, MissingMandatoryValue):
            raise ConfigError(f"{where}: has to be given: say {where}=...") from error
        raise ConfigError(f"{where}: {(error.msg or str(error)).splitlines()[0]}") from error


def _spell_env(name: str, *default: Any) -> str:
    """What stands for an environment variable in a saved config: the interpolation itself."""
    words = [name]
    for value in default:
        text = "null" if value is None else str(value)
        if not text.startswith("${") and not re.fullmatch(r"[\w./:@+-]*", text):
            text = "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
        words.append(text)
    return f"${{oc.env:{','.join(words)}}}"
