"""The figures of plan=true against sums by hand, for rows that train adapters of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from elrea.models.training.schedule import Schedule
from elrea.models.training.settings import Recipe, Training
from elrea.pipeline.assemble import assemble
from elrea.pipeline.context import Context
from elrea.pipeline.experiment import Experiment
from elrea.pipeline.forecast import forecast
from elrea.pipeline.graph import graph_of
from elrea.pipeline.sizes import Sizes
from elrea.pipeline.timing import rates_stage, seconds
from elrea.store.stage import Store

CONF = Path(__file__).parents[2] / "conf"
SIZES = Sizes(32, 12, 10_000, 6_000, 500, 500, 0, 50, 1, True)
EXPERTS, WHOLE = 1, 3
"""Epochs of the experts; of base adapter and experts together."""


def experiment_of(*rows: str, chosen: str = "elrea", words: tuple[str, ...] = ()) -> Experiment:
    every = [
        "+experiment=elrea_mmlu", "data.boards=2", "data.train_per_board=16", "data.test_per_board=6",
        "data.dev_per_board=3", "training.epochs=2", "training.expert_epochs=1", "clustering.k=2", "adapter.r=1",
        f"ensemble={chosen}", f"evaluation.strategies=[{','.join(rows)}]", *words,
    ]  # fmt: skip
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return assemble(compose("config", every), chosen, CONF)


def figures(*rows: str, chosen: str = "elrea", words: tuple[str, ...] = ()) -> dict[str, str]:
    return dict(forecast(experiment_of(*rows, chosen=chosen, words=words), SIZES, 2))


@pytest.mark.parametrize(
    ("rows", "epochs", "adapters"),
    [
        ([], WHOLE, "3, of 15,360 parameters (r=1) each"),
        (["source"], WHOLE + 2, "5, of 15,360 parameters (r=1) each"),  # half of it each
        (["elrea_states", "elrea_tokens"], WHOLE + 2 * EXPERTS, "7, of 15,360 parameters (r=1) each"),
        (["elrea_source"], WHOLE + EXPERTS, "5, of 15,360 parameters (r=1) each"),
        (["tagged", "balanced"], 3 * WHOLE, "3 of 15,360 parameters (r=1), 2 of 30,720 parameters (r=2)"),
        (["mole"], WHOLE + 1, "3, of 15,360 parameters (r=1) each"),  # an epoch of the gates
        (["steered"], WHOLE + 1 + WHOLE, "4, of 15,360 parameters (r=1) each"),
    ],
)  # fmt: skip
def test_every_adapter_is_counted_with_its_rank_and_tokens(
    rows: list[str], epochs: int, adapters: str
) -> None:
    found = figures(*rows)
    assert found["training"].startswith(f"about {epochs * 10} k tokens")
    assert found["adapters"] == adapters


def test_wide_adapters_and_projected_gradients_need_memory() -> None:
    """Rank 2 instead of 1: 16 bytes for 15,360 parameters more, and twice two gradients of 30,720 numbers."""

    def used(*rows: str) -> int:
        return int(figures(*rows)["memory, training"].partition(" MiB")[0])

    more = (16 * 15_360 + 2 * 2 * 4 * 30_720) / 2**20
    assert used("projected") - used() == pytest.approx(more, abs=1)
    assert used() < used("projected")


def test_scoring_needs_the_logits_of_all_members_at_all_places() -> None:
    """Logits in float32, 2.2 times; base and two experts."""
    experiment = experiment_of()
    vector = 3 * experiment.backbone.config().vocab_size
    free = tuple(replace(e, choices=(), options=()) for e in experiment.corpus.test)
    written = replace(experiment, corpus=replace(experiment.corpus, test=free))

    def used(places: int) -> tuple[float, str]:
        found = dict(forecast(written, replace(SIZES, response=places), 2))
        number, unit, rest = found["memory, scoring"].split(" ", 2)
        return float(number) * (1024 if unit == "GiB:" else 1), rest

    less, said = used(20)
    assert said == "3 members x 16 x 20 tokens at most"
    more, _ = used(40)
    assert more - less == pytest.approx(2.2 * 4 * vector * 16 * 20 / 2**20, abs=1)
    most, said = used(20_000)
    assert said == f"3 members x {2**28 // (20_000 * vector)} x 20,000 tokens at most"
    assert most - less == pytest.approx(2.2 * 4 * (2**28 - vector * 16 * 20) / 2**20, rel=0.05)
    assert figures()["memory, scoring"].endswith("3 members x 16 x 1 tokens at most"), "letters"
    found = figures("backbone")["memory, scoring"]
    assert found.endswith("4 members x 16 x 1 tokens at most"), "the backbone is scored as well"


DEV = 6 * 500 / 12
"""Tokens of the 6 dev prompts, if they are as long as the 12 test prompts."""


@pytest.mark.parametrize(
    ("words", "rows", "tokens", "when"),
    [
        ((), [], 2 * 6_500, "after each of 2 epochs"),
        (("features.cost=cheap",), [], 6_500, "after 1 of 2 epochs"),
        (("training.epochs=1",), [], 6_500, "after 1 epoch"),
        (("routing=words",), [], 2 * 6_000, "after each of 2 epochs"),
        (("routing=distilled",), [], 2 * (6_500 + DEV), "after each of 2 epochs"),
        (("routing=distilled", "routing.compare=false"), [], 2 * (6_000 + DEV), "after each of 2 epochs"),
        ((), ["gated"], 2 * (6_500 + DEV), "after each of 2 epochs"),
        ((), ["random_weighted", "mole"], 2 * 6_500, "after each of 2 epochs"),
        ((), ["steered"], 3 * 6_500, "after each of 2 epochs and after 1 epoch"),
        (("routing=words",), ["steered"], 3 * 6_000, "after each of 2 epochs and after 1 epoch"),
    ],
)  # fmt: skip
def test_gradients_of_every_prompt_that_has_a_feature(
    words: tuple[str, ...], rows: list[str], tokens: float, when: str
) -> None:
    said, _, found = figures(*rows, words=words)["gradients"].partition(", ")
    assert float(said.split()[1]) == pytest.approx(tokens / 1000, rel=5e-3)
    assert found == when


def test_features_that_are_no_gradients() -> None:
    found = figures(words=("features=tokens",))
    assert "gradients" not in found and "features" not in found, "no model is run"
    found = figures(words=("features=states",))
    assert "gradients" not in found
    assert found["features"] == "about 6.5 k tokens of prompts, forward passes alone"
    found = figures("elrea_states")
    assert found["gradients"].startswith("about 13 k") and found["features"].startswith("about 6.5")
    assert "gradients" not in figures(chosen="base"), "nothing is clustered"


def test_a_strategy_with_clusters_of_its_own_alone() -> None:
    found = figures("base", chosen="steered")
    assert found["adapters"] == "2, of 15,360 parameters (r=1) each", (
        "base, and that of the features"
    )
    assert found["gradients"] == "about 6.5 k tokens of prompts, after 1 epoch"
    assert found["memory, gradients"] == figures()["memory, gradients"], "the same features"


def test_max_steps_ends_trainings_early() -> None:
    """Steps of 8: the base adapter makes 2 of its 8, and an expert, with half of the examples, both of its own."""
    words = ("training.batch_size=8", "training.max_steps=2")
    found = figures(words=words)
    assert found["training"] == "about 15 k tokens, 2 + 1 epochs, at most 2 steps each"
    assert found["gradients"] == "about 6.5 k tokens of prompts, after 1 of 2 epochs"
    experiment = experiment_of(words=words)
    nodes = graph_of(experiment, Store(Path("unused"))).nodes
    times = [
        seconds(nodes[name], {"train": 1.0, "features": 1.0}, SIZES, 2)
        for name in ("base", "expert-0", "features-train")
    ]
    assert times == [5_000, 5_000, 6_000]


@pytest.mark.parametrize("most", [None, 1, 4, 5, 8, 9, 100])
def test_steps_are_those_of_the_schedule(most: int | None) -> None:
    recipe = Recipe(3, 1e-3, Training(batch_size=4, accumulate=2, max_steps=most))
    plan, whole = (Schedule(30, 3, 8, 1e-3, 0.0, 0, "base", steps) for steps in (most, None))
    assert recipe.steps(30) == plan.total and recipe.epochs_begun(30) == plan.epoch(plan.total)
    assert recipe.share(30) == plan.total / whole.total
    assert recipe.epochs_begun(30) == sum(map(plan.ends_epoch, range(1, plan.total + 1))), (
        "checkpoints"
    )


def test_other_work_has_rates_of_its_own() -> None:
    def key(*words: str) -> str:
        context = Context(experiment_of(words=words))
        return rates_stage(context, Store(Path("unused")), 2).key

    changes = ("evaluation.by=generation", "evaluation.by=likelihood", "training.loss_on=all")
    assert len({key(), *map(key, changes)}) == 1 + len(changes)
    assert key() == key("seed=1") == key("training.max_steps=2")
