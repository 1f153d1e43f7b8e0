"""Errors that a user can fix; each message is one line: what is wrong, where, and what to change."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ElreaError(Exception):
    """Base of every error that a user can fix. Its message is one line."""


class ConfigError(ElreaError):
    """An unknown key, an unknown class, or a value of the wrong type."""


class DataError(ElreaError):
    """A data file or an example that cannot be used."""


class BackboneError(ElreaError):
    """A model folder or hub name that cannot be loaded, or does not match."""


class NotCausal(BackboneError):
    """A model whose logits depend on later tokens."""


class NotHere(DataError, BackboneError):
    """Data or a model that has to be downloaded first."""


class StoreError(ElreaError):
    """A stage's folder that cannot be read or written."""


class TrainingError(ElreaError):
    """Training that cannot start or resume."""


class ClusterError(ElreaError):
    """Features that cannot be clustered with these settings."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Completes an error about an unknown name: suggests the nearest valid name, or is empty."""
    near = difflib.get_close_matches(name, sorted(valid), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


class Terminated(KeyboardInterrupt):
    """Raised on SIGTERM; handled like Ctrl-C."""
