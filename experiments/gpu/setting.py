"""Sizes of the measurements by the device's memory, and what all of them use: backbone, data, adapters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elrea.data.corpus import Corpus
    from elrea.models.backbone import Backbone

ROOT = Path(__file__).parents[2]
SMOLLM2 = ROOT / "models" / "SmolLM2-135M-Instruct"
"""Where `make smollm2` writes it."""
GIB = 2**30


@dataclass(frozen=True)
class Setting:
    """What to measure on.

    Attributes:
        small: On the CPU, with the built-in backbone, so that it ends in a minute or two.
        into: Folder of the results, and of what they are made from.
        model: The backbone's folder; None takes SmolLM2's if it is there, else its shape with random weights.
        data: Folder of the published data sets, for the study; None leaves it out.
        seconds: Time limit of the part.
    """

    small: bool
    into: Path
    model: Path | None = None
    data: Path | None = None
    seconds: float = 600.0

    @property
    def device(self) -> str:
        return "cpu" if self.small else "cuda"

    @cached_property
    def memory(self) -> float:
        """Of the device, in GiB; 4 in small."""
        if self.small:
            return 4.0
        import torch

        return float(torch.cuda.get_device_properties(0).total_memory / GIB)

    @property
    def batch(self) -> int:
        """Rows of 512 tokens that SmolLM2 trains at once in float32: some GiB each, 32 at most."""
        return 4 if self.small else max(2, min(32, int(self.memory // 3)))

    def pick(self, large: Any, small: Any) -> Any:
        """A size on a GPU, or in small."""
        return small if self.small else large

    @property
    def about(self) -> dict[str, Any]:
        """What figures depend on, besides the machine."""
        return {"small": self.small, "batch": self.batch, "backbone": self.named}

    @property
    def random(self) -> bool:
        """Whether the backbone's weights are random."""
        return not (self.small or self.model or SMOLLM2.is_dir())

    @property
    def named(self) -> str:
        """The backbone, as the results name it."""
        if self.model:
            return self.model.name
        if self.small:
            return "elrea-tiny"
        return "SmolLM2-135M's shape, random weights" if self.random else SMOLLM2.name

    def folder(self) -> Path:
        """The backbone's folder; one of random weights is made here."""
        from elrea.models.backbone import TINY

        if self.model or (SMOLLM2.is_dir() and not self.small):
            return self.model or SMOLLM2
        if self.small:
            return TINY
        made = self.into / "backbone"
        if not (made / "tokenizer_config.json").is_file():
            from transformers import AutoTokenizer

            from experiments.benchmarks.features_setting import backbone_of

            backbone_of("smollm2").save_pretrained(made)
            AutoTokenizer.from_pretrained(TINY).save_pretrained(made)  # last: says that it is whole
        return made

    def load(self, dtype: str = "float32", quantise: str | None = None) -> Backbone:
        """The backbone on the device."""
        from elrea.models.backbone import Pretrained
        from elrea.models.device import Device

        pretrained = Pretrained(
            str(self.folder()), max_length=512, dtype=dtype, quantise=quantise, add_bos=True
        )
        return pretrained.load(Device("cpu" if self.small else "gpu"))

    def exam(self) -> Corpus:
        """Questions of boards, which are their sources."""
        from elrea.data.exam.exam import Exam

        train, test = self.pick((200, 40), (8, 4))
        boards = self.pick(8, 4)
        return Exam(
            boards=boards, train_per_board=train, dev_per_board=4, test_per_board=test
        ).load()


def random_members(model: Any, count: int) -> list[Any]:
    """Adapters of rank 8 with random factors, small enough that texts stay texts."""
    import torch

    from elrea.models import lora
    from elrea.models.adapter_shape import Lora

    shape = Lora(r=8, dropout=0.0)
    peft = lora.attach(model, shape, 0)
    drawn = lora.state(peft)
    lora.detach(peft)
    generator = torch.Generator().manual_seed(1)
    return [
        (
            {name: torch.randn(t.shape, generator=generator) * 0.01 for name, t in drawn.items()},
            shape,
        )
        for _ in range(count)
    ]


def random_prompts(vocabulary: int, count: int, tokens: int) -> list[tuple[int, ...]]:
    """Prompts of random token ids."""
    import torch

    generator = torch.Generator().manual_seed(tokens)
    ids = torch.randint(3, vocabulary, (count, tokens), generator=generator)
    return [tuple(row) for row in ids.tolist()]
