"""Every strategy: its adapters, its members and their weights."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from peft import LoraConfig, get_peft_model

from elrea.config import build, plain
from elrea.errors import ConfigError
from elrea.method.ensemble.requirements import Requirements
from elrea.method.ensemble.strategies.balanced import Balanced
from elrea.method.ensemble.strategies.continued import Continued
from elrea.method.ensemble.strategies.elrea import Elrea
from elrea.method.ensemble.strategies.elrea_source import ElreaBySource
from elrea.method.ensemble.strategies.instruction_embedding import InstructionEmbedding
from elrea.method.ensemble.strategies.matched import Matched
from elrea.method.ensemble.strategies.moe_merging import MoeMerging
from elrea.method.ensemble.strategies.moe_routing import MoeRouting
from elrea.method.ensemble.strategies.mole import Mole
from elrea.method.ensemble.strategies.oracle import Oracle
from elrea.method.ensemble.strategies.other_features import ElreaByStates, ElreaByTokens
from elrea.method.ensemble.strategies.projected import Projected
from elrea.method.ensemble.strategies.random_cluster import RandomCluster
from elrea.method.ensemble.strategies.seeds import SeedEnsemble
from elrea.method.ensemble.strategies.self_consistency import SelfConsistency
from elrea.method.ensemble.strategies.single import Single
from elrea.method.ensemble.strategies.source import SourceAdapters
from elrea.method.ensemble.strategies.tagged import Tagged
from elrea.method.ensemble.strategies.uniform import Uniform
from elrea.method.ensemble.strategy import (
    AdapterSpec,
    Layerwise,
    Picking,
    Regrouped,
    Setting,
    TrainedGates,
    Voting,
)
from elrea.method.features.base import Features
from elrea.method.features.embedding import Embedding
from elrea.method.features.gradient import GradientFeatures
from elrea.method.features.states import States
from elrea.method.features.tokens import Tokens
from elrea.method.routing.weights import Router, Routing
from elrea.models.adapter_shape import Lora
from elrea.models.training.settings import Training
from elrea.pipeline.experiment import key_fields

CONF = Path(__file__).parents[3] / "conf" / "ensemble"
LORA = Lora(r=3, alpha=6.0)
TRAINING = Training(epochs=2, expert_epochs=5, learning_rate=0.1, expert_learning_rate=0.01)
SOURCES = ["maths", "talk"]
SETTING = Setting(LORA, TRAINING, clusters=3, sources=SOURCES)
COSINES = torch.tensor([[0.2, 0.6, 0.1], [0.9, -0.3, 0.4]])
ROUTING = Routing(COSINES, Router(), ["talk", "maths"], SOURCES)
FILES = {
    "balanced": Balanced(),
    "projected": Projected(),
    "tagged": Tagged(),
    "elrea_source": ElreaBySource(),
    "backbone": Single("backbone"),
    "base": Single("base"),
    "compute_matched": Matched(),
    "compute_matched_passes": Matched(count="passes"),
    "continued": Continued(),
    "elrea": Elrea(),
    "elrea_no_base": Elrea(base_share=False),
    "elrea_one": Elrea(top_k=1, base_share=False),
    "elrea_top1": Elrea(top_k=1),
    "elrea_top3": Elrea(top_k=3),
    "instruction_embedding": InstructionEmbedding(),
    "elrea_states": ElreaByStates(),
    "elrea_tokens": ElreaByTokens(),
    "lora_ensembles": SeedEnsemble(),
    "moe_merging": MoeMerging(),
    "moe_routing": MoeRouting(),
    "mole": Mole(),
    "oracle": Oracle(),
    "parameter_matched": Matched(rank_times_clusters=True),
    "parameter_matched_rslora": Matched(rank_times_clusters=True, rslora=True),
    "random_cluster": RandomCluster(),
    "random_weighted": RandomCluster(weighted=True),
    "seed_ensemble": SeedEnsemble(size=None),
    "self_consistency": SelfConsistency(),
    "source": SourceAdapters(),
    "uniform": Uniform(),
}
EXPERTS = ["expert-0", "expert-1", "expert-2"]
RANDOM = ["random-0", "random-1", "random-2"]


@pytest.mark.parametrize("name", sorted(FILES))
def test_the_files_in_conf_name_these(name: str) -> None:
    with initialize_config_dir(str(CONF.parent), version_base="1.3"):
        node = plain(compose(None, [f"+ensemble={name}"]).ensemble)
    built, wanted = build(node, "ensemble"), FILES[name]
    assert type(built) is type(wanted)
    # Rates are tuned; which strategy a file names is not.
    assert {**vars(built), "rate": None} == {**vars(wanted), "rate": None}


def test_there_is_a_test_for_every_file() -> None:
    assert {path.stem for path in CONF.glob("*.yaml")} >= FILES.keys()
    assert len(FILES) >= 22


@pytest.mark.parametrize(
    ("strategy", "members", "routed"),
    [
        (Single("backbone"), ["backbone"], False),
        (Single("base"), ["base"], False),
        (Matched(), ["compute-matched"], False),
        (Matched(True), ["parameter-matched"], False),
        (Matched(count="passes"), ["compute-matched-passes"], False),
        (Matched(True, rslora=True), ["parameter-matched-rslora"], False),
        (Matched(True, rslora=False), ["parameter-matched-plain"], False),
        (Balanced(), ["balanced"], False),
        (Projected(False), ["projected-narrow"], False),
        (Tagged(), ["tagged"], True),
        (ElreaBySource(), ["base", *EXPERTS], True),
        (Continued(), ["continued"], False),
        (SeedEnsemble(), ["base", "seed-1", "seed-2", "seed-3"], False),
        (SeedEnsemble(2), ["base", "seed-1"], False),
        (SeedEnsemble(None), ["base", "seed-1", "seed-2", "seed-3"], False),
        (Elrea(), ["base", *EXPERTS], True),
        (Elrea(top_k=1), ["base", *EXPERTS], True),
        (Elrea(base_share=False), ["base", *EXPERTS], True),
        (Uniform(), ["base", *EXPERTS], False),
        (RandomCluster(), ["base", *RANDOM], False),
        (RandomCluster(weighted=True), ["base", *RANDOM], True),
        (SourceAdapters(), ["source-0", "source-1"], False),
        (MoeRouting(), ["base", *EXPERTS], True),
        (MoeMerging(), ["base", *EXPERTS], True),
        (Mole(), ["base", *EXPERTS], False),
        (SelfConsistency(), ["base"], False),
        (Oracle(), EXPERTS, False),
        (InstructionEmbedding(), ["base", *EXPERTS], True),
    ],
)
def test_members(strategy, members: list[str], routed: bool) -> None:
    assert strategy.members(ROUTING) == members
    assert strategy.routed is routed
    assert strategy.weights(ROUTING).shape == (2, len(members))
    made = {"backbone", "base", *strategy.adapters(SETTING)}
    assert set(members) <= made, "a member that is not trained"
    assert made - {"backbone", "base"} <= set(members), "an adapter that is trained but not used"


def test_weights() -> None:
    ones = torch.ones
    assert torch.equal(Single().weights(ROUTING), ones(2, 1))
    assert torch.equal(Matched().weights(ROUTING), ones(2, 1))
    assert torch.equal(Continued().weights(ROUTING), ones(2, 1))
    assert torch.equal(SeedEnsemble(2).weights(ROUTING), torch.full((2, 2), 0.5))
    assert torch.equal(Uniform().weights(ROUTING), ones(2, 4))
    assert torch.equal(RandomCluster().weights(ROUTING), ones(2, 4))
    base, experts = torch.tensor([0.4, 0.1]), ROUTING.experts()
    got = Elrea().weights(ROUTING)
    torch.testing.assert_close(got[:, 0], base)
    torch.testing.assert_close(got[:, 1:], experts)
    assert torch.equal(RandomCluster(weighted=True).weights(ROUTING), got)
    bare = Elrea(base_share=False).weights(ROUTING)
    assert bare[:, 0].tolist() == [0, 0] and torch.equal(bare[:, 1:], experts)
    first = Elrea(top_k=1).weights(ROUTING)
    torch.testing.assert_close(first, torch.tensor([[0.4, 0, 1, 0], [0.1, 1, 0, 0]]))
    assert torch.equal(Elrea(top_k=3).weights(ROUTING), got)


def test_adapter_specs() -> None:
    assert Single().adapters(SETTING) == Single("backbone").adapters(SETTING) == {}
    experts = {
        name: AdapterSpec(LORA, 5, 0.01, "cluster", c, True) for c, name in enumerate(EXPERTS)
    }
    for strategy in (Elrea(), Elrea(top_k=1), Uniform()):
        assert strategy.adapters(SETTING) == experts
    dealt = {name: AdapterSpec(LORA, 5, 0.01, "random", c, True) for c, name in enumerate(RANDOM)}
    assert (
        RandomCluster().adapters(SETTING) == RandomCluster(weighted=True).adapters(SETTING) == dealt
    )
    faster = RandomCluster(rate=50.0).adapters(SETTING)
    assert {job.learning_rate for job in faster.values()} == {0.5}


def test_adapters_of_other_seeds_are_trained_as_the_base_is() -> None:
    wanted = {f"seed-{k}": AdapterSpec(LORA, 2, 0.1, "all", None, False, k) for k in (1, 2, 3)}
    assert SeedEnsemble().adapters(SETTING) == SeedEnsemble(None).adapters(SETTING) == wanted
    with pytest.raises(ConfigError, match=r"size=1: must be at least 2"):
        SeedEnsemble(1)


def test_matched_adapters_get_elreas_steps_and_parameters() -> None:
    """Every example is seen by the base 2 times and by its own expert 5 times: 7 epochs."""
    compute = Matched().adapters(SETTING)["compute-matched"]
    assert compute == AdapterSpec(LORA, 7, 0.1, "all", None, False)
    continued = Continued(rate=2).adapters(SETTING)["continued"]
    assert continued == AdapterSpec(LORA, 5, 0.02, "all", from_base=True)
    both = Matched(True, rate=0.5).adapters(SETTING)["parameter-matched"]
    assert (both.lora.r, both.epochs, both.learning_rate) == (9, 7, 0.05)
    assert both.lora.scale == LORA.scale, "a larger rank must not be scaled down"
    assert both.examples == "all" and not both.from_base


@pytest.mark.parametrize(
    ("features", "epochs"),
    [
        (
            GradientFeatures(),
            9,
        ),  # 7, and a forward and backward pass over all prompts for each of 2 checkpoints
        (GradientFeatures(epoch_weights=[0.0, 1.0]), 8),
        (States(), 8),  # one forward pass: half an epoch, rounded up
        (Tokens(), 7),
    ],
)
def test_passes_over_the_features_prompts_count_as_epochs(features: Features, epochs: int) -> None:
    setting = replace(SETTING, features=features)
    assert Matched(count="passes").adapters(setting)["compute-matched-passes"].epochs == epochs
    assert Matched().adapters(setting)["compute-matched"].epochs == 7
    with pytest.raises(ConfigError, match="count=rounds: must be steps or passes"):
        Matched(count="rounds")  # type: ignore[arg-type]


@pytest.mark.parametrize("base", [LORA, Lora(r=3, alpha=5.0, rslora=True), Lora(r=4)])
def test_forms_of_the_wide_adapters_scale(base: Lora) -> None:
    """Against what PEFT scales by: as it is, the base adapter's; rank-stabilised, that over √C."""

    def scale(lora: Lora) -> float:
        options: dict[str, Any] = {"r": lora.r, "lora_alpha": lora.peft_alpha}
        config = LoraConfig(**options, use_rslora=lora.rslora, target_modules=["0"])
        layers: Any = torch.nn.Sequential(torch.nn.Linear(4, 4))
        adapted: Any = get_peft_model(layers, config).base_model
        return float(adapted.model[0].scaling["default"])

    wide = {
        form: next(iter(Matched(True, rslora=form).adapters(replace(SETTING, lora=base)).values()))
        for form in (None, False, True)
    }
    assert {spec.lora.r for spec in wide.values()} == {3 * base.r}
    scales = {form: scale(spec.lora) for form, spec in wide.items()}
    assert scales[None] == scales[False] == pytest.approx(scale(base))
    assert scales[True] == pytest.approx(scale(base) / math.sqrt(3))
    assert wide[True].lora.rslora and not wide[False].lora.rslora
    with pytest.raises(ConfigError, match=r"rslora=true: .* set rank_times_clusters=true"):
        Matched(rslora=True)


@pytest.mark.parametrize("kind", [Balanced, Projected, Tagged])
def test_an_adapter_that_uses_clusters_is_the_wide_one_otherwise(kind: type) -> None:
    wide = Matched(True).adapters(SETTING)["parameter-matched"]
    (own,) = kind().adapters(SETTING).values()
    assert replace(own, by_cluster=None, tag="") == wide
    assert own.clustered and not wide.clustered
    requirements = Requirements({"own": kind()}, LORA, TRAINING, SOURCES)
    assert requirements.clustered and not requirements.any_count
    assert not Requirements({"wide": Matched(True)}, LORA, TRAINING, SOURCES).clustered
    assert wide.stops_early and own.stops_early == (kind is Projected)


@pytest.mark.parametrize("tag", ["", "[3]", "{} {}", "{0}", "{}{"])
def test_a_tag_has_room_for_one_number(tag: str) -> None:
    with pytest.raises(ConfigError, match=r"must have \{\} once, for the cluster's number"):
        Tagged(tag=tag)


@pytest.mark.parametrize(
    "kind", [Elrea, Uniform, Oracle, MoeRouting, InstructionEmbedding, ElreaByStates, ElreaByTokens]
)
def test_rows_of_one_run_can_have_experts_of_different_rates(kind: type) -> None:
    """Experts of another rate have other names, so that each row's rate can be chosen."""
    own = kind(rate=0.5)
    names = [f"expert-x0.5-{c}" for c in range(3)]
    assert own.members(ROUTING)[-3:] == names
    rates = {name: spec.learning_rate for name, spec in own.adapters(SETTING).items()}
    assert rates == dict.fromkeys(names, 0.005)
    both = Requirements({"elrea": Elrea(), "own": own}, LORA, TRAINING, SOURCES).adapters(3)
    assert set(both) == {*EXPERTS, *names}
    torch.testing.assert_close(own.weights(ROUTING), kind().weights(ROUTING))
    with pytest.raises(ConfigError, match="rate=0"):
        kind(rate=0.0)


def test_fields_of_a_later_version_change_no_key_at_their_defaults() -> None:
    assert key_fields(Matched()) == {"class": "Matched", "rank_times_clusters": False, "rate": 1.0}
    assert key_fields(Elrea()) == {"class": "Elrea", "top_k": None, "base_share": True}
    assert key_fields(Uniform()) == {"class": "Uniform"}
    changed = key_fields(Matched(True, count="passes", rslora=False))
    assert changed["count"] == "passes" and changed["rslora"] is False
    assert key_fields(Elrea(rate=2))["rate"] == 2


@pytest.mark.parametrize("top_k", [0, -1])
def test_fewer_than_one_expert_is_refused(top_k: int) -> None:
    with pytest.raises(ConfigError, match=f"top_k={top_k}"):
        Elrea(top_k=top_k)


def test_an_adapter_per_source_learns_from_its_source_alone() -> None:
    wanted = AdapterSpec(LORA, 2, 0.2, "source", from_base=False, source="talk")
    assert SourceAdapters(rate=2).adapters(SETTING)["source-1"] == wanted
    assert SourceAdapters().weights(ROUTING).tolist() == [[0, 1], [1, 0]]
    strange = Routing(COSINES, Router(), ["talk", "law"], SOURCES)
    with pytest.raises(ConfigError, match="test prompts of 'law', but no training examples of it"):
        SourceAdapters().weights(strange)


@pytest.mark.parametrize("strategy", [MoeRouting(), MoeMerging()])
def test_shares_inside_the_layers_are_elreas_brought_to_a_sum_of_1(strategy: MoeRouting) -> None:
    got, elreas = strategy.weights(ROUTING), Elrea().weights(ROUTING)
    torch.testing.assert_close(got, elreas / torch.tensor([[1.4], [1.1]]))
    assert isinstance(strategy, Layerwise) and not isinstance(Elrea(), Layerwise)


def test_gates_are_trained_on_everything_for_one_epoch_at_the_experts_rate() -> None:
    job = Mole(rate=2).gates(SETTING)
    assert (job.examples, job.epochs, job.learning_rate) == ("all", 1, 0.02)
    assert isinstance(Mole(), TrainedGates) and not isinstance(MoeRouting(), TrainedGates)


def test_the_oracle_takes_each_sources_best_expert() -> None:
    correct = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 1, 0, 1], [0, 1, 0, 1, 0]]).bool()
    sources = ["a", "a", "b", "c", "b"]
    assert Oracle().pick(correct, sources).tolist() == [0, 0, 1, 2, 1]
    nobody = torch.zeros(3, 2).bool()
    assert Oracle().pick(nobody, ["a", "b"]).tolist() == [0, 0], (
        "of equally good members, the first"
    )
    assert isinstance(Oracle(), Picking)


def test_a_vote_falls_as_often_as_the_draws_say() -> None:
    """With p, one draw is right with p; of three, the majority is with p^3 + 3 p^2 (1 - p)."""
    p, log_probs = 0.7, [math.log(0.7) - 4, math.log(0.3) - 4]
    one, three = SelfConsistency(samples=1), SelfConsistency(samples=3)
    counts = [sum(v.vote(log_probs, i) == 0 for i in range(4000)) / 4000 for v in (one, three)]
    assert counts[0] == pytest.approx(p, abs=0.03)
    assert counts[1] == pytest.approx(p**3 + 3 * p * p * (1 - p), abs=0.03)
    cold = SelfConsistency(temperature=0.01)
    assert all(cold.vote([-3.0, -2.0, -9.0], i) == 1 for i in range(50))
    for temperature in (1e-300, 5e-324):
        coldest = SelfConsistency(temperature=temperature)
        assert all(coldest.vote([-3.0, -2.0, -9.0], i) == 1 for i in range(5))
    assert [three.vote(log_probs, i) for i in range(20)] == [
        three.vote(log_probs, i) for i in range(20)
    ]
    assert isinstance(one, Voting)
    for wrong in ({"samples": 0}, {"temperature": 0.0}):
        with pytest.raises(ConfigError):
            SelfConsistency(**wrong)


def test_instruction_embedding_groups_by_features_of_its_own() -> None:
    assert isinstance(InstructionEmbedding(), Regrouped) and not isinstance(Elrea(), Regrouped)


def test_hidden_states_are_not_called_an_embedding() -> None:
    assert InstructionEmbedding().label == "mean hidden state"
    assert InstructionEmbedding(features=Embedding(model="all-MiniLM")).label == ""
    assert Elrea().label == ElreaByTokens().label == ""


def test_rows_that_share_an_adapter_name_each_other_if_they_differ() -> None:
    rows = {"parameter_matched": Matched(True, rate=0.5), "gated_wide": Matched(True, rate=0.25)}
    said = r"ensemble\[gated_wide\]: .* than parameter_matched does \(learning rates .* and .*\)"
    with pytest.raises(ConfigError, match=said):
        Requirements(rows, LORA, TRAINING, SOURCES).adapters(3)
