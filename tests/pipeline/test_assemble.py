"""Strategies of a run from its config: which settings win, and what is refused before the run starts."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from elrea.data.examples import Example
from elrea.errors import ConfigError
from elrea.method.ensemble.strategies.matched import Matched
from elrea.method.ensemble.strategies.single import Single
from elrea.method.ensemble.strategies.steered import ClustersFrom
from elrea.method.features.tokens import Tokens
from elrea.pipeline.assemble import assemble_without_data
from elrea.pipeline.ladder import candidates, check_sources

CONF = Path(__file__).parents[2] / "conf"
WITH_RATE = (
    "arrow", "balanced", "compute_matched", "compute_matched_passes", "continued", "elrea", "elrea_no_base",
    "elrea_one", "elrea_source", "elrea_states", "elrea_tokens", "elrea_top1", "elrea_top3", "gated", "gated_wide",
    "instruction_embedding", "lora_ensembles", "moe_merging", "moe_routing", "mole", "oracle", "parameter_matched",
    "parameter_matched_rslora", "projected", "random_cluster", "random_weighted", "seed_ensemble", "source",
    "steered", "steered_diagonal", "steered_random", "tagged", "uniform",
)  # fmt: skip


def strategies(*words: str) -> tuple[dict[str, Any], DictConfig]:
    """The strategies that a run with these overrides scores, and its config."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", ["data=gsm8k", *words])
    chosen = next((w.partition("=")[2] for w in words if w.startswith("ensemble=")), "elrea")
    return dict(assemble_without_data(config, chosen, CONF, words).strategies), config


@pytest.mark.parametrize("chosen", ["elrea", "compute_matched"])
def test_settings_apply_to_whichever_strategy_is_chosen(chosen: str) -> None:
    """One command can then sweep over `ensemble=` with the settings of a study."""
    made, config = strategies(
        f"ensemble={chosen}",
        "evaluation.strategies=[elrea,compute_matched]",
        "evaluation.settings={compute_matched:{rate:0.7}}",
    )
    assert made["compute_matched"] == Matched(rate=0.7)
    assert config.ensemble.get("rate") == (0.7 if chosen == "compute_matched" else 1.0)


def test_a_field_that_is_set_in_two_places_is_refused() -> None:
    words = ["ensemble=compute_matched", "ensemble.rate=1.0"]
    said = "evaluation.settings.compute_matched.rate: ensemble.rate is set too; remove one"
    with pytest.raises(ConfigError, match=said):
        strategies(*words, "evaluation.settings={compute_matched:{rate:0.7}}")
    other = "evaluation.settings={compute_matched:{rank_times_clusters:true}}"
    assert strategies(*words, other)[0]["compute_matched"] == Matched(rank_times_clusters=True)


@pytest.mark.parametrize(
    ("word", "own"),
    [
        ("ensemble.clusters_from.epochs=3", "clusters_from:{epochs:2}"),
        ("ensemble.clusters_from.epochs=3", "clusters_from:null"),
        ("ensemble.clusters_from=null", "clusters_from:{epochs:2}"),
    ],
)
def test_a_field_below_another_is_refused_too(word: str, own: str) -> None:
    with pytest.raises(ConfigError, match=f"{word.partition('=')[0]} is set too; remove one"):
        strategies("ensemble=steered", word, f"evaluation.settings={{steered:{{{own}}}}}")


def test_settings_of_a_row_may_name_classes() -> None:
    """As `ensemble.clusters_from.features={...}` does."""
    tokens = "clusters_from:{features:{_target_:elrea.method.features.tokens.Tokens,d:64}}"
    made, _ = strategies(
        "evaluation.strategies=[steered]", f"evaluation.settings={{steered:{{{tokens}}}}}"
    )
    assert made["steered"].clusters_from == ClustersFrom(epochs=1, features=Tokens(d=64))
    whole = (
        "clusters_from:{_target_:elrea.method.ensemble.strategies.steered.ClustersFrom,epochs:0}"
    )
    made, _ = strategies(
        "evaluation.strategies=[steered]", f"evaluation.settings={{steered:{{{whole}}}}}"
    )
    assert made["steered"].clusters_from == ClustersFrom(epochs=0)


def test_a_verdict_is_not_between_rows_that_know_the_answers() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        words = ["data=gsm8k", "evaluation.strategies=[elrea,oracle,steered,backbone]"]
        config = compose("config", words)
    experiment = assemble_without_data(config, "elrea", CONF, words)
    assert candidates(experiment) == ["elrea", "steered"]


def test_a_verdict_between_rows_by_source_needs_all_sources_in_its_parts() -> None:
    steered = "evaluation.settings={steered:{clusters:source}}"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        words = ["data=gsm8k", "evaluation.strategies=[elrea,steered]", steered]
        config = compose("config", words)
    experiment = assemble_without_data(config, "elrea", CONF, words)
    both = [Example("1", "a", "b", "law"), Example("2", "a", "b", "art")]
    asked = replace(experiment, corpus=replace(experiment.corpus, test=tuple(both)))
    check_sources(asked, ["elrea", "steered"], both)
    check_sources(asked, ["elrea"], both[:1])
    said = "steered needs training examples of every source, and the smallest part, of 1, has none of 'art'"
    with pytest.raises(ConfigError, match=said):
        check_sources(asked, ["elrea", "steered"], both[:1])


def test_one_rate_for_all_rows_at_the_papers_scale() -> None:
    """So that no control is trained at a multiple that was chosen on the built-in model."""
    everything = "evaluation.strategies=[all]"
    small, _ = strategies(everything)
    assert (small["random_cluster"].rate, small["continued"].rate) == (0.7, 0.5)
    settings = "evaluation.settings={continued:{rate:0.3}}"
    paper, _ = strategies("scale=paper", everything, settings, "ensemble=source", "ensemble.rate=2")
    rates = {name: made.rate for name, made in paper.items() if hasattr(made, "rate")}
    assert set(rates) == {*WITH_RATE}
    others = {rate for name, rate in rates.items() if name not in ("continued", "source")}
    assert others == {1.0} and (rates["continued"], rates["source"]) == (0.3, 2)
    assert paper["gated_wide"].trunk_rate == paper["parameter_matched"].rate == 1.0
    assert small["gated_wide"].trunk_rate == small["parameter_matched"].rate
    chosen, config = strategies("scale=paper", "ensemble=random_cluster")
    assert chosen["random_cluster"].rate == config.ensemble.rate == 1.0
    with pytest.raises(ConfigError, match=r"evaluation\.rate=0\.0: must be above 0"):
        strategies("evaluation.rate=0")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["evaluation.settings={base:{member:backbone}}"],
            "evaluation.settings.base: base is a reference strategy; its settings cannot be changed",
        ),
        (
            ["evaluation.settings={backbone:{member:base}}"],
            "evaluation.settings.backbone: backbone is a reference strategy",
        ),
        (["ensemble=base", "ensemble.member=backbone"], "ensemble: base is a reference strategy"),
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
def test_an_invalid_setting_is_one_line_with_its_key(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        strategies(*words)


@pytest.mark.parametrize("name", WITH_RATE)
def test_a_rate_that_cannot_train_is_refused(name: str) -> None:
    said = "rate=-1.0: must be above 0, and finite"
    with pytest.raises(ConfigError, match=f"^ensemble.{said}"):
        strategies(f"ensemble={name}", "ensemble.rate=-1")


@pytest.mark.parametrize("name", ["elrea_states", "source", "steered"])
def test_so_it_is_where_the_rate_is_a_rows_own(name: str) -> None:
    said = "rate=-1.0: must be above 0, and finite"
    with pytest.raises(ConfigError, match=f"^evaluation.settings.{name}.{said}"):
        strategies(f"evaluation.strategies=[{name}]", f"evaluation.settings={{{name}:{{rate:-1}}}}")


@pytest.mark.parametrize("rate", [0.0, math.nan, math.inf])
def test_a_rate_must_be_positive_and_finite(rate: float) -> None:
    with pytest.raises(ConfigError, match="must be above 0, and finite"):
        Matched(rate=rate)


def test_reference_strategies_have_the_settings_of_their_files() -> None:
    made, _ = strategies("evaluation.settings={base:{member:base}}")
    assert made["base"] == Single("base") and made["backbone"] == Single("backbone")
