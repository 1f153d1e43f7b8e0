"""The strategy of one adapter that clusters steer: its training, its clusters, and its members' mix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from elrea.config import build, plain
from elrea.errors import ConfigError
from elrea.method.ensemble.joint import JointModel
from elrea.method.ensemble.layerwise import Factors, LayerwiseModel
from elrea.method.ensemble.requirements import Requirements
from elrea.method.ensemble.strategies.steered import ClustersFrom, Steered
from elrea.method.ensemble.strategy import AdapterSpec, Setting, trained_as
from elrea.method.features.gradient import GradientFeatures
from elrea.method.features.states import States
from elrea.method.features.tokens import Tokens
from elrea.method.routing.weights import Router, Routing
from elrea.models.adapter_shape import Lora
from elrea.models.training.settings import Training
from elrea.models.training.steered import folded
from elrea.models.training.steering import Steering
from tests.method.ensemble.test_layerwise import IDS, PLACES, SHARES
from tests.models.builders import BUILDERS, random_adapter

CONF = Path(__file__).parents[3] / "conf"
LORA = Lora(r=3, alpha=6.0)
TRAINING = Training(epochs=2, expert_epochs=5, learning_rate=0.1, expert_learning_rate=0.01)
SOURCES = ["maths", "talk"]
SETTING = Setting(LORA, TRAINING, clusters=4, sources=SOURCES)
COSINES = torch.tensor([[0.2, 0.6, 0.1, 0.0], [0.9, -0.3, 0.4, 0.1]])
ROUTING = Routing(COSINES, Router(), ["talk", "maths"], SOURCES)
NAMES = ["steered-0", "steered-1", "steered-2", "steered-3"]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("steered", Steered(clusters_from=ClustersFrom())),
        ("steered_diagonal", Steered("diagonal", clusters_from=ClustersFrom())),
        ("steered_random", Steered(clusters="random", clusters_from=ClustersFrom())),
    ],
)
def test_the_files_in_conf_name_these(name: str, wanted: Steered) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node = plain(compose(None, [f"+ensemble={name}"]).ensemble)
    built = build(node, "ensemble")
    assert replace(built, rate=wanted.rate) == wanted


def spec(**given: object) -> AdapterSpec:
    (found,) = Steered(**given).adapters(SETTING).values()  # type: ignore[arg-type]
    return found


def test_it_has_as_many_parameters_and_steps_as_elrea() -> None:
    made = spec()
    assert made.steering == Steering("full", 3.0, 4, "found", 12)
    assert (made.lora.r, made.epochs) == (12, 7)
    assert made.learning_rate == pytest.approx(0.035)
    assert made.lora.scale == LORA.scale, "a larger rank must not be scaled down"
    assert made.examples == "all" and made.clustered and not made.from_base
    assert not made.stops_early, "dev examples have no cluster"
    diagonal = spec(factors="diagonal", rank=5, epochs=1, rate=1.0, clusters="random").steering
    assert diagonal == Steering("diagonal", 6.0, 4, "random", 5)
    assert spec(factor_rate=0.0).steering == Steering("full", 0.0, 4, "found", 12)
    source = spec(clusters="source")
    assert source.steering == Steering("full", 3.0, 2, "source", 6) and not source.clustered


def test_experts_take_their_rank_from_the_trunk() -> None:
    """Equal parameters: 4 clusters of rank 3 are 12, with one of its own each 8 + 4, with three each 0 + 12."""
    ranks = {added: spec(added=added) for added in (0, 1, 3)}
    assert [made.steering.trunk for made in ranks.values() if made.steering] == [12, 8, 0]
    assert {made.lora.r for made in ranks.values()} == {12}
    with pytest.raises(ConfigError, match=r"added=4: above adapter\.r=3"):
        spec(added=4)
    assert spec(added=4, rank=2).lora.r == 18


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"factor_rate": -1.0}, "factor_rate=-1.0"),
        ({"factor_rate": float("inf")}, "factor_rate=inf"),
        ({"rate": 0.0}, "rate=0.0"),
        ({"rank": -1}, "rank=-1"),
        ({"rank": 0}, "rank=0: nothing would be trained"),
        ({"added": -1}, "added=-1"),
        ({"epochs": 0}, "epochs=0"),
        ({"soft": True, "clusters": "source"}, "soft=true"),
    ],
)
def test_settings_that_cannot_work_are_refused(given: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Steered(**given)


def test_hard_routing_takes_the_nearest_cluster_and_soft_mixes() -> None:
    hard, soft = Steered(), Steered(soft=True)
    assert hard.members(ROUTING) == soft.members(ROUTING) == NAMES
    assert hard.weights(ROUTING).tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]
    assert torch.equal(soft.weights(ROUTING), ROUTING.experts())
    assert hard.routed and Steered(clusters="random").routed
    assert {trained_as(name) for name in NAMES} == {"steered"}
    assert trained_as("expert-0") == "expert-0" and trained_as("steered") == "steered"


def test_sources_steer_without_routing() -> None:
    by_source = Steered(clusters="source")
    assert not by_source.routed and by_source.members(ROUTING) == NAMES[:2]
    assert by_source.weights(ROUTING).tolist() == [[0, 1], [1, 0]]
    strange = Routing(COSINES, Router(), ["talk", "law"], SOURCES)
    with pytest.raises(ConfigError, match="test prompts of 'law', but no training examples of it"):
        by_source.weights(strange)


def test_what_depends_on_the_clusters_waits_for_their_number() -> None:
    def known(strategy: Steered) -> Requirements:
        return Requirements({"one": strategy}, LORA, TRAINING, SOURCES)

    assert known(Steered(rank=4)).adapters(None) == {}, "the factors depend on C, if A and B do not"
    assert known(Steered(rank=4)).clustered and not known(Steered(rank=4)).any_count
    by_source = known(Steered(clusters="source"))
    assert list(by_source.adapters(None)) == ["steered"]
    assert by_source.any_count and not by_source.clustered and not by_source.routed


def test_clusters_come_from_features_and_epochs_of_their_own() -> None:
    run = GradientFeatures(epoch_weights=[1.0, 2.0])
    plain = replace(run, epoch_weights=None)

    def found(**given: object) -> tuple[object, int]:
        return Steered(clusters_from=ClustersFrom(**given)).grouped_by(run, 2)  # type: ignore[arg-type]

    assert Steered().grouped_by(run, 2) == (run, 2)
    assert found(epochs=None) == (run, 2)
    assert found(epochs=1) == found(epochs=1, checkpoints=1) == (plain, 1)
    assert found(epochs=0) == (plain, 0)
    assert found(epochs=3, checkpoints=2) == (replace(run, epoch_weights=[0.0, 1.0, 1.0]), 3)
    assert found(epochs=None, checkpoints=1) == (replace(run, epoch_weights=[0.0, 1.0]), 2)
    assert found(epochs=1, features=States(layer=3)) == (States(layer=3), 1)
    # Counts of tokens need no base adapter: that of the run is shared.
    assert found(epochs=1, features=Tokens()) == (Tokens(), 2)
    assert found(epochs=1, features=run) == (run, 1), "refused by its own check, not changed"
    for wrong in ({"epochs": -1}, {"epochs": 2, "checkpoints": 3}, {"checkpoints": 0}):
        with pytest.raises(ConfigError, match="clusters_from"):
            ClustersFrom(**wrong)  # type: ignore[arg-type]


def members(added: int) -> tuple[list, dict, dict, Steering]:
    """Three clusters' folded adapters, and A, B and M that they are of."""
    steering = Steering("full", 3.0, 3, "found", 2, added)
    lora = Lora(r=2).of_rank(steering.rank)
    tensors, _ = random_adapter("llama", lora, 1)
    draw = torch.Generator().manual_seed(3)
    layers = [name.removesuffix(".lora_A.weight") for name in tensors if ".lora_A." in name]
    factors = {f"{name}.steering": torch.randn(3, 2, 2, generator=draw) for name in layers}
    made = [(folded(tensors, factors, steering, c), steering.member(lora)) for c in range(3)]
    return made, tensors, factors, steering


@pytest.mark.parametrize("added", [0, 1])
def test_soft_routing_mixes_the_factors_in_one_pass(added: int) -> None:
    """Each prompt's logits are those of one adapter, B·(Σ w_c M_c)·A and Σ w_c B_c A_c, made in the test."""
    made, tensors, factors, _ = members(added)
    model = BUILDERS["llama"]()
    strategy = Steered(soft=True, added=added)
    got = LayerwiseModel(model, made, strategy.delta).logits(IDS, PLACES, SHARES)
    got = got.view(*IDS.shape, -1)
    for row, shares in enumerate(SHARES):
        one = dict(tensors)
        for name, m in factors.items():
            b = f"{name.removesuffix('.steering')}.lora_B.weight"
            mixed = sum(w * each for w, each in zip(shares, m, strict=True))
            experts = tensors[b][:, 2:] * shares.repeat_interleave(added)
            one[b] = torch.cat([tensors[b][:, :2] @ mixed, experts], dim=1)
        alone = JointModel(model, [(one, Lora(r=2).of_rank(2 + 3 * added))])
        wanted = alone.logits(IDS[row : row + 1], PLACES[: IDS.shape[1]])
        torch.testing.assert_close(got[row], wanted[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("added", [0, 1])
def test_soft_routing_by_one_cluster_is_hard_routing(added: int) -> None:
    made, *_ = members(added)
    model, one_hot = BUILDERS["llama"](), torch.eye(3)[[2, 0, 1, 1]]
    hard, soft = (Steered(soft=soft, added=added) for soft in (False, True))
    got = LayerwiseModel(model, made, soft.delta).logits(IDS, PLACES, one_hot)
    same = LayerwiseModel(model, made, hard.delta).logits(IDS, PLACES, one_hot)
    assert torch.equal(got, same)
    joint = JointModel(model, made).logits(IDS, PLACES)  # each member by itself
    for row, cluster in enumerate([2, 0, 1, 1]):
        own = slice(row * IDS.shape[1], (row + 1) * IDS.shape[1])
        torch.testing.assert_close(got[own], joint[cluster][own], rtol=1e-4, atol=1e-4)


def test_it_is_layerwise_at_the_layer_too() -> None:
    draw = torch.Generator().manual_seed(1)
    a = torch.randn(1, 2, 5, generator=draw).expand(3, 2, 5)
    b, x = torch.randn(3, 7, 2, generator=draw), torch.randn(2, 6, 5, generator=draw)
    weights = torch.tensor([[0.2, 0.5, 0.3], [0.0, 1.0, 0.0]])
    shared, general = (Steered(added=n).delta(x, Factors(a, b, weights)) for n in (0, 1))
    torch.testing.assert_close(shared, general)
