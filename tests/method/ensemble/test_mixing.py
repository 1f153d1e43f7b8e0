"""Mixed logits (5.10) equal sums written out."""

from __future__ import annotations

import numpy as np
import torch

from elrea.method.ensemble.mixing import mix


def test_on_paper() -> None:
    """Two members, two prompts, three tokens; the weights do not sum to 1."""
    base, expert = [[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]], [[3.0, 2.0, 1.0], [5.0, 0.0, -5.0]]
    weights = torch.tensor([[0.5, 1.0], [2.0, 0.1]])
    wanted = torch.tensor([[3.5, 3.0, 2.5], [0.5, 2.0, -0.5]])
    torch.testing.assert_close(mix(torch.tensor([base, expert]), weights), wanted)


def test_every_place_of_a_row_has_the_rows_weights() -> None:
    draw = np.random.default_rng(0)
    logits, weights = draw.standard_normal((3, 4, 5, 6)), draw.uniform(size=(4, 3))
    wanted = np.zeros((4, 5, 6))
    for member in range(3):
        for row in range(4):
            wanted[row] += weights[row, member] * logits[member, row]
    got = mix(torch.from_numpy(logits).float(), torch.from_numpy(weights))
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-5)
