"""Text embeddings as features instead of gradients: the paper's Instruction Embedding."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor

from elrea.data.batches import pad
from elrea.errors import BackboneError, ConfigError
from elrea.method.features.base import Advance, Batches, Features, Reader
from elrea.store.files import read_json, sha256

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from elrea.data.prompts import Encoded

WANTED = ["*.json", "*.safetensors", "*.txt", "*.model"]
"""Files that are downloaded of a hub model: none that contains code or a pickle."""

PARTS = ("Transformer", "Pooling", "Normalize", "Dense")
"""Modules that a model's folder may name. Others import classes that their own files name, or unpickle."""


@dataclass(frozen=True)
class Embedding(Features):
    """An embedding of the prompt's text, in place of its gradient."""

    model: str | None = None
    """Folder or hub id of a sentence-transformers model; null: the mean over the prompt's tokens of the backbone's last
    hidden states, without the adapter."""
    revision: str | None = None
    """A commit, branch or tag on the hub; null: the newest."""
    normalise: bool = True
    """Scale an embedding to length 1."""
    batch_size: int = 32
    """Prompts in one pass at most. Speed and memory only."""
    batch_tokens: int = 8192
    """Tokens in one pass at most, padding included. Speed and memory only."""
    from_base: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.check_sizes("batch_size", "batch_tokens")
        if self.model == "":
            raise ConfigError("features.model='': give a sentence-transformers model, or null")

    def identity(self) -> dict[str, Any]:
        """The model's contents in place of its name: the SHA-256 of a folder's files, or the commit of a hub model."""
        if self.model is None:
            return {}
        folder = Path(os.path.expanduser(self.model))
        if not folder.is_dir():
            return {"model": self._commit(), "revision": None}
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): sha256(path) for path in found}
        return {"model": files, "revision": None}

    def reader(
        self,
        model: PeftModel,
        checkpoints: Sequence[Path],
        pad_id: int,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> Reader:
        if self.model is None:
            return HiddenStates(model, pad_id)
        if tokenizer is None:
            raise ValueError(
                "a sentence-transformers model needs the tokenizer, to decode the prompts"
            )
        return Sentences(self._folder(), model.device, tokenizer)

    def _commit(self) -> str:
        from elrea.models.backbone import Pretrained

        try:
            return Pretrained(name=str(self.model), revision=self.revision).identity()
        except BackboneError as error:
            raise BackboneError(str(error).replace("backbone.name", "features.model")) from error

    def _folder(self) -> Path:
        """The model's folder; a hub model's files are downloaded to the hub's cache."""
        folder = Path(os.path.expanduser(str(self.model)))
        if not folder.is_dir():
            from huggingface_hub import snapshot_download

            name, _, commit = self._commit().rpartition("@")
            try:
                folder = Path(snapshot_download(name, revision=commit, allow_patterns=WANTED))
            except Exception as error:  # without network: one of the HTTP client's own classes
                raise BackboneError(
                    f"features.model={name}: cannot be downloaded: {error}"
                ) from error
        _refuse_foreign(folder)
        return folder


class HiddenStates:
    """Mean over a prompt's tokens of the backbone's last hidden states, without the adapter."""

    rounds = 1

    def __init__(self, model: PeftModel, pad_id: int) -> None:
        self.model, self.pad_id = model.eval(), pad_id
        backbone = cast("PreTrainedModel", model.get_base_model())
        self.body: Any = getattr(backbone, backbone.base_model_prefix)  # without the output head
        self.dimension = int(backbone.config.get_text_config().hidden_size)

    def __call__(self, batches: Batches, advance: Advance) -> tuple[Tensor, Tensor]:
        rows = [self._rows(batch, advance) for batch in batches]
        found = torch.cat(rows)
        return found, found.isfinite().all(1)

    @torch.no_grad()
    def _rows(self, batch: Sequence[Encoded], advance: Advance) -> Tensor:
        ids, mask = pad([prompt.prompt for prompt in batch], self.pad_id)
        advance(len(batch))
        if not ids.shape[1]:
            return torch.zeros(len(batch), self.dimension)
        with self.model.disable_adapter():
            # No attention mask: padding is on the right, which causal attention never reads.
            hidden = self.body(input_ids=ids.to(self.model.device), use_cache=False)
        # A GPU sends the means alone, not every token's states.
        mask = mask.to(self.model.device)
        states = hidden.last_hidden_state.float() * mask[..., None]
        return (states.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)).cpu()


class Sentences:
    """A sentence-transformers model on the prompts' text, decoded by the backbone's tokenizer."""

    rounds = 1

    def __init__(
        self, folder: Path, device: torch.device, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ConfigError(
                "features.model needs sentence-transformers: pip install 'elrea[embedding]'"
            ) from error
        try:
            self.model = SentenceTransformer(
                str(folder), device=str(device), trust_remote_code=False, local_files_only=True,
                model_kwargs={"use_safetensors": True},
            )  # fmt: skip
        except (OSError, ValueError, KeyError) as error:
            raise BackboneError(f"{folder}: {str(error).strip().splitlines()[0]}") from error
        self.tokenizer = tokenizer
        self.dimension = int(self.model.encode(["a"]).shape[1])

    def __call__(self, batches: Batches, advance: Advance) -> tuple[Tensor, Tensor]:
        rows = []
        for batch in batches:
            texts = [self.tokenizer.decode(list(p.prompt), skip_special_tokens=True) for p in batch]
            got = self.model.encode(texts, batch_size=len(texts), show_progress_bar=False)
            rows.append(torch.as_tensor(got).float())
            advance(len(batch))
        found = torch.cat(rows)
        return found, found.isfinite().all(1)


def _refuse_foreign(folder: Path) -> None:
    """Accepts only a model whose modules are sentence-transformers' own and whose weights are safetensors.

    The library would import any class that `modules.json` names, also from the folder itself, and unpickle weights.
    """
    listing = folder / "modules.json"
    if not listing.is_file():
        raise BackboneError(f"{folder}: no modules.json; is it a sentence-transformers model?")
    for part in read_json(listing):
        kind = str(part.get("type", "")) if isinstance(part, dict) else ""
        if not kind.startswith("sentence_transformers.") or kind.rpartition(".")[2] not in PARTS:
            raise BackboneError(
                f"{listing}: {kind!r} is not one of sentence-transformers' {', '.join(PARTS)}; it is not run"
            )
        config = folder / str(part.get("path", "")) / "config.json"
        if kind.endswith(".Dense") and config.is_file():
            named = str(dict(read_json(config)).get("activation_function", "torch.nn.modules."))
            if not named.startswith("torch.nn.modules."):
                raise BackboneError(f"{config}: {named!r} is no activation of torch; it is not run")
    for path in sorted(folder.rglob("pytorch_model.bin")):
        if not (path.parent / "model.safetensors").is_file():
            raise BackboneError(f"{path}: only safetensors are loaded; convert it first")
