"""Extreme values: overflow in half precision, padding tokens as text, clusters at equal distances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elrea.data.prompts import Encoded
from elrea.errors import TrainingError
from elrea.method.ensemble.joint import JointModel
from elrea.method.ensemble.mixing import mix
from elrea.method.ensemble.strategies.elrea import Elrea
from elrea.method.features.per_example import PerExampleGradients, largest_entry
from elrea.method.routing.weights import Router, Routing
from elrea.models.adapter_shape import Lora
from elrea.models.loss import batch_loss
from elrea.models.training.batches import collate, items
from tests.method.features import by_hand
from tests.method.features.test_gradients import adapted, batch, close
from tests.models.builders import BUILDERS, PAD, examples, random_adapter, train


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_gradient_that_overflows_in_half_precision_is_noticed_and_harms_no_other(
    dtype: torch.dtype,
) -> None:
    """One token's embedding at the end of what the type holds: its square is infinite in the norm's float32 too."""
    model = adapted("llama")
    for name, parameter in model.named_parameters():
        if ".lora_" not in name:
            parameter.data = parameter.data.to(dtype)
    sound = [Encoded(p.id, (*(t for t in p.prompt if t != 39), 3), ()) for p in by_hand.prompts(4)]
    clean = PerExampleGradients(model)(*batch(sound))
    with torch.no_grad():
        model.get_input_embeddings().weight[39] = float("inf") if dtype == torch.float16 else 3e38
    spoilt = [*sound[:2], Encoded("over", (5, 39, 6, 39, 7), ()), *sound[2:]]
    got = PerExampleGradients(model)(*batch(spoilt))
    assert not largest_entry(got)[2].isfinite() or not got[2].any(), (
        "an overflow must not give a finite gradient"
    )
    kept = got[[0, 1, 3, 4]]
    assert kept.isfinite().all()
    cosines = torch.nn.functional.cosine_similarity(kept, clean)
    assert cosines.min() > 0.99  # other batches round otherwise in half precision


def test_a_loss_that_overflows_names_its_step_and_its_examples(tmp_path: Path) -> None:
    """Adam's steps are as long as the rate, whatever the gradient: after the first nothing is finite."""
    with pytest.raises(
        TrainingError, match=r"^base: the loss is \w+ at step \d+ \(examples made/\d"
    ) as caught:
        train(tmp_path, learning_rate=1e30)
    assert "lower the learning rate or set training.clip=1" in str(caught.value)
    assert not (tmp_path / "adapter").exists()


def test_padding_as_text_is_text(tmp_path: Path) -> None:
    """An example of padding tokens only, in prompt and response: positions distinguish them, not ids."""
    padding = Encoded("pads", (PAD,) * 4, (PAD, PAD))
    mixed = [*examples(2), padding, *examples(3)[2:]]
    model = adapted("llama")
    backbone: Any = model.get_base_model()
    rows = items(mixed, "response")
    together = batch_loss(backbone, collate(rows, PAD, len(rows)))
    alone = [float(batch_loss(backbone, collate([row], PAD, 1))) for row in rows]
    assert float(together) == pytest.approx(sum(alone) / len(alone), rel=1e-5)
    prompts = [*by_hand.prompts(2), Encoded("pads", (PAD,) * 4, ())]
    got = PerExampleGradients(model)(*batch(prompts))
    close(got, by_hand.gradients(model, prompts))
    assert got[2].any()
    train(tmp_path, encoded=mixed)
    assert (tmp_path / "adapter").is_dir()


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 5), st.floats(-1, 1, width=16), st.floats(0.2, 3), st.sampled_from([None, 1, 3])
)
def test_where_all_clusters_are_equally_near_equal_experts_count_as_one(
    clusters: int, cosine: float, temperature: float, top_k: int | None
) -> None:
    """sigma = 0 in (5.9): the mix is w_base times the base and once the expert, whatever their number."""
    base, expert = random_adapter("llama", Lora(r=2), 1), random_adapter("llama", Lora(r=2), 2)
    joint = JointModel(BUILDERS["llama"](), [base, *[expert] * clusters])
    routing = Routing(torch.full((1, clusters), cosine), Router(temperature))
    weights = Elrea(top_k=top_k).weights(routing)
    assert weights.isfinite().all()
    assert float(weights[:, 1:].sum()) == pytest.approx(1, abs=1e-5)
    logits = joint.logits(torch.tensor([[2, 5, 9, 11]]), torch.tensor([1, 3]))
    got = mix(logits, weights.expand(2, -1))
    wanted = (1 - cosine) * logits[0] + logits[1]
    torch.testing.assert_close(got.float(), wanted.float(), rtol=1e-4, atol=1e-4)
