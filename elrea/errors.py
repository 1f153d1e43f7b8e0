"""What can go wrong, in one line each: what happened, where, and what to change."""

from __future__ import annotations


class ElreaError(Exception):
    """Base of every error that a user can mend. Its message is one line."""


class ConfigError(ElreaError):
    """An unknown key, an unknown class, or a value of the wrong kind."""


class DataError(ElreaError):
    """A file or an example that cannot be used."""


class BackboneError(ElreaError):
    """A model folder or hub name that cannot be loaded, or does not fit."""


class StoreError(ElreaError):
    """A stage's folder that cannot be read or written."""


class TrainingError(ElreaError):
    """Training that cannot start or cannot go on."""


class ClusterError(ElreaError):
    """Features that cannot be grouped as asked."""
