"""The README.md of what is exported: configuration, data, scores, and the backbone's licence where it states one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.method.ensemble.places import BUILT_IN
from elrea.models.backbone import TINY
from elrea.reporting.sweeps import SUMMARY

if TYPE_CHECKING:
    from elrea.models.adapter_shape import Lora

README = "README.md"
LICENCE = ("license", "license_name", "license_link")
"""Fields of a card's front matter that name a licence."""


@dataclass(frozen=True)
class Model:
    """The backbone, as a card names it.

    Attributes:
        name: To show; never a place on this machine.
        hub: Its hub id, if it is known.
        licence: Fields of `LICENCE` that its own card or configuration states; empty: it states none.
    """

    name: str
    hub: str | None = None
    licence: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, place: str, revision: str | None = None, name: str | None = None) -> Model:
        """The model at a place: a folder, or a hub id whose card is in the cache or can be downloaded."""
        if not place:
            return cls(name or "a backbone that is not named")
        here = Path(place).expanduser().is_dir()
        if name is None and Path(place) == TINY:
            name = BUILT_IN
        shown = name or (Path(place).name if here or place.startswith(("/", "~", ".")) else place)
        return cls(
            shown, None if here or not is_hub_id(place) else place, licence_of(place, revision)
        )


def is_hub_id(name: str) -> bool:
    """Whether a name can be a hub id with its owner, `owner/name`."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1


def licence_of(place: str, revision: str | None = None) -> dict[str, str]:
    """The licence that a model's own card or configuration states; empty if neither does.

    Args:
        place: A folder, or a hub id.
        revision: Of the hub model.
    """
    folder = Path(place).expanduser()
    if not folder.is_dir():
        if not is_hub_id(place):
            return {}
        found = _downloaded(place, revision)
        return {} if found is None else _stated(found)
    stated = _stated(folder / README)
    if stated:
        return stated
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        named = config.get("license")
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
    return {"license": named} if isinstance(named, str) and named.strip() else {}


def _downloaded(repo: str, revision: str | None) -> Path | None:
    """The card of a hub model, from the cache if it is there; None if it cannot be had."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, README, revision=revision))
    except (
        Exception
    ):  # offline, no card, a private model: the HTTP client raises classes of its own
        return None


def _stated(path: Path) -> dict[str, str]:
    from huggingface_hub import ModelCard

    try:
        data = ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True).data
    except Exception:  # no file, not UTF-8, or YAML that cannot be read: it states nothing then
        return {}
    found = {name: getattr(data, name, None) for name in LICENCE}
    return {name: value for name, value in found.items() if isinstance(value, str) and value}


def card(
    title: str,
    what: str,
    model: Model,
    *,
    library: str = "peft",
    sections: Mapping[str, str] | None = None,
) -> str:
    """The text of a README.md.

    Args:
        title: Its heading.
        what: What the folder is and how it is loaded, in Markdown.
        model: The backbone.
        library: `peft`, `transformers` or `gguf`.
        sections: More text by heading; empty ones are left out.
    """
    from huggingface_hub import ModelCardData

    stated: Any = dict(model.licence)
    data = ModelCardData(
        base_model=model.hub, library_name=library, pipeline_tag="text-generation",
        tags=["elrea", *([] if library == "transformers" else ["lora"])], **stated,
    )  # fmt: skip
    parts = [f"---\n{data.to_yaml()}\n---\n\n# {title}\n\n{what.strip()}"]
    for heading, text in {**(sections or {}), "Licence": licence_text(model)}.items():
        if text.strip():
            parts.append(f"## {heading}\n\n{text.strip()}")
    return "\n\n".join(parts) + "\n"


def licence_text(model: Model) -> str:
    """What the card says of the licence."""
    if not model.licence:
        return (
            f"The files of the backbone {model.name} state no licence. Look up its terms before you pass this on: they "
            "hold for it too."
        )
    named = ", ".join(model.licence.values())
    return f"The backbone {model.name} states: {named}. Its terms hold for this too."


def about_run(ensemble: Path) -> str:
    """What the README of an ensemble says of its data and scores: its first paragraph, the table, and their source."""
    try:
        text = (ensemble / README).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    body = text.partition("\n# ")[2].partition("\n")[2].strip()
    first = body.partition("\n\n")[0]
    table = "\n".join(line for line in body.splitlines() if line.startswith("|"))
    scores = "\n".join(line for line in body.splitlines() if line.startswith("Scores:"))
    return "\n\n".join(part for part in (first, _counts(ensemble.parent), table, scores) if part)


def _counts(run: Path) -> str:
    """Numbers of examples and sizes of clusters, where the folder of the run is there."""
    try:
        found = json.loads((run / SUMMARY).read_text(encoding="utf-8"))
        examples, sizes = found["examples"], found["clusters"]["sizes"]
        left_out = examples["train_dropped_too_long"] + examples["train_without_feature"]["count"]
        clusters = ", ".join(f"{size:,}" for size in sizes)
        return (
            f"{examples['train']:,} training examples ({left_out:,} left out: too long, or without a feature), in "
            f"clusters of {clusters}; {examples['test']:,} test questions."
        )
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""


def configuration(lora: Lora, facts: Mapping[str, Any]) -> str:
    """Settings of the adapters, and of features and router where `ensemble.json` has them, as a list."""
    targets = lora.targets if isinstance(lora.targets, str) else ", ".join(_short(lora.targets))
    scaled = "α/√r" if lora.rslora else "α/r"
    lines = [f"- LoRA: rank {lora.r}, α {lora.peft_alpha:g}, scaled by {scaled}, on {targets}"]
    for name in ("features", "router"):
        settings = facts.get(name)
        if isinstance(settings, dict) and "class" in settings:
            shown = str(settings["class"]).partition("@")[0]  # a plugin's has a checksum
            lines.append(f"- {name}: {shown}")
    return "\n".join(lines)


def _short(layers: Sequence[str]) -> list[str]:
    """The layers' own names, without the blocks that they are in."""
    return sorted({name.rpartition(".")[2] for name in layers})
