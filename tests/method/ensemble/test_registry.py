"""Component classes are found by their base class, and nothing else can be named."""

from __future__ import annotations

import sys
from dataclasses import asdict

import pytest

from elrea.config import build
from elrea.errors import ConfigError
from elrea.method.clustering.points import Clustering
from elrea.method.ensemble.registry import classes_of, find_class, make
from elrea.method.ensemble.strategy import Strategy
from elrea.method.features.base import Features
from elrea.method.features.gradient import GradientFeatures
from elrea.method.features.projection import Full, Projection, Rademacher
from elrea.method.features.sjlt import Sjlt
from elrea.method.routing.distilled import Distilled
from elrea.method.routing.weights import Router
from elrea.models.adapter_shape import Lora
from elrea.pipeline.experiment import key_fields

FEATURES = GradientFeatures(Rademacher(d=16, seed=3), layers=["q_proj"], epoch_weights=[1.0, 2.0])


@pytest.mark.parametrize(
    ("base", "names"),
    [
        (Features, {"GradientFeatures", "Embedding"}),
        (Projection, {"Rademacher", "Full", "Sjlt"}),
        (Router, {"Router", "Distilled"}),
        (Clustering, {"FaissKMeans", "Birch", "SourceClusters", "RandomClusters"}),
        (Strategy, {"Elrea", "Mole", "Oracle", "SelfConsistency", "Single"}),
    ],
)
def test_classes_follow_from_their_base(base: type, names: set[str]) -> None:
    classes = classes_of(base)
    assert names <= classes.keys()
    assert all(issubclass(cls, base) for cls in classes.values())
    assert find_class(base, min(names)) is classes[min(names)]


def test_another_base_or_another_package_is_refused() -> None:
    for name in ("Lora", "os.system", "elrea.models.adapter_shape.Lora", "", None, 3):
        with pytest.raises(ConfigError, match="is not a subclass of Features"):
            find_class(Features, name)
    with pytest.raises(
        ConfigError, match="'Ful' is not a subclass of Projection; did you mean Full"
    ):
        find_class(Projection, "Ful")
    with pytest.raises(ValueError, match="is not defined in elrea"):
        classes_of(ConfigError.__mro__[2])
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("component", [FEATURES, GradientFeatures(Full()), GradientFeatures()])
def test_a_description_makes_the_component_again(component: Features) -> None:
    made = make(key_fields(component), Features, "features")
    assert made == component and type(made) is type(component)
    assert make(key_fields(Distilled(width=3)), Router, "router") == Distilled(width=3)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (None, "^features: not a description of a component: None$"),
        ({"form": "sgd"}, "^features: not a description of a component"),
        ({"class": "Lora"}, "^features.class: 'Lora' is not a subclass of Features"),
        ({"class": "GradientFeatures", "colour": 1}, "^features.colour: unknown key"),
        ({"class": "GradientFeatures", "projection": {"class": "Embedding"}}, "features.projection.class: 'Emb"),
        ({"class": "GradientFeatures", "projection": 5}, "^features.projection: wants Projection, not 5"),
        ({"class": "GradientFeatures", "layers": [{"a": [{"_target_": "x"}]}]}, "^features.layers: may not name"),
        ({"class": "GradientFeatures", "_target_": "x"}, "^features._target_: may not name a class$"),
    ],
)  # fmt: skip
def test_a_description_that_does_not_fit(description: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(description, Features, "features")


def test_a_config_may_name_subclasses_of_the_wanted_base_only() -> None:
    node = {"_target_": "elrea.method.features.sjlt.Sjlt", **asdict(Sjlt(d=8))}
    assert build(node, "projection", Projection) == Sjlt(d=8)
    lora = {"_target_": "elrea.models.adapter_shape.Lora", **asdict(Lora())}
    with pytest.raises(
        ConfigError, match=r"^features\._target_: elrea\.models\.adapter_shape\.Lora is not a subclass of Features$"
    ):  # fmt: skip
        build(lora, "features", Features)
    with pytest.raises(ConfigError, match=r"^features\.projection: wants Projection, not Lora"):
        build(
            {"_target_": "elrea.method.features.gradient.GradientFeatures", "projection": lora},
            "features",
            Features,
        )
    for nothing in (None, dict[str, str](), 3):
        with pytest.raises(ConfigError, match=r"^features\._target_: "):
            build(nothing, "features", Features)


def test_abstract_classes_cannot_be_made() -> None:
    with pytest.raises(
        ConfigError, match=r"^ensemble\._target_: .*Layerwise.* is not a config class"
    ):
        build({"_target_": "elrea.method.ensemble.strategy.Layerwise"}, "ensemble", Strategy)
