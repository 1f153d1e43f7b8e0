"""Plugins: packages outside elrea whose classes and judges a config may name.

The user alone allows one: by installing a distribution with an entry point in the group `elrea.plugins`, or by its
name, as `plugins=[mypkg]` on the command line or `allow(["mypkg"])`. A file never does, whether it came with a run, an
exported ensemble, data or a config folder: what a file names is imported from packages that are allowed already.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, PathFinder
from pathlib import Path
from types import ModuleType

from elrea.errors import ConfigError, ElreaError
from elrea.store.files import sha256, sha256_of

GROUP = "elrea.plugins"
"""Group of the entry points; the value of one is a module or package, as "mypkg"."""
OWN = __name__.partition(".")[0]
NAME = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*")
"""The form of a name that is imported; names that begin with _, as `__main__`, are not."""

INSTALLED = frozenset({"site-packages", "dist-packages"})
"""Names of the folders that hold installed packages."""

_named: dict[str, None] = {}


def allow(names: Iterable[str]) -> None:
    """Allows plugins by name, for this process. None of them is imported before something names a part of it.

    Args:
        names: Modules or packages. One that is not installed is looked for in the working folder, which is then added
            at the end of `sys.path`.

    Raises:
        ConfigError: There is no such module.
    """
    for name in names:
        if not NAME.fullmatch(name):
            raise ConfigError(f"plugins: {name!r} is not the name of a package, as mypkg")
        top = name.partition(".")[0]
        if not _is_there(top):
            here = os.getcwd()
            if PathFinder.find_spec(top, [here]) is None:
                raise ConfigError(
                    f"plugins: there is no module {top}: install it, or give its name in the folder that has it"
                )
            sys.path.append(here)
        _named[name] = None


def named() -> tuple[str, ...]:
    """The plugins that were allowed by name."""
    return tuple(_named)


@functools.cache
def installed() -> frozenset[str]:
    """The plugins that installed distributions announce.

    Distributions that lie in the working folder are no installed ones: it may be a folder that somebody else made.
    """
    here = os.path.realpath(os.getcwd())
    places = [place for place in sys.path if place and os.path.realpath(place) != here]
    points = (
        point
        for distribution in importlib.metadata.distributions(path=places)
        for point in distribution.entry_points.select(group=GROUP)
    )
    return frozenset(point.module for point in points if NAME.fullmatch(point.module))


def is_allowed(module: str) -> bool:
    """Whether a module is a plugin's."""
    if (
        module.partition(".")[0] in sys.stdlib_module_names
    ):  # the distributions need not be read for it
        return False
    return any(f"{module}.".startswith(f"{name}.") for name in (*_named, *installed()))


def check(module: str, what: str) -> None:
    """Refuses a module that is no plugin's.

    Args:
        module: Its name.
        what: What is refused, as the message begins.

    Raises:
        ConfigError: It is not allowed; the line says how to allow it.
    """
    if NAME.fullmatch(module) and is_allowed(module):
        return
    top = module.partition(".")[0]
    line = f"{what} is refused: a config may name classes of {OWN} and of plugins only"
    if not NAME.fullmatch(module) or top in (OWN, *sys.stdlib_module_names):
        raise ConfigError(line)
    raise ConfigError(
        f"{line}; to allow {top}, which runs its code, type plugins=[{top}] (--plugins {top} after other commands than "
        f"run; elrea.plugins.allow(['{top}']) in Python), or install it with an entry point in the group {GROUP}"
    )


def load(module: str, key: str) -> ModuleType:
    """Imports a module of a plugin.

    Args:
        module: Its name; `check` has let it through.
        key: What names it, for the message.

    Raises:
        ConfigError: There is no such module, or it fails to import.
    """
    try:
        source_of(
            module
        )  # of what is about to be imported, not of what an editor makes of it later
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if f"{module}.".startswith(f"{missing}."):
            raise ConfigError(f"{key}: there is no module {missing}") from error
        line = f"{key}: the plugin {module} needs {missing}, which is not installed"
        raise ConfigError(line) from error
    except ElreaError:
        raise
    except (Exception, SystemExit) as error:
        line = f"{key}: the plugin {module} cannot be imported: {type(error).__name__}: {error}"
        raise ConfigError(f"{line} ({_place(error)})") from error


def _place(error: BaseException) -> str:
    """File and line of an error at import."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<")
    ]
    return f"{frames[-1].filename}:{frames[-1].lineno}"


def key_name(cls: type) -> str:
    """What a stage's key calls a class: its name, or for one of a plugin `<module>.<name>@<code_of it>`."""
    if cls.__module__.partition(".")[0] == OWN:
        return cls.__name__
    return f"{cls.__module__}.{cls.__qualname__}@{code_of(cls)}"


def code_of(cls: type) -> str:
    """SHA-256 of the code of a plugin's class: `source_of` its package, and of those that it inherits code from.

    Left out are classes of ours, of Python, and of installed packages that are no plugins, as `torch.nn.Module`.

    Raises:
        ConfigError: A class among them has no source file.
    """
    own = source_of(cls.__module__)
    others = {source_of(base.__module__) for base in cls.__mro__ if _is_followed(base.__module__)}
    others.discard(own)
    if not others:  # as it was before other packages counted
        return own
    return sha256_of("\n".join([own, *sorted(others)])).hexdigest()


def _is_followed(module: str) -> bool:
    """Whether a class of this module may change without an installation of another version of its package."""
    top = module.partition(".")[0]
    if top == OWN or top in sys.stdlib_module_names:
        return False
    return is_allowed(module) or not _is_installed(module, top)


def _is_installed(*names: str) -> bool:
    """Whether one of these modules lies where pip puts packages; those of compiled code may have no file."""
    places = [
        place
        for module in map(sys.modules.get, names)
        for place in (getattr(module, "__file__", None), *getattr(module, "__path__", ()))
    ]
    return any(not INSTALLED.isdisjoint(Path(place).parts) for place in places if place)


@functools.cache
def source_of(module: str) -> str:
    """SHA-256 of the Python files, compiled ones too, of the package that a module belongs to.

    In the stages' keys it stands for all that a plugin's code does. Of a package in a namespace it is that package's.

    Raises:
        ConfigError: The module has no file, as a class that was typed into an interpreter.
    """
    found: dict[str, str] = {}
    for path, name in _files(module):
        found[name] = sha256(path)
    if not found:
        raise ConfigError(
            f"{module} has no source file, by which results of one version could be told from those of another: put "
            "it into a file of its own"
        )
    return sha256_of("".join(f"{n}\n{found[n]}\n" for n in sorted(found))).hexdigest()


def _files(module: str) -> Iterator[tuple[Path, str]]:
    """The files of the outermost package, each with its name within it; of a module in a folder without `__init__.py`,
    all of that folder."""
    parts, space = module.split("."), list[str]()
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        loaded = sys.modules.get(name)
        spec = getattr(loaded, "__spec__", None) if loaded else importlib.util.find_spec(name)
        file = spec.origin if spec else getattr(loaded, "__file__", None)
        folders = list(spec.submodule_search_locations or ()) if spec else []
        if file and os.path.isfile(file):
            alone = [(Path(file), Path(file).name)]
            yield from _python(folders or space) if folders or space else alone
            return
        space = folders
    yield from _python(space)


def _python(folders: Iterable[str]) -> Iterator[tuple[Path, str]]:
    suffixes = (*SOURCE_SUFFIXES, *EXTENSION_SUFFIXES)
    for folder in folders:
        seen = {os.path.realpath(folder)}  # links may lead round in a circle
        for place, inner, files in os.walk(folder, followlinks=True):
            kept = []
            for name in sorted(inner):
                real = os.path.realpath(os.path.join(place, name))
                if not name.startswith(".") and real not in seen:
                    seen.add(real)
                    kept.append(name)
            inner[:] = kept
            for path in (Path(place, name) for name in files if not name.startswith(".")):
                if path.name.endswith(suffixes) and path.is_file():
                    yield path, path.relative_to(folder).as_posix()


def _is_there(top: str) -> bool:
    try:
        return top in sys.modules or importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):
        return False
