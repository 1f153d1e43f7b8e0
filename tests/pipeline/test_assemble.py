"""From a config to the strategies of a run: whose settings hold, and what is refused before anything is done."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from elrea.errors import ConfigError
from elrea.method.ensemble.strategies.matched import Matched
from elrea.method.ensemble.strategies.single import Single
from elrea.pipeline.assemble import ahead

CONF = Path(__file__).parents[2] / "conf"
RATED = (
    "compute_matched", "continued", "lora_ensembles", "mole", "parameter_matched", "random_cluster", "random_weighted",
    "seed_ensemble", "source",
)  # fmt: skip


def strategies(*words: str) -> tuple[dict[str, Any], DictConfig]:
    """What a run with these words scores, and its config."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", ["data=gsm8k", *words])
    chosen = next((w.partition("=")[2] for w in words if w.startswith("ensemble=")), "elrea")
    return dict(ahead(config, chosen, CONF, words).strategies), config


@pytest.mark.parametrize("chosen", ["elrea", "compute_matched"])
def test_settings_hold_whichever_is_of_interest(chosen: str) -> None:
    """So that one line sweeps over `ensemble=` with a study's settings."""
    made, config = strategies(
        f"ensemble={chosen}",
        "evaluation.strategies=[elrea,compute_matched]",
        "evaluation.settings={compute_matched:{rate:0.7}}",
    )
    assert made["compute_matched"] == Matched(rate=0.7)
    assert config.ensemble.get("rate") == (0.7 if chosen == "compute_matched" else None)


def test_what_is_typed_twice_is_refused() -> None:
    words = ["ensemble=compute_matched", "ensemble.rate=1.0"]
    said = "evaluation.settings.compute_matched.rate: ensemble.rate is given too; leave one"
    with pytest.raises(ConfigError, match=said):
        strategies(*words, "evaluation.settings={compute_matched:{rate:0.7}}")
    other = "evaluation.settings={compute_matched:{rank_times_clusters:true}}"
    assert strategies(*words, other)[0]["compute_matched"] == Matched(rank_times_clusters=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["evaluation.settings={base:{member:backbone}}"],
            "evaluation.settings.base: base is what the others are held against; leave it",
        ),
        (
            ["evaluation.settings={backbone:{member:base}}"],
            "evaluation.settings.backbone: backbone is what the others are held against",
        ),
        (["ensemble=base", "ensemble.member=backbone"], "ensemble: base is what the others are"),
        (
            ["evaluation.settings={backbone:{member:nope}}"],
            "evaluation.settings.backbone.member=nope: must be backbone or base",
        ),
        (["ensemble=base", "ensemble.member=nope"], "ensemble.member=nope: must be backbone or"),
        (
            ["evaluation.settings={mole:{epochs:-1}}", "evaluation.strategies=[mole]"],
            "evaluation.settings.mole.epochs=-1: must be at least 1",
        ),
        (["ensemble=elrea", "ensemble.top_k=0"], "ensemble.top_k=0: must be at least 1, or null"),
    ],
)
def test_what_cannot_be_is_one_line_with_the_key(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        strategies(*words)


@pytest.mark.parametrize("name", RATED)
def test_a_rate_that_cannot_train_is_refused(name: str) -> None:
    said = "rate=-1.0: must be above 0, and finite"
    with pytest.raises(ConfigError, match=f"^ensemble.{said}"):
        strategies(f"ensemble={name}", "ensemble.rate=-1")
    with pytest.raises(ConfigError, match=f"^evaluation.settings.{name}.{said}"):
        strategies(f"evaluation.strategies=[{name}]", f"evaluation.settings={{{name}:{{rate:-1}}}}")


@pytest.mark.parametrize("rate", [0.0, math.nan, math.inf])
def test_nothing_is_trained_at_no_rate(rate: float) -> None:
    with pytest.raises(ConfigError, match="must be above 0, and finite"):
        Matched(rate=rate)


def test_the_rows_that_are_always_there_are_what_their_files_say() -> None:
    made, _ = strategies("evaluation.settings={base:{member:base}}")
    assert made["base"] == Single("base") and made["backbone"] == Single("backbone")
