"""The old name of `elrea.method.features.base`, for plugins; version 0.3 removes it."""

from elrea.method.features.base import Advance, Batches, Features, Reader, finish

__all__ = ["Advance", "Batches", "Features", "Reader", "finish"]
