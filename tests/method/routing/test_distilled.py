"""The distilled router: what it learns, when it stops, and what agreement is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import spearmanr

from elrea.errors import ConfigError, DataError, StoreError, TrainingError
from elrea.method.routing.distilled import Distilled, agreement
from elrea.method.routing.files import WEIGHTS
from elrea.method.routing.student import Lesson, Student, fit, load, save
from elrea.method.routing.weights import Router, Routing

DRAW = torch.Generator().manual_seed(3)
MAP = torch.randn(6, 3, generator=DRAW) / 20
STATES = 5 + 3 * torch.randn(400, 6, generator=DRAW)
COSINES = ((STATES - 5) / 3) @ MAP + torch.tensor([0.1, 0.2, -0.3])
TRAIN = Lesson(STATES[:300].numpy(), COSINES[:300])
DEV = Lesson(STATES[300:].numpy(), COSINES[300:])
LINEAR = Distilled(width=None, learning_rate=3e-2)


def test_a_linear_student_recovers_a_linear_map() -> None:
    student, figures = fit(TRAIN, DEV, LINEAR, seed=0)
    torch.testing.assert_close(student.predict(DEV.states), DEV.cosines, atol=5e-3, rtol=0)
    assert figures["explained"] > 0.999 and not figures["held_out"]
    assert (figures["train"], figures["dev"]) == (300, 100)


def test_the_same_seed_makes_the_same_student() -> None:
    def weights(seed: int) -> torch.Tensor:
        student, _ = fit(TRAIN, None, Distilled(width=4, epochs=3), seed)
        return torch.cat([p.flatten() for p in student.parameters()])

    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = weights(0)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(weights(0), first) and not torch.equal(weights(1), first)


def test_it_stops_when_dev_gets_no_better_and_keeps_the_best_epoch() -> None:
    """Dev says the opposite of train: the first epoch is the best there is."""
    contrary = Lesson(DEV.states, 0.2 - DEV.cosines)
    student, figures = fit(TRAIN, contrary, Distilled(patience=2, learning_rate=1e-2), seed=0)
    losses = [row["dev"] for row in figures["curve"]]
    assert figures["epoch"] == 1 + losses.index(min(losses))
    assert len(losses) == figures["epoch"] + 2
    kept = float((student.predict(contrary.states) - contrary.cosines).square().mean())
    assert kept == pytest.approx(min(losses), rel=1e-4)


def test_without_dev_a_tenth_is_held_out() -> None:
    _, figures = fit(TRAIN, None, Distilled(epochs=1), seed=0)
    assert (figures["train"], figures["dev"], figures["held_out"]) == (270, 30, True)
    nothing = Lesson(TRAIN.states[:1], TRAIN.cosines[:1])
    with pytest.raises(DataError, match="1 training prompts with a gradient"):
        fit(nothing, None, Distilled(), seed=0)


def test_prompts_without_a_gradient_teach_nothing() -> None:
    strange = torch.cat([COSINES[:300], torch.zeros(50, 3)])
    states = np.concatenate([TRAIN.states, np.full((50, 6), 1e6, dtype=np.float32)])
    student, _ = fit(Lesson(states, strange), DEV, LINEAR, seed=0)
    alone, _ = fit(TRAIN, DEV, LINEAR, seed=0)
    assert torch.equal(student.predict(DEV.states), alone.predict(DEV.states))


@pytest.mark.parametrize("width", [None, 4])
def test_a_student_on_disk(tmp_path: Path, width: int | None) -> None:
    student, figures = fit(TRAIN, DEV, Distilled(width=width, epochs=2), seed=0)
    save(tmp_path, student, Distilled(width=width), figures)
    assert torch.equal(load(tmp_path).predict(DEV.states), student.predict(DEV.states))


def test_guesses_are_cosines() -> None:
    student = Student(2, 3, None)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.fill_(7.0)
    states = np.array([[1, 1], [-9, 0], [0, 0]], dtype=np.float32)
    assert student.predict(states).tolist() == [[1] * 3, [-1] * 3, [0] * 3]


def test_agreement() -> None:
    mine = torch.tensor([[0.9, 0.1, 0.3, 0.2], [0.5, 0.4, 0.1, 0.3], [0.1, 0.2, 0.3, 0.4]])
    gradient = torch.tensor([[0.8, 0.2, 0.1, 0.3], [0.1, 0.4, 0.3, 0.2], [0.0, 0.0, 0.0, 0.0]])
    got = agreement(Routing(mine, Router()), Routing(gradient, Router()))
    ranks = [spearmanr(a, b).statistic for a, b in zip(mine[:2], gradient[:2], strict=True)]
    assert got["prompts"] == 2 and got["top1"] == 0.5
    assert got["spearman"] == pytest.approx(np.mean(ranks), abs=1e-6)
    assert got["w_base"] == pytest.approx((0.1 + 0.1) / 2, abs=1e-6)
    assert got["cosine"] == pytest.approx(float((mine - gradient)[:2].abs().mean()), abs=1e-6)
    assert agreement(Routing(mine, Router()), Routing(0 * gradient, Router())) == {"prompts": 0}


def test_ties_share_their_ranks_and_equal_cosines_say_nothing() -> None:
    """Ranks (1.5 1.5 3) and (1 2 3) correlate by √3/2; equal cosines have no order."""
    rows = Routing(torch.tensor([[0.1, 0.1, 0.3], [0.2, 0.2, 0.2]]), Router())
    gradient = Routing(torch.tensor([[0.1, 0.2, 0.3], [0.1, 0.2, 0.3]]), Router())
    assert agreement(rows, gradient)["spearman"] == pytest.approx(3**0.5 / 4, abs=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"width": 0}, {"epochs": 0}, {"held_out": 1.0}, {"learning_rate": 0.0}, {"temperature": 0.0}]
)  # fmt: skip
def test_settings_that_cannot_be(wrong: dict) -> None:
    with pytest.raises(ConfigError, match="routing"):
        Distilled(**wrong)


def test_a_rate_that_is_too_high_is_named() -> None:
    with pytest.raises(TrainingError, match=r"lower routing.learning_rate \(1e\+30\)"):
        fit(TRAIN, DEV, Distilled(width=4, learning_rate=1e30), seed=0)
    with pytest.raises(ConfigError, match=r"^routing.width=100000000000: must be at most 100,000"):
        Distilled(width=10**11)


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_file_that_is_no_router(content: bytes | None, tmp_path: Path) -> None:
    if content is None:
        save_file({"other": torch.zeros(2)}, tmp_path / WEIGHTS)
    else:
        (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(StoreError, match="is no distilled router"):
        load(tmp_path)


def test_a_learned_router_says_what_it_depends_on() -> None:
    cheap = Distilled(temperature=0.5, renormalise=False, compare=False)
    assert cheap.by_gradient() == Router(0.5, False) and type(cheap.by_gradient()) is Router
    assert Distilled().takes_features() and not cheap.takes_features()
    assert set(Distilled.fixed_fields) == {"compare", "renormalise", "temperature"}
    assert Distilled.report_fields == ("compare",) and Router.report_fields == ()
    plain = Router(0.5)
    assert plain.by_gradient() is plain and plain.takes_features() and not plain.files
