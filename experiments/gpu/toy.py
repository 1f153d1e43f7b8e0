"""The paper's cost table (appendix D.1) on this machine: ratios beside the paper's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from experiments.gpu.needs import modules
from experiments.gpu.record import Record

if TYPE_CHECKING:
    from experiments.gpu.setting import Setting

NEEDS = modules()
ROOM = 24
"""GiB that Gemma-2b's shape needs; with less the small shape is measured."""


def measure(setting: Setting, record: Record) -> None:
    """With an eighth of the paper's examples, which leaves the ratios about as they are."""
    record.figure("table", lambda: _table(setting))


def _table(setting: Setting) -> dict[str, Any]:
    from experiments.benchmarks import paper_toy

    large = not setting.small and setting.memory >= ROOM
    shape, sizes = ("gemma-2b", (250, 50)) if large else ("small", setting.pick((250, 50), (8, 4)))
    found = paper_toy.table(shape, sizes, setting.into / "toy")
    return {**found, "paper": paper_toy.PAPER}
