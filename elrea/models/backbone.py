"""Loads the frozen backbone M: the built-in model, a model folder, or a model from the Hugging Face hub."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.data.wording import TEMPLATE_DATE, Wording
from elrea.errors import BackboneError, NotHere
from elrea.store.files import sha256, sha256_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from elrea.models.device import Device

TINY = Path(__file__).parent / "tiny" / "weights"
"""The built-in model's folder."""


@dataclass
class Backbone:
    """A loaded backbone.

    Attributes:
        model: In eval mode, no parameter trainable, on its device.
        tokenizer: Its tokenizer.
        name: Its name in PEFT folders.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str

    @property
    def pad_id(self) -> int:
        """The token id for padding. Any id works, since padding is on the right and carries no loss."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return int(token)
        return 0


@dataclass(frozen=True)
class Pretrained:
    """Any causal language model that transformers loads, from safetensors."""

    name: str = ""
    """A folder in the Hugging Face format, or a hub id."""
    revision: str | None = None
    """A hub commit, branch or tag; null is the newest commit of main."""
    max_length: int = 2048
    """Maximum length of an example in tokens, at most the model's context. Longer training examples are dropped."""
    dtype: str = "auto"
    """`auto` (bfloat16 on a GPU, float32 on a CPU), `float32` or `bfloat16`."""
    quantise: str | None = None
    """`4bit` (NF4 with double quantisation, as in QLoRA) or `8bit`, by bitsandbytes; null does not quantise. Adapters
    are float32 in any case."""
    use_chat_template: bool | None = None
    """Format prompts by the tokenizer's chat template; null does so if there is one."""
    add_bos: bool | None = None
    """Begin plain prompts with BOS; null begins them as the tokenizer's own encoding does, which lm-eval uses too. In a
    chat, the template decides."""
    template_date: str = TEMPLATE_DATE
    """The day that a chat template takes for today, so that its prompts do not change from day to day."""
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    """Variables of the chat template, such as enable_thinking."""
    trust_remote_code: bool = False
    """Run code that comes with the model. Only for models whose authors you trust."""
    shape: dict[str, Any] = field(default_factory=dict)
    """Its architecture (`model_type` and the fields of that type's config), from which plan=true computes memory and
    parameters before the model is downloaded. Nothing else uses it."""

    def __post_init__(self) -> None:
        """Raises BackboneError for a length below 1, and ConfigError for a date that is none."""
        if self.max_length < 1:
            raise BackboneError(f"backbone.max_length={self.max_length}: must be at least 1")
        self.wording()

    def wording(self) -> Wording:
        """How prompts are worded, for responses without thoughts."""
        return Wording(
            self.use_chat_template, self.add_bos, self.template_date, self.chat_template_kwargs
        )

    @property
    def shown_name(self) -> str:
        """The name to show: for a folder its last part only."""
        return Path(self.name).name if self.here else self.name

    def identity(self) -> str:
        """Identifies weights and tokenizer: SHA-256 of a folder's files, or the commit of a hub model.

        Raises:
            BackboneError: No such folder or hub id, or a file is missing in the folder.
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
        """Whether `name` is an existing folder; otherwise it is a hub id."""
        return Path(self.name).is_dir()

    def config(self) -> PreTrainedConfig:
        """Reads the model's configuration.

        Raises:
            BackboneError: It cannot be loaded.
        """
        from transformers import AutoConfig

        try:
            config: PreTrainedConfig = AutoConfig.from_pretrained(self.name, **self._options())
        except Exception as error:  # transformers raises any class for a broken file, Exception too
            raise BackboneError(f"{self.name}: {_first_line(error)}") from error
        return config

    def length(self) -> int:
        """Maximum length of an example in tokens: the smaller of `max_length` and the model's context."""
        context = getattr(self.config().get_text_config(), "max_position_embeddings", None)
        return min(self.max_length, context) if context else self.max_length

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Loads the tokenizer only.

        Raises:
            BackboneError: It cannot be loaded.
        """
        from transformers import AutoTokenizer

        try:
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                self.name, **self._options()
            )
        except Exception as error:  # any class, see `config`
            raise BackboneError(f"{self.name}: {_first_line(error)}") from error
        return tokenizer

    def load(self, device: Device) -> Backbone:
        """Loads model and tokenizer.

        Raises:
            BackboneError: They cannot be loaded, or tensors are missing.
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
        except Exception as error:  # any class, see `config`
            raise BackboneError(f"{self.name}: {_first_line(error)}") from error
        model, report = loaded
        if missing := sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]])):
            raise BackboneError(
                f"{self.name}: {len(missing)} tensors are missing in its safetensors or have another shape, the first "
                f"is {missing[0]}; those layers would be random"
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
        except Exception as error:  # without a network the HTTP client raises its own class
            kind = BackboneError if isinstance(error, RepositoryNotFoundError) else NotHere
            raise kind(
                f"{self.name}: no such folder, and the hub says {_first_line(error)}; give a model folder"
            ) from error


@dataclass(frozen=True)
class Tiny(Pretrained):
    """The built-in model: 1.6 million parameters, trained on the subjects of the built-in exam."""

    name: str = str(TINY)
    """Its folder."""
    max_length: int = 1024
    """Maximum length of an example in tokens."""
    add_bos: bool | None = True
    """Its prompts begin with BOS, which its tokenizer's own encoding does not write."""

    @property
    def shown_name(self) -> str:
        return "elrea-tiny"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def fingerprint(folder: Path, code: bool) -> str:
    """SHA-256 over the names and contents of a model folder's weights, configuration and tokenizer.

    Args:
        folder: The model folder.
        code: Include its Python files, which are run with `trust_remote_code`.

    Raises:
        BackboneError: A file is missing or invalid.
    """
    if not (folder / "config.json").is_file():
        raise BackboneError(f"{folder}: no config.json there; is it a model folder?")
    if not any(folder.glob("*.safetensors")):
        raise BackboneError(
            f"{folder}: no .safetensors file there; convert the weights first, other formats are not loaded"
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
    """Raises BackboneError if an index of weights names a file outside the folder."""
    for path in folder.glob("*.index.json"):
        try:
            parts = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise BackboneError(f"{path}: not an index of weights ({error!r})") from error
        for part in sorted(map(str, parts)):
            if part in (".", "..") or Path(part).name != part:
                raise BackboneError(f"{path} names {part!r}, which is not in that folder")
