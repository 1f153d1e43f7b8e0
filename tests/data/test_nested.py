"""Parts of the training data: each within the next, and every source in proportion."""

from __future__ import annotations

from collections import Counter

import pytest

from elrea.data.exam.exam import Exam
from elrea.data.examples import Example
from elrea.data.sampling import nested
from elrea.data.sources.nested import Nested
from elrea.errors import ConfigError

SIZES = {"a": 100, "b": 40, "c": 7}
EXAMPLES = [
    Example(id=f"{source}/{i}", instruction=f"{source} {i}", response="x", source=source)
    for source, size in SIZES.items()
    for i in range(size)
]


def test_every_part_is_within_the_next_and_in_proportion() -> None:
    smaller: set[str] = set()
    for count in range(1, len(EXAMPLES) + 1):
        drawn = nested(EXAMPLES, count, seed=3)
        ids = [example.id for example in drawn]
        assert len(ids) == len(set(ids)) == count
        assert smaller < set(ids)
        assert ids == [e.id for e in EXAMPLES if e.id in set(ids)], "they keep their order"
        for source, n in Counter(example.source for example in drawn).items():
            assert abs(n - count * SIZES[source] / len(EXAMPLES)) < 1.5
        smaller = set(ids)


def test_the_seed_decides_the_draw() -> None:
    one, again, other = (nested(EXAMPLES, 30, seed) for seed in (0, 0, 1))
    assert one == again != other


@pytest.mark.parametrize("count", [0, len(EXAMPLES) + 1])
def test_a_number_out_of_range(count: int) -> None:
    with pytest.raises(ConfigError, match=rf"data.rows={count} must be 1 to 147"):
        nested(EXAMPLES, count, 0)


def test_dev_and_test_stay_whole() -> None:
    exam = Exam(boards=2, train_per_board=20, dev_per_board=3, test_per_board=4)
    whole, part = exam.load(), Nested(of=exam, rows=10).load()
    assert (part.dev, part.test) == (whole.dev, whole.test)
    assert set(part.train) < set(whole.train) and len(part.train) == 10
    assert part.note == f"{whole.note}, 10 of 40 training examples"
    with pytest.raises(ConfigError, match=r"data.of"):
        Nested(of=3, rows=1).load()
