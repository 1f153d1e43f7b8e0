"""Finds component classes by name, and makes components from their JSON descriptions.

There is no list of classes: a class may be named if it derives from the wanted base class and is defined in the
package of that base class (elrea.method.features for `Features` and `Projection`, and so on), or by its full name if
it is a plugin's (`elrea.plugins`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import import_module
from pkgutil import walk_packages
from typing import Any, get_args, get_type_hints

from elrea import plugins
from elrea.config import PACKAGE, TARGET, build, find
from elrea.errors import ConfigError, did_you_mean

log = logging.getLogger(__name__)

CLASS = "class"
"""Key of a description that holds the class's name; the other keys are its fields."""


def classes_of(base: type) -> dict[str, Any]:
    """Every class by name that derives from `base` (or is it) and is defined in the package of `base`.

    Raises:
        ValueError: `base` is not a class of this project.
    """
    home = base.__module__.rpartition(".")[0]
    if home.partition(".")[0] != PACKAGE:
        raise ValueError(f"{base} is not defined in {PACKAGE}")
    found: dict[str, Any] = {}
    for module in walk_packages(import_module(home).__path__, f"{home}."):
        for name, value in vars(import_module(module.name)).items():
            own = isinstance(value, type) and value.__module__ == module.name
            if own and issubclass(value, base):
                found[name] = value
    return found


def find_class(base: type, name: object) -> Any:
    """The class of that name among `classes_of(base)`, or of a plugin.

    Args:
        base: Base class that it must derive from.
        name: As `plugins.key_name` has it.

    Raises:
        ConfigError: There is none, or the plugin is not allowed.
    """
    if isinstance(name, str) and "@" in name:
        return _of_plugin(base, *name.split("@", 1))
    if base.__module__.partition(".")[0] != PACKAGE:  # a plugin's own base class
        raise ConfigError(f"{name!r} is not a subclass of {base.__name__}")
    classes = classes_of(base)
    if not isinstance(name, str) or name not in classes:
        near = did_you_mean(str(name), classes)
        raise ConfigError(f"{name!r} is not a subclass of {base.__name__}{near}")
    return classes[name]


def _of_plugin(base: type, name: str, source: str) -> type:
    """The class of a plugin by its full name; it is said if its code is another than when the name was written."""
    own = name.partition(".")[0] == PACKAGE  # ours are named by `classes_of`, without their module
    cls = find(name, base.__name__) if not own else object
    if not issubclass(cls, base):
        raise ConfigError(f"{name!r} is not a subclass of {base.__name__}")
    if source != plugins.code_of(cls):
        log.warning("%s: the plugin's code has changed since this was made", name)
    return cls


def make(description: Any, base: type, key: str) -> Any:
    """Makes a component from its description, as `described` in a stage's key or `ensemble.json` has it.

    Args:
        description: `class` and the fields; fields that hold components are described likewise.
        base: Base class that the class must derive from. For a field, it is the field's annotation.
        key: Path of the description, for messages.

    Raises:
        ConfigError: A class that is not a subclass of its base, an unknown field, or a value that does not fit.
    """
    return build(_node(description, base, key), key)


def _node(description: Any, base: Any, key: str) -> dict[str, Any]:
    """The description as a config node, its classes checked."""
    if not isinstance(description, Mapping) or CLASS not in description:
        raise ConfigError(f"{key}: not a description of a component: {description!r:.60}")
    try:
        cls = find_class(base, description[CLASS])
    except ConfigError as error:
        raise ConfigError(f"{key}.{CLASS}: {error}") from error
    hints = get_type_hints(cls)
    node: dict[str, Any] = {}
    for name, value in description.items():
        inner = _component(hints.get(name))
        if isinstance(value, Mapping) and inner is not None:
            value = _node(value, inner, f"{key}.{name}")
        elif _names_a_class(value) or name == TARGET:
            raise ConfigError(f"{key}.{name}: may not name a class")
        node[name] = value
    del node[CLASS]
    return {**node, TARGET: f"{cls.__module__}.{cls.__qualname__}"}


def _component(hint: Any) -> type | None:
    """The class of this project, or of a plugin, that a field's annotation names, alone or in a union."""
    for part in (hint, *get_args(hint)):
        home = part.__module__ if isinstance(part, type) else ""
        if home.partition(".")[0] == PACKAGE or plugins.is_allowed(home):
            return part
    return None


def _names_a_class(value: Any) -> bool:
    """Whether a `_target_` is anywhere in containers that are no description."""
    if isinstance(value, Mapping):
        return TARGET in value or any(map(_names_a_class, value.values()))
    return isinstance(value, list) and any(map(_names_a_class, value))
