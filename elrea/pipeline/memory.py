"""What to change where a stage ran out of memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from elrea.errors import ElreaError

ADVICE = {
    "features": "features.batch_tokens, features.buffer_mb or features.batch_size, or say features.recompute=true",
    "scores": "evaluation.batch_size",
    "clusters": "clustering.pca (fewer dimensions) or data.limit_train",
    "router": "routing.batch_size",
    "routing": "routing.batch_size",
}
TRAINING = (
    "training.batch_size (training.accumulate makes up for it) or backbone.max_length, "
    "or say training.recompute=true"
)


@contextmanager
def explained(stage: str) -> Iterator[None]:
    """Makes one line of torch's out-of-memory errors.

    Args:
        stage: What is being made, by its name in the plan.

    Raises:
        ElreaError: Memory ran out; which setting to lower.
    """
    import torch

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # On a CPU torch raises a bare RuntimeError, which its text alone tells apart.
        short = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if not short and "can't allocate memory" not in str(error):
            raise
        advice = ADVICE.get(stage.rpartition("/")[2].partition("-")[0], TRAINING)
        raise ElreaError(
            f"{stage}: out of memory; lower {advice}; the same command then goes on from here"
        ) from error
