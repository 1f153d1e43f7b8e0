"""How large a lead a verdict can see: simulated verdicts with known truth.

    python experiments/does_it_pay/simulate.py

Five candidates, of which one is ahead at the full size and the other four are level. A training's chance of a right
answer is off its line by one point. Three quarters of the answers are decided by the item's difficulty, which all
trainings share, so that two of them disagree on a fifth of the items, as in the study's first setting. Prints how often
the verdict is decided, how often the candidate that is ahead comes first, how often its lead on another one lies within
the interval, and the interval's width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from elrea.evaluation.learning_curve import Curves
from elrea.evaluation.verdict import decide

LADDERS = {"1/8, 1/4, 1/2": (1 / 8, 1 / 4, 1 / 2), "1/47, 1/24, 1/12": (1 / 47, 1 / 23.5, 1 / 11.8)}
NAMES = ("a", "b", "c", "d", "ahead")
COSTS = {name: (float(number), 1.0) for number, name in enumerate(NAMES)}
"""The candidate that is ahead is the dearest, so that it is picked only where it is told apart."""
NOISE, SHARED, DRAWS = 0.01, 0.77, 200


def answers(lead: float, grows: bool, shares: Sequence[float], items: int, seed: int) -> np.ndarray:
    """Right or wrong [5, parts, items]; a lead that grows is a line in log n from 0 at 1/64 of the data."""
    rng = np.random.default_rng(seed)
    x = np.log2(np.asarray(shares))
    chance = np.tile(0.65 + 0.03 * x, (len(NAMES), 1))
    chance[-1] += lead * (1 + x / 6 if grows else 1)
    chance = chance + rng.normal(0, NOISE, chance.shape)
    shape = (*chance.shape, items)
    shared = rng.uniform(size=shape) < SHARED
    draw = np.where(shared, rng.uniform(size=items), rng.uniform(size=shape))
    return (draw < chance[..., None]).astype(float)


def row(lead: float, grows: bool, ladder: str, items: int, seeds: int) -> str:
    """One line of the table: shares of `DRAWS` verdicts, and the median width of an interval in points."""
    shares = LADDERS[ladder] * seeds
    first, decided, wrong, covered, widths = [], [], [], [], []
    for draw in range(DRAWS):
        scores = answers(lead, grows, shares, items, draw)
        found = decide(
            NAMES, scores, shares, COSTS, lower_is_better=False, seed=draw, resamples=500
        )
        first.append(found.best == NAMES[-1])
        decided.append(found.decided and first[-1])
        wrong.append(found.decided and not first[-1])
        one = Curves(scores, shares).difference(len(NAMES) - 1, 0, draw, 500)
        covered.append(one.low <= lead <= one.high)
        widths.append(one.high - one.low)
    cells = [
        f"{100 * lead:g}", "grows" if grows else "is constant", ladder, items, seeds,
        *(f"{100 * np.mean(share):.0f} %" for share in (decided, wrong, first, covered)),
        f"{100 * np.median(widths):.0f}",
    ]  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    heads = [
        "lead with all data, points", "with more data it", "parts", "dev items", "seeds", "decided for it",
        "for another",
        "it is first", "interval has its lead", "width, points",
    ]  # fmt: skip
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for ladder in LADDERS:
        for lead, grows in ((0.05, False), (0.02, True), (0.05, True), (0.1, True)):
            print(row(lead, grows, ladder, 480, 1), flush=True)
    for ladder in LADDERS:
        print(row(0.05, True, ladder, 2000, 3), flush=True)


if __name__ == "__main__":
    main()
