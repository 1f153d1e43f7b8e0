"""The text router against scikit-learn's own pipeline on the same counts."""

from __future__ import annotations

import random
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import Normalizer

from elrea.data.prompts import Encoded
from elrea.errors import ConfigError, StoreError
from elrea.method.routing.files import WEIGHTS
from elrea.method.routing.words import Words
from elrea.store.files import read_json


@contextmanager
def quiet(*_: Any) -> Any:
    yield lambda _n: None


def prompts(clusters: list[int], seed: int) -> list[Encoded]:
    """Five tokens of 40, of which a cluster has eight of its own three times as often."""
    draw = random.Random(seed)
    made = []
    for i, cluster in enumerate(clusters):
        own = range(8 * cluster, 8 * cluster + 8)
        ids = [draw.choice(own) if draw.random() < 0.5 else draw.randrange(40) for _ in range(5)]
        made.append(Encoded(f"p/{i}", tuple(ids), ()))
    return made


def trained(folder: Path, clusters: list[int], count: int) -> tuple[Words, list[Encoded]]:
    router, made = Words(strength=2.0), prompts(clusters, 0)
    labels = torch.nn.functional.one_hot(torch.tensor(clusters), count).float()
    router.train(folder, None, folder, (made, labels), None, seed=0, pad_id=0, progress=quiet)  # type: ignore[arg-type]
    return router, made


@pytest.mark.parametrize("count", [2, 4])
def test_probabilities_are_scikit_learns(count: int, tmp_path: Path) -> None:
    clusters = [i % count for i in range(60)]
    router, made = trained(tmp_path, clusters, count)
    fresh = [*prompts([0, 1, 0, 1], 1), Encoded("unknown", (77, 78), ())]
    got = router.predict(tmp_path, None, tmp_path, fresh, pad_id=0)  # type: ignore[arg-type]

    words = DictVectorizer()

    def table(of: list[Encoded], fit: bool = False) -> Any:
        rows = [{str(t): np.log1p(p.prompt.count(t)) for t in p.prompt} for p in of]
        found = words.fit_transform(rows) if fit else words.transform(rows)
        return Normalizer().fit_transform(found)

    model = LogisticRegression(C=2.0, max_iter=1000).fit(table(made, fit=True), clusters)
    np.testing.assert_allclose(got.numpy(), model.predict_proba(table(fresh)), atol=2e-3)
    figures = read_json(tmp_path / "router.json")
    assert figures["passes"] == 0 and figures["train"] == 60 and figures["dev"] == 6
    assert 0 <= figures["accuracy"] <= 1


def test_a_cluster_without_prompts_is_never_chosen(tmp_path: Path) -> None:
    router, made = trained(tmp_path, [0, 2] * 10, 4)
    got = router.predict(tmp_path, None, tmp_path, made, pad_id=0)  # type: ignore[arg-type]
    assert torch.equal(got[:, [1, 3]], torch.zeros(20, 2))
    assert (got.argmax(1).view(-1, 2) == torch.tensor([0, 2])).float().mean() > 0.8


def test_one_cluster(tmp_path: Path) -> None:
    router, made = trained(tmp_path, [0] * 5, 1)
    got = router.predict(tmp_path, None, tmp_path, made, pad_id=0)  # type: ignore[arg-type]
    assert torch.equal(got, torch.ones(5, 1))


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"routing\.strength=0"):
        Words(strength=0)
    with pytest.raises(ConfigError, match=r"routing\.held_out=1"):
        Words(held_out=1)
    (tmp_path / WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(StoreError, match="is no text router"):
        Words().predict(tmp_path, None, tmp_path, prompts([0], 0), pad_id=0)  # type: ignore[arg-type]
