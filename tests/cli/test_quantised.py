"""QLoRA: gradients through a quantised backbone, and a run on one from end to end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from elrea.errors import BackboneError
from elrea.method.features.per_example import PerExampleGradients, prompt_loss
from elrea.models import lora
from elrea.models.adapter_shape import Lora
from elrea.models.backbone import TINY, Pretrained
from elrea.models.device import Device
from tests.cli.commands import QUIET, run


def test_what_is_wrong_is_said(monkeypatch) -> None:
    with pytest.raises(BackboneError, match="quantise=2bit must be 4bit, 8bit or null"):
        Pretrained(str(TINY), quantise="2bit").load(Device("cpu"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(BackboneError, match=r"pip install 'elrea\[quantised\]'"):
        Pretrained(str(TINY), quantise="4bit").load(Device("cpu"))


def test_per_example_gradients_equal_single_backwards() -> None:
    pytest.importorskip("bitsandbytes")
    backbone = Pretrained(str(TINY), quantise="4bit").load(Device("cpu")).model
    assert backbone.get_parameter("model.layers.0.mlp.up_proj.weight").dtype == torch.uint8
    model = lora.attach(backbone, Lora(r=2), 0)
    draw = torch.Generator().manual_seed(0)
    own = {k: torch.randn(v.shape, generator=draw) / 20 for k, v in lora.state(model).items()}
    lora.set_state(model, own)
    ids = torch.randint(3, 1400, (3, 12), generator=draw)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, 8:] = False
    got = PerExampleGradients(model)(ids, mask, mask)
    wanted = [tensor for _, tensor in sorted(lora.parameters(model).items())]
    for row, length in enumerate(mask.sum(1).tolist()):
        alone = [part[row : row + 1, :length] for part in (ids, mask, mask)]
        single = torch.autograd.grad(prompt_loss(model, *alone), wanted)
        flat = torch.cat([gradient.flatten() for gradient in single])
        torch.testing.assert_close(got[row], flat, rtol=1e-4, atol=1e-5 * float(flat.abs().max()))


def test_a_run_on_one(words: list[str], tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    ended = run(tmp_path, *words, "backbone.quantise=4bit", QUIET)
    assert ended.code == 0, ended.err
