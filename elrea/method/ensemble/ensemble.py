"""An exported ensemble in Python: `Ensemble.load(folder)`, then `route`, `score` and `generate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from elrea.data.examples import Example
from elrea.data.expressible import check_choices
from elrea.data.prompts import Encoded, Prompter
from elrea.data.readers.prompt_reader import PromptReader
from elrea.errors import ConfigError, DataError, NotHere
from elrea.method.clustering.centroids import cosines
from elrea.method.ensemble.ensemble_folder import Saved, read_ensemble
from elrea.method.ensemble.folder import ENSEMBLE
from elrea.method.ensemble.hub import PREFIX, fetched, repo_of
from elrea.method.ensemble.joint import JointModel
from elrea.method.ensemble.layerwise import LayerwiseModel
from elrea.method.ensemble.likelihood import log_likelihoods
from elrea.method.ensemble.strategies.elrea import Elrea
from elrea.method.ensemble.strategy import BASE, Layerwise, Strategy
from elrea.method.features.gradient import extract
from elrea.method.routing.weights import LearnedRouter, Routing
from elrea.models import lora as lora_files
from elrea.models.device import Device
from elrea.store.files import is_text

if TYPE_CHECKING:
    from elrea.method.ensemble.decoding_settings import Decoding
    from elrea.models.backbone import Backbone

Asked = str | Mapping[str, Any] | Example
"""A prompt: its text, a row as in data=jsonl, or an example."""

BATCH = 16
"""Prompts in one pass."""


@dataclass(frozen=True)
class Route:
    """The weights of the members for one prompt.

    Attributes:
        weights: Weight of each member by name, the base adapter's w_base first; they need not sum to 1.
        cosines: cos_c of the prompt's feature with each cluster's centroid.
        nearest: Number of the cluster with the highest cosine, whose expert has the largest weight.

    A strategy that does not route by prompts has no cosines, and -1 for the nearest cluster.
    """

    weights: dict[str, float]
    cosines: list[float]
    nearest: int


class Ensemble:
    """Base adapter and experts on one backbone.

    Args:
        saved: Contents of the ensemble's folder.
        backbone: The model that the adapters were trained on; it is changed in place while it is used.
        strategy: How members are weighted: all experts or the k nearest, with or without the base adapter; that of
            one adapter which clusters steer; or another one that is `exported`.

    Attributes:
        members: Names of the members; of base adapter and experts, the base adapter first.
        joint: All members in one forward pass, or mixed inside the layers.
        prompter: Formats prompts as in training.
    """

    def __init__(self, saved: Saved, backbone: Backbone, strategy: Strategy) -> None:
        self.saved, self.backbone, self.strategy = saved, backbone, strategy
        self.members = strategy.members(Routing(torch.empty(0, len(saved.centroids)), saved.router))
        adapters = [lora_files.load(saved.folder / name) for name in self.members]
        self._lora = lora_files.load(saved.folder / BASE)[1]
        self.joint: JointModel | LayerwiseModel = (
            LayerwiseModel.of(backbone.model, adapters, strategy)
            if isinstance(strategy, Layerwise)
            else JointModel(backbone.model, adapters)
        )
        self._rows = PromptReader(saved.options)
        self.prompter = Prompter(backbone.tokenizer, saved.max_length(), saved.wording)

    def __repr__(self) -> str:
        count, what = (
            len(self.saved.centroids),
            "steered clusters" if self.saved.steered else "experts",
        )
        return f"<Ensemble of {count} {what} in {self.saved.folder}, on {self.backbone.name}>"

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        revision: str | None = None,
        backbone: str | None = None,
        top_k: int | None = None,
        base_share: bool | None = None,
        device: Device | None = None,
        trust_remote_code: bool = False,
    ) -> Ensemble:
        """Reads an ensemble's folder of JSON and safetensors files, and checks every file; no code in it is run.

        Args:
            folder: Of a run, or `ensemble/` in it; or `hub:owner/name`, a hub id of what `elrea push` made. With
                `revision`, the id alone will do.
            revision: Of the hub id: a commit, which pins what is loaded, a branch or a tag; None: main.
            backbone: Folder or hub id of the backbone. None finds it: at its commit on the hub, where the run had
                it, or at the same place relative to the ensemble or the working folder, as after moving both.
            top_k: Use the k nearest experts only, all of them if there are not more; None: as the run, else all.
            base_share: Include the base adapter with weight w_base, as in the paper; None: as the run, else true.
            device: Where to compute, and with how many threads; None: a GPU if there is one, else OMP_NUM_THREADS,
                or one thread or all cores, whichever is measured to be faster.
            trust_remote_code: Run the code that comes with the backbone, if the run did.

        Raises:
            ConfigError: top_k or base_share is given, and the ensemble is one adapter that clusters steer, or answers
                by a strategy of its own (gated, arrow); or revision is given, and it is a folder.
            NotHere: There is no such folder, and the hub has it not or cannot be reached.
            StoreError: A file is missing, damaged, or outside the folder.
            BackboneError: The backbone is missing, or is not the one that the adapters were trained on.
        """
        place = Path(folder).expanduser()
        if (repo := repo_of(str(folder), revision)) is not None:
            place = fetched(repo, revision)
        elif not place.exists():
            raise NotHere(
                f"{folder}: no such folder; give a run's, as outputs/<day>/<time>, or an ensemble on the hub as "
                f"{PREFIX}owner/name"
            )
        if (place / "ensemble" / ENSEMBLE).is_file():
            place /= "ensemble"
        saved = read_ensemble(place, backbone, trust_remote_code=trust_remote_code)
        strategy = _chosen(saved, top_k, base_share)
        device = device or Device()
        device.apply(measure=True)
        return cls(saved, saved.backbone.load(device), strategy)

    def examples(self, prompts: Sequence[Asked]) -> list[Example]:
        """Prompts as examples: a text is an instruction; a row is read as in data=jsonl, response or not.

        Raises:
            ConfigError: Not a list, or a prompt that is not UTF-8 text.
            DataError: A prompt is empty, or a row cannot be read.
        """
        made = []
        if isinstance(prompts, str | Mapping):
            raise ConfigError("prompts must be a list: give [prompt], not a single one")
        for n, prompt in enumerate(prompts, 1):
            example = prompt
            if isinstance(prompt, str):
                example = Example(f"prompt {n}", prompt, "", "")
            elif isinstance(prompt, Mapping):
                example = self._rows.read(prompt, f"prompt {n}")
            assert isinstance(example, Example)
            if not example.instruction.strip():
                raise DataError(f"{example.id} is empty")
            if not is_text("".join(_texts(example))):
                raise ConfigError(f"{example.id} is not UTF-8 text")
            made.append(example)
        return made

    def route(self, prompts: Sequence[Asked]) -> list[Route]:
        """Computes the members' weights for each prompt: from the gradient of its own tokens (5.2 to 5.9), or from the
        cosines that a learned router predicts.

        Raises:
            DataError: A prompt is empty, or too long.
        """
        if not prompts:
            return []
        examples = self.examples(prompts)
        if not self.strategy.routed:
            blank = torch.zeros(len(examples), len(self.saved.centroids))
            rows = self.strategy.weights(Routing(blank, self.saved.router)).tolist()
            return [Route(dict(zip(self.members, w, strict=True)), [], -1) for w in rows]
        routing = self._routing(examples)
        weights = self.strategy.weights(routing)
        return [
            Route(dict(zip(self.members, w, strict=True)), c, max(range(len(c)), key=c.__getitem__))
            for w, c in zip(weights.tolist(), routing.cosines.tolist(), strict=True)
        ]

    def check(self, prompts: Sequence[Asked], decoding: Decoding) -> None:
        """Rejects prompts that cannot be answered, before any is answered.

        Raises:
            DataError: A prompt is empty, or too long to leave room for an answer, or two of its choices become the same
                tokens.
        """
        examples = self.examples(prompts)
        check_choices(self.prompter, examples)
        for example in examples:
            self._encode([example], None if example.choices else decoding.max_new_tokens)

    def check_ids(self, ids: Sequence[int], name: str) -> None:
        """Rejects token ids that the backbone has no row for.

        Raises:
            DataError: The first such token, and what to do.
        """
        self.backbone.vocabulary.check(ids, name, chat=self.prompter.chat)

    def score(
        self,
        prompts: Sequence[Asked],
        choices: Sequence[Sequence[str]] | None = None,
        *,
        routes: Sequence[Route] | None = None,
    ) -> list[list[float]]:
        """log P(choice | prompt), in nats, of each prompt's choices under the mixed logits (5.10).

        Args:
            prompts: n texts, rows or examples.
            choices: For each prompt, at least one text that may follow it, without white space round it; None: the
                choices of the rows or examples.
            routes: Result of `route` for the prompts; None computes it.

        Raises:
            DataError: A prompt or choice is empty, two choices become the same tokens, or together they are too long.
        """
        examples = self.examples(prompts)
        choices = [e.choices for e in examples] if choices is None else choices
        if len(prompts) != len(choices):
            raise DataError(
                f"{len(prompts)} prompts with choices for {len(choices)}: give one list of choices per prompt"
            )
        asked = []
        examples = [_offering(e, c) for e, c in zip(examples, choices, strict=True)]
        check_choices(self.prompter, examples)
        for example, encoded in zip(examples, self._encode(examples), strict=True):
            continuations = self.prompter.choices(example)
            if not continuations or not all(continuations):
                raise DataError(f"{example.id}: it has no choices, or one of them is empty")
            self.check_ids([token for choice in continuations for token in choice], example.id)
            asked.append((encoded.prompt, continuations))
        weights = self._weights(examples, routes)
        return log_likelihoods(
            self.joint, asked, weights, batch_size=BATCH, pad_id=self.backbone.pad_id
        )

    def generate(
        self,
        prompts: Sequence[Asked],
        decoding: Decoding | None = None,
        *,
        routes: Sequence[Route] | None = None,
        tell: Callable[[int, str], object] | None = None,
    ) -> list[str]:
        """Writes an answer to each prompt, all together, with the mixed logits (5.10).

        Args:
            prompts: Instructions, of any lengths.
            decoding: How tokens are chosen; None: greedy decoding, at most 128 tokens.
            routes: Result of `route` for the prompts; None computes it.
            tell: Called with a prompt's number and its next piece of text during generation.

        Raises:
            DataError: A prompt is empty, or too long to leave room for an answer.
        """
        from elrea.method.ensemble.decoding import generate, stopped
        from elrea.method.ensemble.decoding_settings import Decoding

        settings = decoding or Decoding()
        own = self.prompter
        settings = replace(settings, stop=[*settings.stop, *own.stop], ends=own.ends)
        examples = self.examples(prompts)
        encoded = self._encode(examples, settings.max_new_tokens)
        answers = generate(
            self.joint,
            [e.prompt for e in encoded],
            self._weights(examples, routes),
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

    def _weights(self, prompts: Sequence[Asked], routes: Sequence[Route] | None) -> torch.Tensor:
        """Weights of the members for each prompt [n, members]."""
        routes = self.route(prompts) if routes is None else routes
        return torch.tensor([list(route.weights.values()) for route in routes])

    def _encode(self, examples: list[Example], room: int | None = None) -> list[Encoded]:
        encoded, too_long = self.prompter.test(examples, room)
        for prompt in encoded:
            self.check_ids(prompt.prompt, prompt.id)
        if too_long:
            raise DataError(
                f"{too_long[0]}: longer than the {self.prompter.max_length} tokens that fit, with room for the "
                "answer; shorten it, or ask for a shorter answer"
            )
        return encoded

    def _routing(self, examples: list[Example]) -> Routing:
        saved, prompts = self.saved, self.prompter.routing(examples)
        for prompt in prompts:
            self.check_ids(prompt.prompt, prompt.id)
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


def _offering(example: Example, choices: Sequence[str]) -> Example:
    """The example with other choices, worded as in training."""
    texts = tuple(choice.strip() for choice in choices)
    if texts == example.choices:
        return example
    return replace(example, response=texts[0] if texts else "", choices=texts, options=())


def _texts(example: Example) -> list[str]:
    """All texts of a prompt."""
    pairs = [text for pair in (*example.history, *example.shots) for text in pair]
    return [example.instruction, example.header, *example.choices, *pairs]


def _chosen(saved: Saved, top_k: int | None, base_share: bool | None) -> Strategy:
    """The strategy that the ensemble answers by, with what `Ensemble.load` is given.

    Raises:
        ConfigError: Something is given, and the strategy is none of ELREA's.
    """
    strategy = saved.strategy or saved.steered or Elrea()
    if top_k is None and base_share is None:
        return strategy
    if saved.steered:
        raise ConfigError(
            "this ensemble has one adapter that clusters steer: top_k and base_share choose between experts, and it "
            "has none; leave them out"
        )
    if not isinstance(strategy, Elrea):
        raise ConfigError(
            f"this ensemble answers as {type(strategy).__name__} does: top_k and base_share are ELREA's; leave them out"
        )
    return replace(
        strategy,
        top_k=strategy.top_k if top_k is None else top_k,
        base_share=strategy.base_share if base_share is None else base_share,
    )
