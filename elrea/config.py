"""From a config node to the object that it names, and back to a file.

A node names a dataclass of this package (`_target_`); its other keys are that class's fields. Every
mistake in it becomes one line that begins with the key. Classes of other packages cannot be named:
what is needed of them, a class of this package makes.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from omegaconf.resolvers import oc
from yaml import YAMLError  # type: ignore[import-untyped]  # OmegaConf's own reader

from elrea.errors import ConfigError, ElreaError, did_you_mean
from elrea.store.files import write_text

TARGET = "_target_"
PACKAGE = __name__.partition(".")[0]

MOVED = {
    "elrea.adapters.training": "elrea.models.training.settings",
    "elrea.adapters": "elrea.models",
    "elrea.backbone.load": "elrea.models.backbone",
    "elrea.backbone": "elrea.models",
    "elrea.clustering": "elrea.method.clustering",
    "elrea.ensemble": "elrea.method.ensemble",
    "elrea.features.extract": "elrea.method.features.gradient",
    "elrea.features": "elrea.method.features",
    "elrea.routing": "elrea.method.routing",
    "elrea.sweep": "elrea.commands.sweep",
    "elrea.tracking.wandb": "elrea.reporting.wandb.tracker",
}
"""Where modules are that a config of an older version names: prefix by prefix, the first that fits."""
MOVED_DATA = {
    "exam": "exam.exam",
    **{
        name: f"sources.{name}"
        for name in "bbh dolly flan_cot gsm8k jsonl less math mathqa maths mix mmlu oasst svamp".split()
    },
}
"""Where the modules of `elrea.data` are."""


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
        if not issubclass(_find(target, f"{key}.{TARGET}"), base):
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

    A name's beginning says nothing about what it leads to (`elrea.store.stage.shutil.rmtree`), so that
    one module of this package is imported, one name is looked up in it, and what is found there
    has to be a dataclass that says itself that it comes from this package.
    """
    if not isinstance(target, str):
        raise ConfigError(f"{key}: wants the name of a class, not {target!r}")
    if not re.fullmatch(rf"{PACKAGE}(\.[A-Za-z]\w*)+", target):
        raise ConfigError(f"{key}: {target!r} is refused: a config names classes of {PACKAGE} only")
    home, _, name = target.rpartition(".")
    home = _moved(home)
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


def _moved(home: str) -> str:
    """The module that has come in the place of one that an older version's config names."""
    for old, new in MOVED.items():
        if home == old or home.startswith(f"{old}."):
            return new + home.removeprefix(old)
    data, _, name = home.rpartition(".")
    return f"{data}.{MOVED_DATA[name]}" if data == "elrea.data" and name in MOVED_DATA else home


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


class Misfit(ValueError):
    """A value that does not fit; `args[0]` spells the value."""


def fit(value: Any, hint: Any) -> Any:
    """The value as the type wants it.

    Args:
        value: plain containers and scalars, or an object that was made from a node.
        hint: a resolved annotation: a class, `X | Y`, `Literal`, or a container of such.

    Raises:
        Misfit: it does not fit, at any depth.
    """
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any or isinstance(hint, TypeVar):
        return value
    if origin in (Union, types.UnionType):
        return _first(value, args)
    if origin is Literal:
        # 1 == True, but `epochs: 1` is not `epochs: true`.
        if any(type(value) is type(choice) and value == choice for choice in args):
            return value
        raise Misfit(repr(value))
    if hint is None or hint is type(None):
        return _exactly(value, value is None)
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(_exactly(value, number))
    if hint is int:
        return _exactly(value, isinstance(value, int) and not isinstance(value, bool))
    if hint is Path:
        return Path(_exactly(value, isinstance(value, str | Path)))
    kind = origin or hint
    if kind is tuple:
        return _tuple(value, args)
    if kind is list or kind is Sequence:
        _exactly(value, isinstance(value, list | tuple))
        items = [fit(item, args[0]) for item in value] if args else list(value)
        return items if kind is list else tuple(items)
    if kind is dict or kind is Mapping:
        _exactly(value, isinstance(value, dict))
        wanted = args or (Any, Any)
        return {fit(k, wanted[0]): fit(v, wanted[1]) for k, v in value.items()}
    try:
        return _exactly(value, isinstance(value, kind))
    except TypeError:  # a protocol that cannot be asked at run time: any object, no plain value
        return _exactly(value, not isinstance(value, str | int | float | list | dict | None))


def spell(hint: Any) -> str:
    """The type in a reader's words: `int | None` and the like, without module names."""
    if get_origin(hint) is Literal:
        return " or ".join(repr(choice) for choice in get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(spell(arg) for arg in get_args(hint))
    if hint is None or hint is type(None):
        return "null"
    if get_args(hint):
        inner = ", ".join("..." if arg is ... else spell(arg) for arg in get_args(hint))
        return f"{spell(get_origin(hint))}[{inner}]"
    return str(getattr(hint, "__name__", hint))


def _first(value: Any, hints: Sequence[Any]) -> Any:
    """The first alternative that takes the value as it is, or else the first that takes it."""
    fitting = []
    for hint in hints:
        try:
            fitting.append(fit(value, hint))
        except Misfit:
            continue
    if not fitting:
        raise Misfit(_got(value))
    return next((made for made in fitting if type(made) is type(value)), fitting[0])


def _tuple(value: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    _exactly(value, isinstance(value, list | tuple))
    if not args or args[-1] is ...:
        return tuple(fit(item, args[0] if args else Any) for item in value)
    _exactly(value, len(value) == len(args))
    return tuple(fit(item, arg) for item, arg in zip(value, args, strict=True))


def _exactly(value: Any, fits: bool) -> Any:
    if not fits:
        raise Misfit(_got(value))
    return value


def _got(value: Any) -> str:
    """The value in a message: whole if it is short, its kind otherwise."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}... ({type(value).__name__})"
