"""A finished ensemble as a model of EleutherAI's lm-evaluation-harness.

    elrea harness --model elrea --model_args path=outputs/<day>/<time> --tasks ... --batch_size 16

Importing this module registers `elrea` with lm-eval, for its `simple_evaluate(model="elrea", model_args=...)`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor
from tqdm import tqdm

from elrea.data.batches import by_length
from elrea.data.examples import Example
from elrea.data.expressible import same_tokens
from elrea.errors import ConfigError, DataError, did_you_mean
from elrea.method.ensemble.decoding import generate, stopped
from elrea.method.ensemble.decoding_settings import Decoding
from elrea.method.ensemble.ensemble import BATCH
from elrea.method.ensemble.likelihood import Asked, Likelihood, likelihoods
from elrea.method.routing.weights import Routing
from elrea.models.device import Device
from elrea.pipeline.assemble import ensemble_of
from elrea.plugins import allow

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from elrea.data.prompts import Ids

ARGUMENTS = (
    "path", "backbone", "top_k", "base_share", "device", "batch_size", "max_batch_size", "plugins",
)  # fmt: skip
"""Arguments of `ElreaLM`, which lm-eval gets as --model_args."""
DEVICES = {"cpu": "cpu", "cuda": "gpu", "gpu": "gpu", "mps": "mps", "auto": "auto"}
"""torch's name of a device -> ours."""
UNTOLD = "cuda:0"
"""The device that lm-eval's command passes without --device, whether or not there is one; its own models then take
what there is."""
USED = {"until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p"}
"""Keys of `gen_kwargs` that are used."""
ROUTED = 256
"""Contexts that are routed between two updates of the progress bar."""

log = logging.getLogger(__name__)


@register_model("elrea")
class ElreaLM(LM):
    """Scores and continues lm-eval's contexts with an ensemble; each context is routed once.

    A context is an instruction in the prompt format of training (chat template, BOS). The few-shot examples that
    lm-eval puts into it take part in routing. A context that is too long is cut at its beginning. A blank context has
    no gradient: there, and in `loglikelihood_rolling`, where there is no context, the weights are those of a feature
    of zeros.

    Args:
        path: Folder of a run, or `ensemble/` in it.
        backbone: Folder or hub id of the model; None: where the run had it.
        top_k: Use only the k nearest experts; None: as the run, else all.
        base_share: Whether the base adapter takes part, with weight w_base; None: as the run, else true.
        device: `cpu`, `cuda` or `mps`; None: a GPU if there is one.
        batch_size: Contexts in one joint pass; `auto` is 16. It changes only speed and memory.
        max_batch_size: Ignored; lm-eval passes it.
        plugins: Packages outside elrea whose parts the run has (`elrea.plugins`), with + between them.

    Raises:
        ElreaError: An argument, the folder or the backbone cannot be used.
    """

    def __init__(
        self,
        path: str | Path = "",
        backbone: str | None = None,
        top_k: int | None = None,
        base_share: bool | None = None,
        device: str | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        plugins: str = "",
        **unknown: Any,
    ) -> None:
        super().__init__()
        for name in unknown:
            raise ConfigError(f"model_args: {name}: unknown{did_you_mean(name, ARGUMENTS)}")
        if not str(path):
            raise ConfigError("model_args: path=... is missing; give a run's folder")
        if not isinstance(base_share, bool | None) or not isinstance(top_k, int | None):
            raise ConfigError(
                f"model_args: top_k={top_k!r}, base_share={base_share!r}: must be a number, and true or false"
            )
        allow(name for name in str(plugins).split("+") if name)
        self.batch_size = batch_size_of(batch_size)
        self.ensemble = ensemble_of(
            Path(str(path)), backbone, top_k=top_k, base_share=base_share, device=device_of(device)
        )
        self._device = next(self.ensemble.backbone.model.parameters()).device
        self._seed = torch.initial_seed() % 2**32  # lm-eval has just set its --seed
        self._weights: dict[str, list[float]] = {}
        tokenizer, pad = self.ensemble.backbone.tokenizer, self.ensemble.backbone.pad_id
        known = (tokenizer.bos_token_id, tokenizer.eos_token_id, pad)
        self._start = next(token for token in known if token is not None)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """log P(continuation | context) of each request, and whether greedy decoding generates it."""
        pairs = [_split(*request.args) for request in requests]
        texts: dict[str, dict[str, Ids]] = {}
        following = self.ensemble.prompter.following
        for context, text in pairs:
            texts.setdefault(context, {})[text] = following(_example(context), text)
        _say_lost(texts)
        scores: dict[tuple[str, str], tuple[float, bool]] = {}
        kept = {c: [text for text, ids in row.items() if ids] for c, row in texts.items()}
        contexts = [context for context, row in kept.items() if row]
        weights = self._weights_of(contexts, disable_tqdm)
        asked = [[texts[c][text] for text in kept[c]] for c in contexts]
        rooms = [max(map(len, row)) for row in asked]
        prompts = self._prompts(contexts, rooms)
        with _bar("scores", len(contexts), disable_tqdm) as bar:
            both = list(zip(prompts, asked, strict=True))
            rows = self._likelihoods(both, weights, self.batch_size, bar)
        for context, row in zip(contexts, rows, strict=True):
            scores |= {(context, t): (*one,) for t, one in zip(kept[context], row, strict=True)}
        return [scores.get(pair, (0.0, True)) for pair in pairs]  # P of no tokens is 1

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """log P of whole texts, in windows of the ensemble's `max_length`; all texts get the same weights."""
        asked: list[Asked] = []
        owners = []
        for number, request in enumerate(requests):
            ids = self.ensemble.backbone.tokenizer(request.args[0], add_special_tokens=False)
            windows = get_rolling_token_windows(
                ids["input_ids"], self._start, self.ensemble.prompter.max_length, 1
            )
            for context, text in map(make_disjoint_window, windows):
                asked.append((tuple(context), [tuple(text)]))
                owners.append(number)
        sums = [0.0] * len(requests)
        weights = torch.tensor([self._blank()] * len(asked))
        with _bar("windows", len(asked), disable_tqdm) as bar:
            rows = self._likelihoods(
                asked, weights, 1, bar
            )  # it keeps the logits of every position
        for owner, row in zip(owners, rows, strict=True):
            sums[owner] += row[0].log_p
        return sums

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continuations of contexts, up to a stop string, the end of the answer or `max_gen_toks` tokens."""
        contexts = [_split(request.args[0], "")[0] for request in requests]
        weights = self._weights_of(contexts, disable_tqdm)
        groups: dict[str, tuple[Decoding, list[int]]] = {}
        for number, request in enumerate(requests):
            settings = decoding_of(request.args[1])
            groups.setdefault(repr(settings), (settings, []))[1].append(number)
        answers = [""] * len(requests)
        draw = self._seed
        with _bar("answers", len(requests), disable_tqdm) as bar:
            for settings, group in groups.values():
                length = settings.max_new_tokens
                prompts = self._prompts([contexts[i] for i in group], [length] * len(group))
                for batch in by_length(list(map(len, prompts)), self.batch_size):
                    draw += 1  # otherwise repeated requests would get equal answers
                    numbers = [group[i] for i in batch]
                    texts = self._generate(
                        [prompts[i] for i in batch], weights[numbers], replace(settings, seed=draw)
                    )
                    for number, text in zip(numbers, texts, strict=True):
                        answers[number] = text
                        self.cache_hook.add_partial("generate_until", requests[number].args, text)
                    bar.update(len(batch))
        return answers

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Refused: prompts always have the format of training.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            "--apply_chat_template: an ensemble formats its prompts as in training, with the chat template if it had "
            "one; leave the option out"
        )

    @property
    def tokenizer_name(self) -> str:
        """The name in lm-eval's keys of cached requests."""
        return self.ensemble.backbone.name

    def _generate(self, prompts: list[Ids], weights: Tensor, settings: Decoding) -> list[str]:
        backbone = self.ensemble.backbone
        tokenizer = backbone.tokenizer
        own = self.ensemble.prompter
        settings = replace(settings, stop=[*settings.stop, *own.stop], ends=own.ends)
        answers = generate(
            self.ensemble.joint, prompts, weights, settings, tokenizer, pad_id=backbone.pad_id
        )
        texts = [str(tokenizer.decode(list(ids), skip_special_tokens=True)) for ids in answers]
        return [stopped(text, settings.stop)[0] for text in texts]

    def _likelihoods(
        self, asked: Sequence[Asked], weights: Tensor, batch_size: int, bar: Any
    ) -> list[list[Likelihood]]:
        for context, texts in asked:
            for text in texts:
                self.ensemble.check_ids([*context, *text], "a text of the task")
        return likelihoods(
            self.ensemble.joint, asked, weights, batch_size=batch_size, pad_id=self.ensemble.backbone.pad_id,
            advance=bar.update,
        )  # fmt: skip

    def _weights_of(self, contexts: Sequence[str], quiet: bool) -> Tensor:
        """Weights of the members for each context, [n, members]; known contexts are not routed again."""
        new = [c for c in dict.fromkeys(contexts) if c.strip() and c not in self._weights]
        with _bar("routes", len(new), quiet) as bar:
            for start in range(0, len(new), ROUTED):
                part = new[start : start + ROUTED]
                for context, route in zip(part, self.ensemble.route(part), strict=True):
                    self._weights[context] = list(route.weights.values())
                bar.update(len(part))
        return torch.tensor([self._weights.get(c) or self._blank() for c in contexts])

    def _blank(self) -> list[float]:
        """Weights of a prompt without a gradient, for requests without a context."""
        saved = self.ensemble.saved
        routing = Routing(torch.zeros(1, len(saved.centroids)), saved.router)
        weights: list[float] = self.ensemble.strategy.weights(routing)[0].tolist()
        return weights

    def _prompts(self, contexts: Sequence[str], rooms: Sequence[int]) -> list[Ids]:
        """Token ids of contexts, each cut at its beginning so that `rooms` tokens fit behind it.

        Raises:
            DataError: The tokens alone do not fit.
        """
        limit, prompts, cut = self.ensemble.prompter.max_length, [], 0
        for context, room in zip(contexts, rooms, strict=True):
            if room >= limit:
                raise DataError(
                    f"an answer of {room} tokens leaves no room for a prompt in the {limit} that fit; ask for a "
                    "shorter one (--gen_kwargs max_gen_toks=...)"
                )
            ids: Ids = (self._start,)
            if context.strip():
                ids = self.ensemble.prompter.encode(_example(context), end=False).prompt
            over = len(ids) + room - limit
            cut += over > 0
            first = ids[:1] if ids[0] == self._start and len(ids) - over > 1 else ()
            prompts.append(first + ids[over + len(first) :] if over > 0 else ids)
        if cut:
            log.warning("%d contexts are too long and are cut at their beginning", cut)
        return prompts


def _say_lost(texts: Mapping[str, Mapping[str, Ids]]) -> None:
    """Log that continuations of one context cannot be told apart: their scores are equal, or 0 for no token."""
    found = [
        problem
        for row in texts.values()
        if (problem := same_tokens("continuation", [*row], [*row.values()]))
    ]
    if found:
        log.warning(
            "%d contexts have continuations that the tokenizer cannot express apart, first: %s",
            len(found), found[0],
        )  # fmt: skip


def _split(context: str, text: str) -> tuple[str, str]:
    """Context and continuation; spaces between them go to the continuation, as in the tokens of running text."""
    bare = context.rstrip(" ")
    return bare, context[len(bare) :] + text


def _example(context: str) -> Example:
    return Example("a context", context, "", "")


@contextmanager
def _bar(description: str, total: int, quiet: bool) -> Iterator[Any]:
    with tqdm(total=total, desc=description, disable=quiet or not total) as bar:
        yield bar


def decoding_of(given: dict[str, Any]) -> Decoding:
    """Our settings of text generation from lm-eval's (`gen_kwargs`).

    `do_sample` without a temperature samples at temperature 1, as transformers does.

    Raises:
        ConfigError: A value is out of range.
    """
    settings: dict[str, Any] = dict(normalize_gen_kwargs(given))
    if unused := sorted(settings.keys() - USED):
        log.warning("ignored: gen_kwargs %s", ", ".join(unused))
    sampled = settings["do_sample"]
    top_k = settings.get("top_k") or 0
    return Decoding(
        max_new_tokens=settings["max_gen_toks"],
        temperature=float(settings.get("temperature", 1.0)) if sampled else 0.0,
        top_k=top_k if sampled and top_k > 0 else None,
        top_p=float(settings.get("top_p") or 1.0) if sampled else 1.0,
        stop=[text for text in settings["until"] if text],
    )


def device_of(name: str | None) -> Device:
    """The device of this name in torch. Without a name, or with lm-eval's own default: a GPU if there is one.

    Raises:
        ConfigError: There is no such device.
    """
    if name == UNTOLD:
        name = None
    kind, _, number = str(name or "auto").partition(":")
    if kind not in DEVICES or number not in ("", "0"):
        raise ConfigError(f"device={name}: must be cpu, cuda or mps")
    return Device(DEVICES[kind])


def batch_size_of(given: int | str | None) -> int:
    """Contexts in one joint pass; None and `auto` are the ensemble's default.

    Raises:
        ConfigError: It is no number of 1 or more.
    """
    if given is None or str(given).startswith("auto"):
        return BATCH
    if not str(given).isdecimal() or int(given) < 1:
        raise ConfigError(f"batch_size={given}: must be a number of 1 or more, or auto")
    return int(given)
