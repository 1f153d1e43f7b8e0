"""The frozen model M under the adapters: the built-in one, a folder, or a name on the hub."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.errors import BackboneError, NotHere
from elrea.models.device import Device
from elrea.store.files import sha256, sha256_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

TINY = Path(__file__).parent / "tiny" / "weights"
"""The built-in model's folder."""


@dataclass
class Backbone:
    """A loaded backbone.

    Attributes:
        model: In eval mode, no parameter trainable, on its device.
        tokenizer: Its tokenizer.
        name: What PEFT folders call it.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str

    @property
    def pad_id(self) -> int:
        """The id that fills up batches; any will do, since padding is on the right and carries no loss."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0


@dataclass(frozen=True)
class Pretrained:
    """Any causal language model that transformers loads, from safetensors."""

    name: str = ""
    """A folder in the Hugging Face layout, or a hub id."""
    revision: str | None = None
    """A hub commit, branch or tag; null for the newest."""
    max_length: int = 2048
    """Longest example in tokens; cut to the model's own context. Longer training examples are dropped."""
    dtype: str = "auto"
    """`auto` (bfloat16 on a GPU, float32 on a CPU), `float32` or `bfloat16`."""
    quantise: str | None = None
    """`4bit` (NF4, double quantisation: QLoRA's) or `8bit`, by bitsandbytes; null keeps the weights. The adapters stay
    in float32."""
    use_chat_template: bool | None = None
    """Word prompts by the tokenizer's chat template; null does so if it has one."""
    trust_remote_code: bool = False
    """Run code that comes with the model. Only for authors you trust."""
    shape: dict[str, Any] = field(default_factory=dict)
    """Its architecture (`model_type` and the fields of that type's config), by which plan=true says what a model takes
    that is not here yet. Nothing else looks at it."""

    def __post_init__(self) -> None:
        """Refuse a length that nothing fits."""
        if self.max_length < 1:
            raise BackboneError(f"backbone.max_length={self.max_length}: must be at least 1")

    @property
    def shown_name(self) -> str:
        """For summaries: no path of this machine."""
        return Path(self.name).name if self.here else self.name

    def identity(self) -> str:
        """What the weights and the tokenizer are: SHA-256 of a folder's files, or a hub name's commit.

        Raises:
            BackboneError: No such folder or hub name, or a folder without what is needed.
        """
        if not self.name:
            raise BackboneError(
                "backbone=pretrained needs backbone.name: a model folder or a hub id"
            )
        folder = Path(self.name)
        if folder.is_dir():
            return fingerprint(folder, code=self.trust_remote_code)
        if folder.is_absolute() or self.name.startswith(".") or self.name.count("/") > 1:
            raise BackboneError(
                f"{self.name}: no such folder; give backbone.name an existing model folder"
            )
        return self._commit()

    @property
    def here(self) -> bool:
        """Whether it is a folder, or else a hub id."""
        return Path(self.name).is_dir()

    def config(self) -> PreTrainedConfig:
        """The architecture.

        Raises:
            BackboneError: It cannot be loaded, in one line.
        """
        from transformers import AutoConfig

        try:
            found: PreTrainedConfig = AutoConfig.from_pretrained(self.name, **self._options())
        except Exception as error:  # a broken file comes as any kind, a bare Exception among them
            raise BackboneError(f"{self.name}: {_first_line(error)}") from error
        return found

    def length(self) -> int:
        """Longest example in tokens: `max_length`, or the model's context where that is shorter."""
        context = getattr(self.config().get_text_config(), "max_position_embeddings", None)
        return min(self.max_length, context) if context else self.max_length

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer alone.

        Raises:
            BackboneError: It cannot be loaded, in one line.
        """
        from transformers import AutoTokenizer

        try:
            found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                self.name, **self._options()
            )
        except Exception as error:  # as above
            raise BackboneError(f"{self.name}: {_first_line(error)}") from error
        return found

    def load(self, device: Device) -> Backbone:
        """Loads model and tokenizer.

        Raises:
            BackboneError: They cannot be loaded, in one line.
        """
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        where = torch.device(device.resolve())
        wanted = {"auto": "bfloat16" if where.type == "cuda" else "float32"}.get(
            self.dtype, self.dtype
        )
        if wanted not in ("float32", "bfloat16"):
            raise BackboneError(f"backbone.dtype={self.dtype} must be auto, float32 or bfloat16")
        smaller = self._quantisation(getattr(torch, wanted), str(where))
        if self.here:
            check_parts(Path(self.name))
        tokenizer = self.tokenizer()
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                self.name, dtype=getattr(torch, wanted), use_safetensors=True,
                output_loading_info=True, **smaller, **self._options(),
            )  # fmt: skip
        except Exception as error:  # as above
            raise BackboneError(f"{self.name}: {_first_line(error)}") from error
        model, report = loaded
        if lacking := sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]])):
            raise BackboneError(
                f"{self.name}: its safetensors lack {lacking[0]} ({len(lacking)} tensors in all) or have it in "
                "another shape; those layers would be random"
            )
        model.requires_grad_(False)
        model = model.eval() if smaller else model.eval().to(where)
        return Backbone(model, tokenizer, self.shown_name)

    def _quantisation(self, dtype: torch.dtype, where: str) -> dict[str, Any]:
        if self.quantise is None:
            return {}
        if self.quantise not in ("4bit", "8bit"):
            raise BackboneError(f"backbone.quantise={self.quantise} must be 4bit, 8bit or null")
        if importlib.util.find_spec("bitsandbytes") is None:
            raise BackboneError(
                "backbone.quantise needs bitsandbytes: pip install 'elrea[quantised]'"
            )
        from transformers import BitsAndBytesConfig

        if self.quantise == "8bit":
            config = BitsAndBytesConfig(load_in_8bit=True)
        else:
            config = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=dtype,
            )
        return {"quantization_config": config, "device_map": {"": where}}

    def _options(self) -> dict[str, Any]:
        return {"revision": self.revision or "main", "trust_remote_code": self.trust_remote_code}

    def _commit(self) -> str:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            return f"{self.name}@{HfApi().model_info(self.name, revision=self.revision).sha}"
        except Exception as error:  # no network comes as its HTTP client's own kind
            kind = BackboneError if isinstance(error, RepositoryNotFoundError) else NotHere
            raise kind(
                f"{self.name}: no such folder, and the hub says {_first_line(error)}; give a model folder"
            ) from error


@dataclass(frozen=True)
class Tiny(Pretrained):
    """The model that comes with the project: 1.6 million parameters, trained on the exam's subjects."""

    name: str = str(TINY)
    """Its folder."""
    max_length: int = 1024
    """Longest example in tokens."""

    @property
    def shown_name(self) -> str:
        return "elrea-tiny"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def fingerprint(folder: Path, code: bool) -> str:
    """SHA-256 over the names and contents of a model folder's weights, configuration, tokenizer and, if run, code."""
    if not (folder / "config.json").is_file():
        raise BackboneError(f"{folder}: no config.json there; is it a model folder?")
    if not any(folder.glob("*.safetensors")):
        raise BackboneError(
            f"{folder}: no .safetensors file there; other weights are not loaded, convert them first"
        )
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise BackboneError(f"{folder / 'config.json'}: no valid JSON ({error})") from error
    check_parts(folder)
    digest = sha256_of()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".json", ".model", ".txt", ".jinja", *[".py"] * code):
            digest.update(f"{path.name}\0{sha256(path)}\n".encode())
    return digest.hexdigest()


def check_parts(folder: Path) -> None:
    """Refuses an index of weights that names a file elsewhere: what is not in the folder is no part of the model."""
    for path in folder.glob("*.index.json"):
        try:
            parts = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise BackboneError(f"{path}: no index of weights ({error!r})") from error
        for part in sorted(map(str, parts)):
            if part in (".", "..") or Path(part).name != part:
                raise BackboneError(f"{path} names {part!r}, which is not in that folder")
