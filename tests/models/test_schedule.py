"""The schedule: linear learning rates, whole epochs, and an order that depends on the step's number alone."""

from __future__ import annotations

import pytest

from elrea.models.training.schedule import Schedule


def schedule(**given) -> Schedule:
    fields = {"examples": 10, "epochs": 3, "step_size": 4, "learning_rate": 1.0, "warmup": 0.0}
    return Schedule(**{**fields, "seed": 0, "stage": "base", **given})


def test_rates_fall_linearly() -> None:
    made = schedule()
    assert made.total == 9
    assert [made.rate(step) for step in range(1, 10)] == pytest.approx(
        [k / 9 for k in range(9, 0, -1)]
    )


def test_rates_rise_over_the_warm_up() -> None:
    made = schedule(warmup=1 / 3)
    expected = [1 / 3, 2 / 3, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    assert [made.rate(step) for step in range(1, 10)] == pytest.approx(expected)


def test_mean_rates_of_the_epochs() -> None:
    assert [schedule().mean_rate(epoch) for epoch in (1, 2, 3)] == pytest.approx(
        [8 / 9, 5 / 9, 2 / 9]
    )
    cut = schedule(max_steps=4)
    assert [cut.mean_rate(epoch) for epoch in (1, 2)] == pytest.approx([3 / 4, 1 / 4])


def test_epochs_end_where_their_steps_do() -> None:
    assert [step for step in range(1, 10) if schedule().ends_epoch(step)] == [3, 6, 9]
    assert [step for step in range(1, 5) if schedule(max_steps=4).ends_epoch(step)] == [3, 4]
    assert [schedule().epoch(step) for step in (1, 3, 4, 9)] == [1, 1, 2, 3]


@pytest.mark.parametrize("lengths", [None, tuple(range(10))])
def test_an_epoch_sees_every_example_once(lengths: tuple[int, ...] | None) -> None:
    made = schedule(lengths=lengths)
    orders = [made.order(epoch) for epoch in (1, 2)]
    for order in orders:
        assert len(order) == made.steps_per_epoch
        assert sorted(index for step in order for index in step) == list(range(10))
    assert orders[0] != orders[1]
    assert made.order(1) == orders[0]
    assert schedule(lengths=lengths, stage="expert").order(1) != orders[0]


def test_seeds_and_fingerprints_differ_between_schedules() -> None:
    variants = [
        schedule(),
        schedule(seed=1),
        schedule(stage="expert"),
        schedule(epochs=2),
        schedule(warmup=0.5),
    ]
    assert len({made.fingerprint() for made in variants}) == 5
    seeds = {made.dropout_seed(step) for made in variants[:3] for step in range(1, 10)}
    assert len(seeds) == 27
    assert schedule().fingerprint() == schedule().fingerprint()
