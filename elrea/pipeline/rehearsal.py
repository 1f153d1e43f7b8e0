"""One step of everything on two rows, before any long stage: a backbone that cannot go through is refused in seconds.

Trains an adapter by one optimiser step, writes it and reads it back, takes a feature and the gradients of each row, and
scores two members jointly, and, where texts are written, lets them write. Gradients and scores are compared with those
of one row and one member at a time. The store remembers what has passed. No result depends on it.
"""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elrea.data.batches import pad
from elrea.errors import BackboneError, ElreaError
from elrea.method.ensemble.decoding import generate
from elrea.method.ensemble.decoding_settings import Decoding
from elrea.method.ensemble.joint import JointModel
from elrea.method.features.gradient import GradientFeatures
from elrea.method.features.verify import worst_gradient
from elrea.method.routing.distilled import Distilled
from elrea.models import lora as adapters
from elrea.models.layers import layers_of, short
from elrea.models.loss import logits_at
from elrea.models.training.settings import Recipe
from elrea.models.training.steering import Steering
from elrea.models.training.train import train_adapter
from elrea.pipeline.experiment import key_fields
from elrea.pipeline.steps.answers import writers
from elrea.store.files import read_json, write_json
from elrea.store.manifest import CHECKPOINT

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from elrea.data.prompts import Encoded
    from elrea.method.features.base import Features
    from elrea.models.backbone import Backbone
    from elrea.pipeline.context import Context
    from elrea.store.stage import Store

log = logging.getLogger(__name__)

VERSION = 1
RESULT = "rehearsal.json"
LIBRARIES = ("elrea", "torch", "transformers", "peft")
EXACT, ROUNDED = 1e-3, 0.6
"""Largest relative difference that rounding explains, in float32 and in half precision, where a token near two experts'
border may choose another one. Mixed-up rows differ by about 1 or more."""
RATE = 1e-4
"""Learning rate of the one step: a run's own may be too high for it, which is another fault."""
STEP = 0.08
"""Largest entry of (α/r)·B in the adapter by which gradients and scores are compared."""


def rehearse(contexts: Sequence[Context], store: Store) -> None:
    """Rehearses an experiment unless the store remembers it, and says in the log what is adapted and what is not.

    Args:
        contexts: Of the experiment, and of its parts.
        store: Where it is remembered.

    Raises:
        ElreaError: What does not work with this backbone, in which layer, and what to change.
    """
    context = contexts[0]
    if context.experiment.device.strategy == "sharded":
        log.info("no rehearsal: the backbone is cut up over several devices")
        return
    features = [c.experiment.features for c in contexts if c.requirements.clustered]
    if isinstance(context.learned_router, Distilled):
        features.append(context.learned_router.states)
    steers = any(_steers(each) for each in contexts)
    writes = any(writers(each) for each in contexts)
    more = {"steered": steers, "writes": writes}
    inputs = {**_inputs(context, features), **{name: True for name in more if more[name]}}
    stage = store.stage("rehearsal", VERSION, inputs)
    found = read_json(stage.run(partial(_make, context, features, steers, writes)) / RESULT)
    log.info("%s", found["adapted"])
    for note in found["left_out"]:
        log.warning("%s", note)


def _inputs(context: Context, features: Sequence[Features]) -> dict[str, Any]:
    """All that decides whether it works."""
    experiment = context.experiment
    return {
        "prompts": context.prompts,
        "lora": key_fields(experiment.lora),
        "features": [key_fields(each, *each.speed_fields) for each in features],
        "recompute": [experiment.training.recompute, *(_recompute(each) for each in features)],
        "device": [experiment.device.resolve(), experiment.device.precision],
        "versions": {name: version(name) for name in LIBRARIES},
    }


def _steers(context: Context) -> bool:
    """Whether clusters steer an adapter."""
    return any(spec.steering for spec in context.requirements.adapters(2).values())


def _recompute(features: Features) -> bool:
    return bool(getattr(features, "recompute", False))


def _make(
    context: Context, features: Sequence[Features], steers: bool, writes: bool, folder: Path
) -> None:
    """Does it, and writes what is adapted."""
    device, rows = context.experiment.device, two_rows(context.encoded_train[0])
    # Of several processes each loads its own backbone and needs the memory, so this one is not kept.
    alone = device.devices == 1
    backbone = context.backbone if alone else context.experiment.backbone.load(device)
    start = monotonic()
    with (
        context.task("rehearsal", "rehearse on two rows", len(rows)) as task,
        _random_states_kept(device.resolve()),
    ):
        rehearsal = Rehearsal(context, backbone, rows, folder / CHECKPOINT, steers, writes)
        said = rehearsal.run(features)
        task.advance(len(rows))
    if not alone and device.resolve() == "cuda":
        del backbone
        torch.cuda.empty_cache()
    write_json(folder / RESULT, {**said, "seconds": round(monotonic() - start, 3)})


@contextmanager
def _random_states_kept(device: str) -> Iterator[None]:
    """Leaves the generators of torch and of Python as they were."""
    state = random.getstate()  # Lightning draws from it
    cuda = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        yield
    random.setstate(state)


def two_rows(encoded: Sequence[Encoded]) -> list[Encoded]:
    """The shortest example and the shortest one that is longer, so that one of them is padded; else any other."""
    ordered = sorted(encoded, key=lambda example: example.length)
    longer = (e for e in ordered if e.length > ordered[0].length)
    return [*ordered[:1], *([next(longer, ordered[1])] if len(ordered) > 1 else [])]


@dataclass(frozen=True)
class Rehearsal:
    """The steps, on one backbone.

    Attributes:
        context: Of the experiment.
        backbone: Loaded; it is left as it was.
        rows: Two training examples.
        folder: To write to.
        steers: Whether clusters steer an adapter.
        writes: Whether texts are written.
    """

    context: Context
    backbone: Backbone
    rows: Sequence[Encoded]
    folder: Path
    steers: bool = False
    writes: bool = False

    def run(self, features: Sequence[Features]) -> dict[str, Any]:
        """Every step.

        Returns:
            Lines that say what is adapted and what is left out.

        Raises:
            ElreaError: The first step that fails.
        """
        shutil.rmtree(self.folder, ignore_errors=True)  # of one that was killed
        experiment, model = self.context.experiment, self.backbone.model
        with self._step("putting an adapter on it", ()):
            layers = layers_of(model, experiment.lora.targets)
            attached = adapters.attach(model, experiment.lora, experiment.seed)
        try:
            with self._step("one training step", layers.adapted):
                self._train(attached)
            with self._step("reading the adapter back", layers.adapted):
                trained, _ = adapters.load(self.folder / "epoch_1")
                if not _equal(trained, adapters.state(attached)):
                    raise _Wrong("what is read is not what was written")
            if self.steers:
                with self._step("one step of a steered adapter", layers.adapted):
                    self._steer(attached)
            for each in features:
                with self._step("a prompt's feature", layers.adapted):
                    self._feature(attached, each)
            other = _moved(trained, STEP / experiment.lora.scale)
            adapters.set_state(attached, other)
            for each in features:
                if isinstance(each, GradientFeatures):
                    with self._step("the gradients of each row", layers.adapted):
                        self._gradients(attached, each)
            with self._step("the scores of one member", layers.adapted):
                wanted = torch.stack(
                    [self._logits(attached, tensors) for tensors in (trained, other)]
                )
        finally:
            adapters.detach(attached)
        with self._step("the scores of two members in one pass", layers.adapted):
            members = [(tensors, experiment.lora) for tensors in (trained, other)]
            joint = JointModel(model, members)
            got = joint.logits(*self._padded())
            self._compare(got, wanted, "they are not those of one member at a time")
        if self.writes:
            with self._step("a text of two members", layers.adapted):
                self._write(joint)
        count = sum(tensor.numel() for tensor in trained.values())
        adapted = f"adapted: {short(layers.adapted)}; {count:,} parameters (r={experiment.lora.r})"
        return {"adapted": adapted, "left_out": [*layers.notes(), *_untouched(trained)]}

    def _recipe(self) -> Recipe:
        """One optimiser step on the rows."""
        training = self.context.experiment.training
        once = replace(
            training, batch_size=len(self.rows), accumulate=1, early_stop=None, max_steps=1
        )
        return Recipe(1, RATE, once)

    def _steer(self, model: PeftModel) -> None:
        """One optimiser step on the rows, each of a cluster of its own."""
        from elrea.models.training.steered import train_steered

        experiment, clusters = self.context.experiment, range(len(self.rows))
        steering = Steering("full", 1.0, len(clusters), "found", experiment.lora.r)
        train_steered(
            model, self.rows, clusters, self._recipe(), steering, pad_id=self.backbone.pad_id, lora=experiment.lora,
            base_name=self.backbone.name, seed=experiment.seed, stage="rehearsal", folder=self.folder / "steered",
            trainer=experiment.device.lightning(),
        )  # fmt: skip

    def _train(self, model: PeftModel) -> None:
        """One optimiser step on the rows, as the base adapter takes them."""
        experiment = self.context.experiment
        train_adapter(
            model, self.rows, self._recipe(), pad_id=self.backbone.pad_id,
            lora=experiment.lora, base_name=self.backbone.name, seed=experiment.seed, stage="rehearsal",
            folder=self.folder, keep_moments=True, trainer=experiment.device.lightning(),
        )  # fmt: skip

    def _feature(self, model: PeftModel, features: Features) -> None:
        """The features of the rows' prompts; one whose gradient is zero or not finite has none, as in a run."""
        checkpoints = [self.folder / "epoch_1"] if features.from_base else []
        once = features
        if isinstance(features, GradientFeatures):  # there is one checkpoint only
            once = replace(features, epoch_weights=None)
        reader = once.reader(model, checkpoints, self.backbone.pad_id, self.backbone.tokenizer)
        reader([self._prompts()], lambda _n: None)

    def _prompts(self) -> list[Encoded]:
        """The rows' prompts as they are routed."""
        ids = {row.id for row in self.rows}
        train = self.context.experiment.corpus.train
        return self.context.prompter.routing([e for e in train if e.id in ids])

    def _gradients(self, model: PeftModel, features: GradientFeatures) -> None:
        sequences = [(*row.prompt, *row.response) for row in self.rows]
        error, name = worst_gradient(
            model, sequences, features.selected(model), self.backbone.pad_id
        )
        if not error <= self._tolerance:
            raise _Wrong(f"those of {name} in a batch are not those of one row alone")

    def _logits(self, model: PeftModel, tensors: dict[str, Tensor]) -> Tensor:
        """Logits [rows, vocabulary] of one adapter."""
        adapters.set_state(model, tensors)
        plain: Any = model
        with torch.no_grad():
            found = logits_at(plain, *self._padded()).float()
        if not found.isfinite().all():
            raise _Wrong("they are not finite")
        return found

    def _write(self, joint: JointModel) -> None:
        """Two tokens behind a prompt, and behind one that is shorter by a token."""
        prompt = max((row.prompt for row in self.rows), key=len)
        prompts = [prompt, prompt[1:] or prompt]
        generate(
            joint, prompts, torch.ones(2, joint.count), Decoding(2), self.backbone.tokenizer,
            pad_id=self.backbone.pad_id,
        )  # fmt: skip

    def _padded(self) -> tuple[Tensor, Tensor]:
        """Token ids of the rows [b, t], and the places of their last tokens [b]."""
        ids, mask = pad([(*row.prompt, *row.response) for row in self.rows], self.backbone.pad_id)
        last = torch.arange(len(ids)) * ids.shape[1] + mask.sum(1) - 1
        device = next(self.backbone.model.parameters()).device
        return ids.to(device), last.to(device)

    def _compare(self, got: Tensor, wanted: Tensor, wrong: str) -> None:
        error = float((got - wanted).norm() / wanted.norm().clamp(min=1e-30))
        if not error <= self._tolerance:
            raise _Wrong(wrong)

    @property
    def _tolerance(self) -> float:
        kinds = {p.dtype for p in self.backbone.model.parameters()}
        exact = kinds == {torch.float32} and not self.context.experiment.backbone.quantise
        return EXACT if exact else ROUNDED

    @contextmanager
    def _step(self, what: str, adapted: Sequence[str]) -> Iterator[None]:
        """Makes one line of whatever goes wrong, except for a lack of memory or disk."""
        try:
            yield
        except (ElreaError, MemoryError, OSError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # any class, from the libraries or from the model's own code
            if "can't allocate memory" in str(error):
                raise
            lines = str(error).strip().splitlines() or [""]
            kind = "" if isinstance(error, _Wrong) else f"{type(error).__name__}: "
            raise BackboneError(
                f"{_kind(self.backbone.model)}: the rehearsal on two rows failed at {what}: {kind}{lines[0][:200]}; "
                f"{advice(adapted)}"
            ) from error


class _Wrong(Exception):
    """A step that ends with something wrong."""


def advice(adapted: Sequence[str]) -> str:
    """What to change: the adapter on the attention alone, where it is on more."""
    attention = {n.rpartition(".")[2] for n in adapted if "att" in n.rpartition(".")[0].lower()}
    others = {n.rpartition(".")[2] for n in adapted} - attention
    if attention and others:
        return f"say adapter.targets=[{','.join(sorted(attention))}]"
    return "say adapter.targets=[...] with some of these layers, or take another backbone"


def _kind(model: PreTrainedModel) -> str:
    return f"{type(model).__name__} (model_type {model.config.model_type})"


def _untouched(trained: dict[str, Tensor]) -> list[str]:
    """A line on the layers whose B is zero still: the model reads their weights without calling them."""
    still = [n for n, tensor in trained.items() if ".lora_B." in n and not tensor.any()]
    names = short(name.partition(".lora_B.")[0] for name in still)
    return [f"without effect: {names} (no gradient in the rehearsal)"] if still else []


def _moved(tensors: dict[str, Tensor], step: float) -> dict[str, Tensor]:
    """The adapter with another B, of entries up to `step`: one that changes something."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.empty_like(tensor).uniform_(-step, step, generator=generator)
        if ".lora_B." in name
        else tensor
        for name, tensor in tensors.items()
    }


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)
