"""A finished ensemble in use: route, score and continue prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from elrea.data.examples import Example
from elrea.data.prompts import Encoded, Prompter
from elrea.errors import ConfigError, DataError
from elrea.method.clustering.centroids import cosines
from elrea.method.ensemble.joint import JointModel
from elrea.method.ensemble.likelihood import log_likelihoods
from elrea.method.ensemble.saved import Saved, read_ensemble
from elrea.method.ensemble.strategies.elrea import Elrea
from elrea.method.ensemble.strategy import BASE
from elrea.method.features.gradient import extract
from elrea.method.routing.weights import LearnedRouter, Routing
from elrea.models import lora as lora_files
from elrea.models.backbone import Backbone
from elrea.models.device import Device
from elrea.store.files import is_text

if TYPE_CHECKING:
    from elrea.method.ensemble.decoding_settings import Decoding

BATCH = 16
"""Prompts in one pass."""


@dataclass(frozen=True)
class Route:
    """Which members answer one prompt, and how much each weighs.

    Attributes:
        weights: By member's name, the base adapter's share w_base first; they need not sum to 1.
        cosines: cos_c of the prompt's feature with each cluster's centroid.
        nearest: The cluster with the highest cosine, whose expert weighs most.
    """

    weights: dict[str, float]
    cosines: list[float]
    nearest: int


class Ensemble:
    """Base adapter and experts on one backbone.

    Args:
        saved: What the ensemble's folder holds.
        backbone: The model that they were trained on, which is adapted in place while it is used.
        strategy: How members weigh: all experts, the k nearest, with the base's share or without.

    Attributes:
        members: Their names, the base adapter first.
        joint: All of them in one forward pass.
        prompter: Words prompts as in training.
    """

    def __init__(self, saved: Saved, backbone: Backbone, strategy: Elrea) -> None:
        self.saved, self.backbone, self.strategy = saved, backbone, strategy
        self.members = strategy.members(Routing(torch.empty(0, len(saved.centroids)), saved.router))
        adapters = [lora_files.load(saved.folder / name) for name in self.members]
        self._lora = adapters[0][1]
        self.joint = JointModel(backbone.model, adapters)
        self.prompter = Prompter(backbone.tokenizer, saved.max_length(), saved.use_chat_template)

    def __repr__(self) -> str:
        count = len(self.members) - 1
        return f"<Ensemble of {count} experts in {self.saved.folder}, on {self.backbone.name}>"

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        backbone: str | None = None,
        top_k: int | None = None,
        base_share: bool = True,
        device: Device | None = None,
    ) -> Ensemble:
        """Reads an ensemble's folder: JSON and safetensors, every file by its checksum; nothing in it is run.

        Args:
            folder: `ensemble/` of a run.
            backbone: The backbone's folder or hub id, where `ensemble.json` names none that is there.
            top_k: Let the k nearest experts answer alone, with the base's share; None: all of them.
            base_share: Let the base adapter take part with w_base, as the paper does.
            device: Where to compute; None: a GPU where there is one, else every core.

        Raises:
            StoreError: A file is missing, damaged, or outside the folder.
            BackboneError: The backbone is not there, or is not the one that the adapters were trained on.
        """
        saved, where = read_ensemble(Path(folder), backbone), device or Device()
        where.apply()
        return cls(saved, saved.backbone.load(where), Elrea(top_k, base_share))

    def route(self, prompts: Sequence[str | Example]) -> list[Route]:
        """Weighs the members for each prompt: by its gradient, that of no response (5.2 to 5.9), or as the
        distilled router guesses it."""
        if not prompts:
            return []
        routing = self._routing(_examples(prompts))
        weights = self.strategy.weights(routing)
        return [
            Route(dict(zip(self.members, w, strict=True)), c, max(range(len(c)), key=c.__getitem__))
            for w, c in zip(weights.tolist(), routing.cosines.tolist(), strict=True)
        ]

    def check(self, prompts: Sequence[str | Example], decoding: Decoding) -> None:
        """Refuses prompts that could not be answered, before any is.

        Raises:
            DataError: A prompt is empty, or too long to leave room for an answer.
        """
        for example in _examples(prompts):
            self._encode([example], None if example.choices else decoding.max_new_tokens)

    def score(
        self,
        prompts: Sequence[str | Example],
        choices: Sequence[Sequence[str]],
        *,
        routes: Sequence[Route] | None = None,
    ) -> list[list[float]]:
        """log P(choice | prompt) of each prompt's choices, by the members' mixed logits.

        Args:
            prompts: n instructions.
            choices: What may follow each of them [n], at least one text each.
            routes: What `route` gave for them, where that is known already.

        Raises:
            DataError: A prompt or choice is empty, or together they are too long.
        """
        if len(prompts) != len(choices):
            raise DataError(
                f"{len(prompts)} prompts with choices for {len(choices)}: one list each"
            )
        asked = []
        examples = [
            Example(e.id, e.instruction, c[0] if c else "", e.source, e.category, tuple(c))
            for e, c in zip(_examples(prompts), choices, strict=True)
        ]
        for example, encoded in zip(examples, self._encode(examples), strict=True):
            found = self.prompter.choices(example)
            if not found or not all(found):
                raise DataError(f"{example.id}: it has no choices, or one of them is empty")
            asked.append((encoded.prompt, found))
        weights = self._weights(prompts, routes)
        return log_likelihoods(
            self.joint, asked, weights, batch_size=BATCH, pad_id=self.backbone.pad_id
        )

    def generate(
        self,
        prompts: Sequence[str | Example],
        decoding: Decoding | None = None,
        *,
        routes: Sequence[Route] | None = None,
        tell: Callable[[int, str], object] | None = None,
    ) -> list[str]:
        """Continues prompts, each through its own members, all at once (5.10).

        Args:
            prompts: Instructions, of any lengths.
            decoding: How tokens are chosen; None: greedily, 128 at most.
            routes: What `route` gave for them, where that is known already.
            tell: Called with a prompt's number and its next piece of text while it is written.

        Raises:
            DataError: A prompt is empty, or too long to leave room for an answer.
        """
        from elrea.method.ensemble.decoding import generate, stopped
        from elrea.method.ensemble.decoding_settings import Decoding

        settings = decoding or Decoding()
        encoded = self._encode(_examples(prompts), settings.max_new_tokens)
        answers = generate(
            self.joint,
            [e.prompt for e in encoded],
            self._weights(prompts, routes),
            settings,
            self.backbone.tokenizer,
            pad_id=self.backbone.pad_id,
            tell=tell,
        )
        texts = [
            str(self.backbone.tokenizer.decode(list(ids), skip_special_tokens=True))
            for ids in answers
        ]
        return [stopped(text, settings.stop)[0] for text in texts]

    def _weights(
        self, prompts: Sequence[str | Example], routes: Sequence[Route] | None
    ) -> torch.Tensor:
        """Weights of the members for each prompt [n, members], routed now unless that is known."""
        known = self.route(prompts) if routes is None else routes
        return torch.tensor([list(route.weights.values()) for route in known])

    def _encode(self, examples: list[Example], room: int | None = None) -> list[Encoded]:
        encoded, too_long = self.prompter.test(examples, room)
        if too_long:
            raise DataError(
                f"{too_long[0]}: longer than the {self.prompter.max_length} tokens that fit, with room for the "
                "answer; shorten it, or ask for a shorter answer"
            )
        return encoded

    def _routing(self, examples: list[Example]) -> Routing:
        saved, prompts = self.saved, self.prompter.routing(examples)
        model = lora_files.attach(self.backbone.model, self._lora, 0)
        try:
            if isinstance(saved.router, LearnedRouter):
                predicted = saved.router.predict(
                    saved.routing, model, saved.folder / BASE, prompts, pad_id=self.backbone.pad_id
                )
                return Routing(predicted, saved.router)
            features = extract(
                model, saved.epochs, prompts, saved.features,
                pad_id=self.backbone.pad_id, tokenizer=self.backbone.tokenizer,
            )  # fmt: skip
        finally:
            lora_files.detach(model)
        saved.check_dimension(features.shape[1])
        return Routing(cosines(features.numpy(), saved.centroids), saved.router)


def _examples(prompts: Sequence[str | Example]) -> list[Example]:
    """Prompts as examples; a text is an instruction, as a training example words it."""
    made = []
    if isinstance(prompts, str):
        raise ConfigError("prompts are a list: [prompt], not a text alone")
    for n, prompt in enumerate(prompts, 1):
        example = prompt if isinstance(prompt, Example) else Example(f"prompt {n}", prompt, "", "")
        if not example.instruction.strip():
            raise DataError(f"{example.id} is empty")
        if not is_text("".join([example.instruction, *example.choices])):
            raise ConfigError(f"{example.id} is not UTF-8 text")
        made.append(example)
    return made
