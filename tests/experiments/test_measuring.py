"""What the benchmarks share: rounds, ratios and peaks, on made-up times and sizes."""

from __future__ import annotations

from experiments.benchmarks.measuring import (
    machine,
    median_range,
    peaks_over_imports,
    ratio,
    rounds,
)


def test_the_first_round_is_not_counted_and_ways_take_turns() -> None:
    calls: list[str] = []
    ways = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = rounds(ways, 2, lambda way: calls.append("prepare " + "ab"[way is ways["b"]]))
    assert calls == ["prepare a", "a", "prepare b", "b"] * 3
    assert {name: len(each) for name, each in seconds.items()} == {"a": 2, "b": 2}


def test_a_ratio_is_of_one_round() -> None:
    found = ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0])
    assert found == {"median": 2.0, "min": 1.0, "max": 3.0}
    assert median_range(found) == "2.00 [1.00, 3.00]"


def test_peaks_are_less_those_of_the_imports() -> None:
    sizes = iter([10.0, 15.0, 30.0, 11.0, 15.0, 33.0])
    found = peaks_over_imports(["plain", "ours"], "torch", lambda _name: next(sizes), 2)
    assert found == {"plain": [5.0, 4.0], "ours": [20.0, 22.0]}


def test_the_machine_is_described() -> None:
    assert machine(threads=2).keys() == {"cores", "system", "threads"}
