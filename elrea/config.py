"""Builds the objects that a config names, validates their fields, and loads and saves configs.

A config node names a dataclass of this package or of a plugin (`_target_`), and its other keys are that class's fields.
Every mistake is an error of one line that begins with the key. Classes of other packages are refused (`elrea.plugins`).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import omegaconf
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from omegaconf.resolvers import oc
from pydantic import AfterValidator, ConfigDict, Strict, TypeAdapter, ValidationError
from yaml import YAMLError  # type: ignore[import-untyped]  # OmegaConf's own reader

from elrea import plugins
from elrea.errors import ConfigError, ElreaError, did_you_mean
from elrea.store.files import write_text

TARGET = "_target_"
PACKAGE = __name__.partition(".")[0]
VERDICT = "verdict"
"""Key of a verdict's settings, which `+experiment=does_it_pay` adds."""

MOVED = {
    "elrea.adapters.lora": "elrea.models.adapter_shape",
    "elrea.adapters.training": "elrea.models.training.settings",
    "elrea.adapters": "elrea.models",
    "elrea.backbone.load": "elrea.models.backbone",
    "elrea.backbone": "elrea.models",
    "elrea.clustering": "elrea.method.clustering",
    "elrea.commands.sweep": "elrea.commands.jobs.sweep",
    "elrea.ensemble": "elrea.method.ensemble",
    "elrea.features.extract": "elrea.method.features.gradient",
    "elrea.features": "elrea.method.features",
    "elrea.routing": "elrea.method.routing",
    "elrea.sweep": "elrea.commands.jobs.sweep",
    "elrea.tracking.wandb": "elrea.reporting.wandb.tracker",
}
"""Old module prefixes, as in the config of an older run, and their new ones; the first that matches counts."""
MOVED_DATA = {
    "exam": "exam.exam",
    **{
        name: f"sources.{name}"
        for name in "bbh dolly flan_cot gsm8k jsonl less math mathqa maths mix mmlu oasst svamp".split()
    },
}
"""Where the modules of `elrea.data` are."""


ADDED: dict[str, dict[str, Any]] = {
    "elrea.models.adapter_shape.Lora": {"rslora": False, "start": None},
}
"""Fields that configs of older versions lack, by class, and the values with which it does what it did then."""


def build(node: Any, key: str, base: type | None = None) -> Any:
    """Makes what a node names; nodes inside it that name something are made first.

    Args:
        node: a node of a composed config, or plain containers. Without `_target_` it comes back
            as plain containers, with what was made inside.
        key: where the node stands in the config, for the messages.
        base: the class that the named one has to derive from, if it is known.

    Raises:
        ConfigError: what is wrong, in one line that begins with the key.
    """
    contained = _contain(node, key)
    if base is not None:
        target = contained.get(TARGET) if isinstance(contained, dict) else None
        if not issubclass(find(target, f"{key}.{TARGET}"), base):
            raise ConfigError(f"{key}.{TARGET}: {target} is not a subclass of {base.__name__}")
    return _build(contained, key)


def _build(node: Any, key: str) -> Any:
    if isinstance(node, list):
        return [_build(child, f"{key}[{i}]") for i, child in enumerate(node)]
    if not isinstance(node, dict):
        return node
    children = {name: _build(child, f"{key}.{name}") for name, child in node.items()}
    if TARGET not in children:
        return children
    cls = find(children.pop(TARGET), f"{key}.{TARGET}")
    return _make(cls, children, key)


def _make(cls: type, given: dict[Any, Any], key: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    for name in given:
        if name not in fields:
            raise ConfigError(f"{key}.{name}: unknown key{_nearest(str(name), fields)}")
    try:
        hints = get_type_hints(cls)
    except NameError as error:  # an annotation that exists for type checkers only
        raise ConfigError(f"{key}: {cls.__name__} is not a config class: {error}") from error
    values = {}
    for name, field in fields.items():
        if name in given:
            try:
                values[name] = fit(given[name], hints[name])
            except Misfit as misfit:
                wanted, given_value = spell(hints[name]), misfit.args[0]
                raise ConfigError(f"{key}.{name}: wants {wanted}, not {given_value}") from misfit
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{key}.{name}: missing; it wants {spell(hints[name])}")
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


def find(target: Any, key: str) -> type:
    """The class that a `_target_` names, if a config may name it.

    A check of the prefix is not enough, because a name can lead elsewhere (`elrea.store.stage.shutil.rmtree`). So one
    module of this package or of a plugin is imported, one name is looked up in it, and the result has to be a
    dataclass whose `__module__` is there too.

    Args:
        target: Full name of the class.
        key: What names it, for the messages.

    Raises:
        ConfigError: It is no such class, or of a package that is neither this one nor a plugin.
    """
    if not isinstance(target, str):
        raise ConfigError(f"{key}: wants the name of a class, not {target!r}")
    home, _, name = target.rpartition(".")
    if not re.fullmatch(rf"{PACKAGE}(\.[A-Za-z]\w*)+", target):
        plugins.check(home, f"{key}: {target!r}")
        module = plugins.load(home, key)
    else:
        module = _own_module(_moved(home), target, key)
    cls = vars(module).get(name)
    if cls is None or not _may_be_named(cls):
        classes = [name for name, value in vars(module).items() if _may_be_named(value)]
        raise ConfigError(f"{key}: {target!r} is not a config class{_nearest(name, classes)}")
    return cls


def _own_module(home: str, target: str, key: str) -> types.ModuleType:
    try:
        return importlib.import_module(home)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not f"{home}.".startswith(f"{missing}."):
            line = f"{key}: {target} needs {missing}, which is not installed"
            raise ConfigError(f"{line}: pip install {missing}") from error
        raise ConfigError(f"{key}: there is no {target}: no module {missing}") from error


def _moved(home: str) -> str:
    """The present name of a module that an older version's config names."""
    for old, new in MOVED.items():
        if home == old or home.startswith(f"{old}."):
            return new + home.removeprefix(old)
    data, _, name = home.rpartition(".")
    return f"{data}.{MOVED_DATA[name]}" if data == "elrea.data" and name in MOVED_DATA else home


def with_current_names(node: Any) -> Any:
    """Plain containers in which every `_target_` of an older version is the name that the class has now, with all
    fields that have come since."""
    if isinstance(node, list):
        return [with_current_names(child) for child in node]
    if not isinstance(node, dict):
        return node
    found = {name: with_current_names(child) for name, child in node.items()}
    if isinstance(target := found.get(TARGET), str):
        home, _, name = target.rpartition(".")
        found[TARGET] = f"{_moved(home)}.{name}"
        found = {**ADDED.get(found[TARGET], {}), **found}
    return found


def _may_be_named(value: Any) -> bool:
    return (
        isinstance(value, type)
        and dataclasses.is_dataclass(value)
        and (value.__module__.partition(".")[0] == PACKAGE or plugins.is_allowed(value.__module__))
    )


def _nearest(name: str, valid: Iterable[str]) -> str:
    valid = sorted(valid)
    guess = did_you_mean(name, valid)
    return f"{guess} (there is: {', '.join(valid)})" if valid else guess


def plain(cfg: Any) -> dict[str, Any]:
    """A composed config as plain containers, with every interpolation resolved.

    Raises:
        ConfigError: A mandatory value is missing, or an interpolation cannot be resolved.
    """
    contained = _contain(cfg, "")
    if not isinstance(contained, dict):
        raise ConfigError(f"a config is a mapping, not {contained!r}")
    return contained


def load_config(path: Path) -> DictConfig:
    """Reads a config that `save_config` wrote.

    Raises:
        ConfigError: The file is missing, is not YAML, or is not a mapping.
    """
    try:
        cfg = OmegaConf.load(path)
    except (YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} is not a YAML file: {str(error).splitlines()[0]}") from error
    if not isinstance(cfg, DictConfig):
        raise ConfigError(f"{path} is not the config of a run")
    return cfg


def leaves(cfg: DictConfig) -> dict[str, Any]:
    """Every value of a config by its dotted key, such as `clustering.k`; interpolations are not resolved."""

    def below(node: Any, key: str) -> Iterator[tuple[str, Any]]:
        if not isinstance(node, dict):
            yield key, node
            return
        for name, child in node.items():
            yield from below(child, f"{key}.{name}" if key else str(name))

    return dict(below(with_current_names(OmegaConf.to_container(cfg, resolve=False)), ""))


def save_config(cfg: DictConfig, path: Path) -> None:
    """Writes a config as YAML, with all interpolations resolved except those of environment variables.

    `${oc.env:NAME}` is kept wherever a value comes from it, because a saved config may be shared, and values of one
    machine's environment (an API key, a home folder) must not be shared with it.

    Raises:
        ConfigError: An interpolation cannot be resolved.
        StoreError: The file cannot be written.
    """
    write_text(path, OmegaConf.to_yaml(OmegaConf.create(shareable(cfg))))


def shareable(cfg: DictConfig) -> Any:
    """A config as `save_config` writes it, as plain containers.

    Raises:
        ConfigError: An interpolation cannot be resolved.
    """
    register_resolver("oc.env", _env_interpolation)
    try:
        return _contain(cfg, "", missing=True)
    finally:
        register_resolver("oc.env", oc.env)


def register_resolver(name: str, resolver: Any, *, use_cache: bool = False) -> None:
    """Registers or replaces it, by the method of OmegaConf 2.4 or, with the same arguments, by the one of 2.3."""
    old = tuple(map(int, omegaconf.__version__.split(".")[:2])) < (2, 4)
    known: Any = OmegaConf  # 2.3 has a register_resolver too, of other arguments
    method = known.register_new_resolver if old else known.register_resolver
    method(name, resolver, replace=True, use_cache=use_cache)


def _contain(node: Any, key: str, missing: bool = False) -> Any:
    """Converts a node to plain containers, resolved; `missing` accepts mandatory values ("???") that are not set."""
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
            raise ConfigError(f"{where}: has to be given: set {where}=...") from error
        raise ConfigError(f"{where}: {(error.msg or str(error)).splitlines()[0]}") from error


def _env_interpolation(name: str, *default: Any) -> str:
    """Replaces the resolver `oc.env` while saving: returns the interpolation itself, not the variable's value."""
    words = [name]
    for value in default:
        text = "null" if value is None else str(value)
        if not text.startswith("${") and not re.fullmatch(r"[\w./:@+-]*", text):
            text = "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
        words.append(text)
    return f"${{oc.env:{','.join(words)}}}"


class Misfit(ValueError):
    """A value of the wrong type; `args[0]` is the value as messages show it."""


def fit(value: Any, hint: Any) -> Any:
    """Validates a value against an annotation with pydantic's strict mode, and converts it.

    Text is never read as a number, and `true` is not 1. An int becomes a float, a list a tuple, and text a Path, where
    the annotation wants one.

    Args:
        value: Plain containers and scalars, or an object that was made from a node.
        hint: A resolved annotation: a class, `X | Y`, `Literal`, or a container of such.

    Raises:
        Misfit: The value, or part of it, has another type.
    """
    try:
        return _validator(hint).validate_python(value)
    except ValidationError as error:
        part = value if _is_union(hint) else error.errors(include_url=False)[0]["input"]
        text = "null" if part is None else repr(part)
        short = text if len(text) <= 60 else f"{text[:57]}... ({type(part).__name__})"
        raise Misfit(short) from error


@functools.cache
def _validator(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(_annotation(hint), config=ConfigDict(strict=True))


def _annotation(hint: Any) -> Any:
    """The annotation with what pydantic's strict mode would otherwise refuse, or accept too much of.

    Strict mode takes neither lists for tuples nor text for paths, takes `true` for Literal[1], and would make a
    dataclass from a mapping without `_target_`.
    """
    origin, args = get_origin(hint) or hint, get_args(hint)
    if hint is Any or isinstance(hint, TypeVar):
        return Any
    if _is_union(hint):
        return Union[tuple(map(_annotation, args))]  # noqa: UP007  # a tuple of alternatives
    if origin in (int, float, bool, str, None, type(None)):
        return hint
    if origin is Path:
        return Annotated[Path, Strict(False)]
    if origin is Sequence:
        origin, args = tuple, (*args, ...) if args else ()
    if origin in (tuple, list, dict, Mapping):
        items = tuple(arg if arg is ... else _annotation(arg) for arg in args)
        return Annotated[origin[items] if items else origin, Strict(False)]
    check = partial(_one_of, args) if origin is Literal else partial(_instance_of, origin)
    return Annotated[Any, AfterValidator(check)]


def _one_of(choices: tuple[Any, ...], value: Any) -> Any:
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise ValueError("none of the choices")
    return value


def _instance_of(cls: Any, value: Any) -> Any:
    try:
        matches = isinstance(value, cls)
    except TypeError:  # a protocol without isinstance: accept any object, but no plain value
        matches = not isinstance(value, str | int | float | list | dict | None)
    if not matches:
        raise ValueError("another type")
    return value


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def spell(hint: Any) -> str:
    """The type as messages show it: "int or null", without module names."""
    if get_origin(hint) is Literal:
        return " or ".join(repr(choice) for choice in get_args(hint))
    if _is_union(hint):
        return " or ".join(spell(arg) for arg in get_args(hint))
    if hint is None or hint is type(None):
        return "null"
    if get_args(hint):
        inner = ", ".join("..." if arg is ... else spell(arg) for arg in get_args(hint))
        return f"{spell(get_origin(hint))}[{inner}]"
    return str(getattr(hint, "__name__", hint))
