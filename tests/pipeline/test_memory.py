"""Running out of memory ends in a line that names what to lower."""

from __future__ import annotations

import pytest
import torch

from elrea.errors import ElreaError
from elrea.pipeline.memory import explained


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("base", "training.recompute=true"),
        ("expert-3", "training.batch_size"),
        ("features-test", "features.batch_tokens"),
        ("instruction_embedding/features-train", "features.batch_tokens"),
        ("scores", "evaluation.batch_size"),
    ],
)
def test_what_to_lower(stage: str, said: str) -> None:
    pattern = f"^{stage}: out of memory; lower .*{said}"
    with pytest.raises(ElreaError, match=pattern) as caught, explained(stage):
        torch.empty(2**50)  # a petabyte: torch's own error
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(ElreaError, match=said), explained(stage):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), explained("base"):
        raise RuntimeError("shapes do not fit")
