"""An ensemble or one adapter written for other programs: PEFT folders, whole models, or LoRA files of llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from elrea.method.ensemble.folder import SERVED, STEERING
from elrea.method.ensemble.registry import make
from elrea.method.ensemble.routing_json import fixed_scales, write_routing
from elrea.method.ensemble.strategy import Strategy
from elrea.models.full_weights import write_merged
from elrea.models.gguf_lora import write_lora
from elrea.reporting.model_card import README, about_run, card, configuration
from elrea.store.files import write_json, write_text

if TYPE_CHECKING:
    from elrea.models.backbone import Pretrained
    from elrea.models.peft_folders import PeftFolder
    from elrea.reporting.model_card import Model

LIBRARY = {"peft": "peft", "merged": "transformers", "gguf": "gguf"}
"""The library that loads each form, as a card names it."""

ONE = {
    "peft": "A plain PEFT folder: `PeftModel.from_pretrained(backbone, folder)` loads it.",
    "merged": """A whole model, the adapter in its weights: `AutoModelForCausalLM.from_pretrained(folder)`. Word
prompts as in training (`prompts` in the run's ensemble.json: form, separator, and whether they begin with BOS, which
the tokenizer may not add).""",
    "gguf": """A LoRA for llama.cpp: `llama-server -m backbone.gguf --lora {first}.gguf` loads it. The backbone's own
GGUF file is made by llama.cpp's converter.""",
}
SEVERAL = {
    "peft": "A plain PEFT folder for each member: {names}. `PeftModel.from_pretrained(backbone, folder)` loads one.",
    "merged": "A whole model for each member: {names}. `AutoModelForCausalLM.from_pretrained(folder)` loads one.",
    "gguf": """A LoRA for llama.cpp for each member: {names}.

    llama-server -m backbone.gguf {flags} --lora-init-without-apply

The backbone's own GGUF file is made by llama.cpp's converter. A request's field `lora` has the scales, in the order of
these files. `scales.json` has fixed ones: all alike, and each adapter alone. With λ = w/Σw as scales, llama.cpp
computes MoE Routing (D.1) in one pass.""",
}
"""How a card says that each form is loaded."""

ROUTED = """`routing.json` numbers the adapters and names each cluster's (`nearest`), and `routing/` has the
centroids{more}. A prompt is answered by its nearest cluster's adapter alone, or by the weighted sum of all.
`routes.jsonl`, if it is there, has the routes of some prompts."""
UNSCORED = "The scores are those of the run's own strategies; what is exported here has not been scored by itself."

MIXES = """The run's own ensemble answers otherwise: it mixes the members' logits by these weights, which takes a pass
for each member, and which neither PEFT nor the engines known to us do."""

LEARNED = (
    " and the trained router, which reads the base adapter's hidden states or the prompt's words"
)
BY_FEATURES = "; prompts are routed by features that only the ensemble's own folder can compute"


@dataclass(frozen=True)
class Export:
    """What is exported, and how.

    Attributes:
        form: peft, merged or gguf.
        adapters: By name, in the order of their ids.
        model: The backbone, for the cards.
        notes: Lines about how the adapters were made.
        backbone: To merge into, for merged.
        config: Of the backbone, for gguf.
        dtype: Of merged weights.
        ensemble: Folder of the ensemble; None for an adapter from elsewhere.
        facts: Contents of its `ensemble.json`.
        single: There is one adapter, at the top of the folder, and nothing to route.
        lines: Lines of routes.jsonl; None for no such file.
    """

    form: str
    adapters: Mapping[str, PeftFolder]
    model: Model
    notes: Sequence[str] = ()
    backbone: Pretrained | None = None
    config: Any = None
    dtype: str = ""
    ensemble: Path | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    single: bool = True
    lines: Sequence[str] | None = None

    def path(self, name: str) -> str:
        """Where an adapter is in the export."""
        if self.form == "gguf":
            return f"{name}.gguf"
        return "." if self.single else name

    def write(self, place: Path) -> None:
        """Writes everything into an empty folder."""
        for name, adapter in self.adapters.items():
            self._write_one(place / self.path(name), name, adapter)
        if self.single or self.ensemble is None:
            (name,) = self.adapters
            write_text(place / README, self._card(f"`{name}`", self._one(name)))
            return
        paths = {name: self.path(name) for name in self.adapters}
        learned = write_routing(place, self.ensemble, self.facts, paths)
        if self.form == "gguf":
            write_json(place / "scales.json", fixed_scales(list(paths)), ordered=True)
        if self.lines is not None:
            write_text(place / "routes.jsonl", "".join(f"{line}\n" for line in self.lines))
        text = self._card("Adapters of an ELREA ensemble", self._several(learned=learned))
        write_text(place / README, text)
        for name in self.adapters if self.form != "gguf" else ():
            write_text(place / name / README, self._card(f"`{name}`", self._one(name)))

    def _write_one(self, path: Path, name: str, adapter: PeftFolder) -> None:
        if self.form == "peft":
            adapter.save(path)
        elif self.form == "gguf":
            write_lora(path, adapter, self.config, name)
        else:
            assert self.backbone is not None
            with TemporaryDirectory() as work:
                folder = Path(work) / name
                adapter.save(folder)
                write_merged(path, adapter, folder, self.backbone, self.dtype)

    def _one(self, name: str) -> str:
        return "\n\n".join([ONE[self.form].format(first=name), *self._noted()])

    def _several(self, *, learned: bool) -> str:
        names = ", ".join(f"`{name}`" for name in self.adapters)
        flags = " ".join(f"--lora {name}.gguf" for name in self.adapters)
        routed = ROUTED.format(more=LEARNED if learned else BY_FEATURES)
        text = SEVERAL[self.form].format(names=names, flags=flags)
        own = []
        if SERVED in self.facts:
            strategy: Strategy = make(self.facts[SERVED], Strategy, SERVED)
            own = [f"The run's own ensemble answers otherwise. {strategy.card}".strip()]
        elif STEERING not in self.facts:
            own = [MIXES]
        return "\n\n".join([text, *self._noted(), routed, *own])

    def _noted(self) -> list[str]:
        return [f"{note[0].upper()}{note[1:]}." for note in self.notes]

    def _card(self, title: str, what: str) -> str:
        first = next(iter(self.adapters.values()))
        sections = {"Configuration": configuration(first.lora, self.facts)}
        if self.ensemble is not None:
            sections["The ensemble"] = f"{about_run(self.ensemble)}\n\n{UNSCORED}".strip()
        return card(
            f"{title} on {self.model.name}", what, self.model,
            library=LIBRARY[self.form], sections=sections,
        )  # fmt: skip
