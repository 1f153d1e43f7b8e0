"""One stage of the method as one object: what decides it, what it is made of, and how it is made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from elrea.pipeline.context import Context
    from elrea.store.stage import Stage

TO_DO = "to do"


@dataclass(frozen=True)
class Step(ABC):
    """A stage before it has a key. A new kind of stage is one file in `steps/` and one line in `graph.ORDER`.

    Attributes:
        kind: Names the stage's folder in the store.
        version: Part of the key; raised whenever the code makes something else of the same inputs.
        oom_advice: The config keys to lower where memory runs out.
        sharded: Whether it can be made while the backbone is cut up over several devices.
        name: In the plan, as "expert-0".
        upstream: Names of the steps whose results it reads.
    """

    kind: ClassVar[str]
    version: ClassVar[int]
    oom_advice: ClassVar[str]
    sharded: ClassVar[bool] = False

    name: str
    upstream: tuple[str, ...]

    @classmethod
    @abstractmethod
    def of(cls, context: Context, clusters: int | None) -> Sequence[Step]:
        """The steps of this kind that an experiment needs.

        Args:
            context: Of the experiment.
            clusters: C; None while it is not known, which leaves out the steps that depend on it.

        Raises:
            ConfigError: Settings that cannot work.
        """

    @classmethod
    def later(cls, context: Context, clusters: int | None) -> Sequence[tuple[str, str]]:
        """Names (or patterns, as "expert-*") and states of steps that cannot be listed yet: they depend on the number
        of clusters, or on data that is not here."""
        return ()

    @abstractmethod
    def inputs(self, context: Context, upstream: Mapping[str, Stage]) -> dict[str, Any]:
        """All that can change the result and nothing else: plain JSON, a part of the stage's key."""

    @abstractmethod
    def make(self, context: Context, upstream: Mapping[str, Stage], folder: Path) -> None:
        """Makes the stage's files in `folder`; after a kill it is called again and resumes from what is there."""
