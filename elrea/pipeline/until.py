"""Which stages a run makes that is to end with one of them (`until=`): that one, and what it stands on."""

from __future__ import annotations

from collections.abc import Iterable

from elrea.errors import ConfigError, did_you_mean

CLUSTERS = ("base", "features-train", "clusters")
BEFORE = {
    "base": (),
    "features-train": ("base",),
    "clusters": ("base", "features-train"),
    "router": CLUSTERS,
    "routing": (*CLUSTERS, "router"),
    "features-test": ("base",),
}
"""Stage -> what it stands on. An adapter stands on the clusters; gates, answers and scores on all that comes before
them, answers not on others' answers."""


def needed(stage: str, until: str) -> bool:
    """Whether a run that ends with `until` makes `stage`, if it comes no later."""
    if stage == until or until == "scores" or until.startswith("gates-"):
        return True
    if until.startswith("answers-"):
        return not stage.startswith("answers-")
    return stage in BEFORE.get(until, CLUSTERS)


def check(until: str, stages: Iterable[str], counted: bool) -> None:
    """Refuses a name that no stage has.

    Args:
        until: The name.
        stages: The stages that are known.
        counted: Whether those are all; else experts may be still to come.

    Raises:
        ConfigError: The name, and the names that there are.
    """
    names = list(stages)
    if until in names or (not counted and until.startswith(("expert-", "answers-", "scores"))):
        return
    there = f"there is: {', '.join(names)}" + ("" if counted else ", expert-*, scores")
    raise ConfigError(f"until={until}: no such stage{did_you_mean(until, names)} ({there})")
