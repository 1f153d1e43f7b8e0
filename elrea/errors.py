"""What can go wrong, in one line each: what happened, where, and what to change."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ElreaError(Exception):
    """Base of every error that a user can mend. Its message is one line."""


class ConfigError(ElreaError):
    """An unknown key, an unknown class, or a value of the wrong kind."""


class DataError(ElreaError):
    """A file or an example that cannot be used."""


class BackboneError(ElreaError):
    """A model folder or hub name that cannot be loaded, or does not fit."""


class NotHere(DataError, BackboneError):
    """Data or a model that would have to be fetched first."""


class StoreError(ElreaError):
    """A stage's folder that cannot be read or written."""


class TrainingError(ElreaError):
    """Training that cannot start or cannot go on."""


class ClusterError(ElreaError):
    """Features that cannot be grouped as asked."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """What to add to an error about an unknown name: the nearest valid one, or nothing."""
    near = difflib.get_close_matches(name, sorted(valid), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


class Terminated(KeyboardInterrupt):
    """SIGTERM came: to be cleaned up after as after Ctrl-C."""
