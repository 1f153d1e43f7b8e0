"""Whether a value from a config fits a field's type, and how to say what would.

Config files know text, numbers, yes and no, nothing, lists and mappings. A field may ask for more
(a path, a tuple, a float where 1 was written): such values are turned into what the field wants,
and nothing else is, because a text that is read as a number hides a mistake.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin


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
