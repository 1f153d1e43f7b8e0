"""Groups finished runs by their settings: runs of one group differ in nothing that matters but the seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elrea.reporting.runs import OLD_OPTIONS, FinishedRun
from elrea.reporting.sweeps import CHANGE_NO_RESULT, is_below, varied_values

MAY_DIFFER = (
    *CHANGE_NO_RESULT, "seed", "data.train_seed", "evaluation.resamples", "evaluation.strategies",
    "evaluation.settings", "ensemble",
)  # fmt: skip
"""Config keys, with all keys below them, that may differ between runs of one group: the seed, and that of a draw of the
training questions; where and how fast a run was made; and its strategies. The settings of the compared strategies are
looked at separately."""
ADDED = {
    "evaluation.rate": None,
    "evaluation.think": "strip",
    "features.cost": "paper",
}
ADDED_TO_DATA = {
    "options": OLD_OPTIONS,
    "turns": "last",
    "bad_rows": "refuse",
    "form": "standard",
}
"""Config keys that runs of older versions do not have, and the values that they are taken to have had; of data, by the
last part of the key."""
UNKNOWN = ("backbone.add_bos", "backbone.template_date")
"""Likewise, but what they did depended on the tokenizer: they are taken to have had the other runs' value."""
BLANK = "-"
"""Shown where a run does not have a setting."""


OwnFile = Callable[[str], Mapping[str, Any]]
"""What a strategy's own file sets, by the strategy's keys; empty if there is none."""


@dataclass(frozen=True)
class Group:
    """Runs of one setting.

    Attributes:
        setting: What tells this group from the others: key -> value. Empty if there is one group.
        runs: Of one or several seeds.
    """

    setting: Mapping[str, str]
    runs: Sequence[FinishedRun]


def by_setting(
    runs: Sequence[FinishedRun], names: Sequence[str], own_file: OwnFile = lambda _: {}
) -> list[Group]:
    """Groups runs by what can change the named strategies' answers, except the seed.

    A group is named by the overrides that were typed, where these tell the groups apart, and else by the config's keys.

    Args:
        runs: At least one.
        names: The strategies that are compared.
        own_file: A strategy's own file, to see what was set in its place where one run is about the strategy and
            another one only scored it; without it, what was typed counts.

    Returns:
        The groups in the order of their values, numbers by size.
    """
    settings = _differing(runs, names, own_file)
    groups: dict[tuple[str, ...], list[int]] = {}
    for i in range(len(runs)):
        groups.setdefault(tuple(values[i] for values in settings.values()), []).append(i)
    shown = _typed(runs, settings, list(groups.values())) or _fewest(settings, len(groups))
    found = [
        Group({key: values[each[0]] for key, values in shown.items()}, [runs[i] for i in each])
        for each in groups.values()
    ]
    return sorted(found, key=lambda group: [_order(value) for value in group.setting.values()])


def _differing(
    runs: Sequence[FinishedRun], names: Sequence[str], own_file: OwnFile
) -> dict[str, list[str]]:
    """Config keys whose values differ, with each run's value."""
    kept: list[dict[str, Any]] = [
        {key: value for key, value in run.settings.items() if not is_below(key, MAY_DIFFER)}
        for run in runs
    ]
    for name in names:
        for chosen in (True, False):
            # A run has all settings of the chosen strategy, of another one only those that were changed.
            same = [
                i for i, r in enumerate(runs) if name in r.correct and (r.chosen == name) == chosen
            ]
            own = {i: runs[i].strategy_settings(name) for i in same}
            keys = dict.fromkeys(key for settings in own.values() for key in settings)
            varied = [
                k for k in keys if len({repr(each.get(k, BLANK)) for each in own.values()}) > 1
            ]
            for i, settings in own.items():
                kept[i] |= {key: settings[key] for key in varied if key in settings}
        _add_changed(kept, runs, name, own_file)
    keys = dict.fromkeys(key for settings in kept for key in settings)
    values = {key: _values(key, kept) for key in sorted(keys)}
    return {key: each for key, each in values.items() if len(set(each)) > 1}


def _add_changed(
    kept: Sequence[dict[str, Any]], runs: Sequence[FinishedRun], name: str, own_file: OwnFile
) -> None:
    """Adds what was changed of a strategy, where some runs chose it, others only scored it, and the changes differ."""
    scored = [i for i, run in enumerate(runs) if name in run.correct]
    if len({runs[i].chosen == name for i in scored}) < 2:
        return
    own = own_file(name)
    changes = {i: runs[i].changes(name, own) for i in scored}
    for key in dict.fromkeys(key for each in changes.values() for key in each):
        if len({repr(each.get(key, BLANK)) for each in changes.values()}) > 1:
            for i, each in changes.items():
                if key in each:
                    kept[i][f"{name}.{key}"] = each[key]


def _values(key: str, settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each run's value of a key; see `ADDED` for a run of a version that did not have it."""
    absent: Any = ADDED.get(key, BLANK)
    if key.startswith("data."):
        absent = ADDED_TO_DATA.get(key.rpartition(".")[2], BLANK)
    elif key in UNKNOWN:
        absent = next(each[key] for each in settings if key in each)
    return [str(each.get(key, absent)) for each in settings]


def _typed(
    runs: Sequence[FinishedRun], settings: Mapping[str, Sequence[str]], groups: Sequence[list[int]]
) -> dict[str, list[str]]:
    """The overrides that tell the groups apart, with each run's value; empty if they do not."""
    found = {
        key: [
            value or str(run.settings.get(key, BLANK))
            for value, run in zip(values, runs, strict=True)
        ]
        for key, values in varied_values([{"words": run.words} for run in runs]).items()
        if key in settings or not is_below(key, MAY_DIFFER)
    }
    found = {key: values for key, values in found.items() if len(set(values)) > 1}
    parts: dict[tuple[str, ...], list[int]] = {}
    for i in range(len(runs)):
        parts.setdefault(tuple(values[i] for values in found.values()), []).append(i)
    return found if list(parts.values()) == list(groups) else {}


def _fewest(settings: Mapping[str, list[str]], groups: int) -> dict[str, list[str]]:
    """The first keys that tell the groups apart; a key that adds nothing to those before it is left out."""
    found: dict[str, list[str]] = {}
    apart = 1
    for key, values in settings.items():
        now = len(set(zip(*found.values(), values, strict=True)))
        if now > apart:
            found[key], apart = values, now
        if apart == groups:
            break
    return found


def _order(value: str) -> tuple[int, float, str]:
    """Sorts numbers by size, before texts."""
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value
