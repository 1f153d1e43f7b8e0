"""Loads the frozen backbone M: the built-in model, a model folder, or a model from the Hugging Face hub."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.data.wording import TEMPLATE_DATE, Wording
from elrea.errors import BackboneError, NotHere
from elrea.models.gguf import converted, is_gguf
from elrea.models.model_kind import (
    check_config,
    check_folder,
    check_head,
    check_kind,
    is_of_tokenizer,
)
from elrea.models.vocabulary import Vocabulary
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
        """The token id for padding. Any id that the model has works, since padding is masked and carries no loss."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None and self.vocabulary.has(int(token)):
                return int(token)
        return 0

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The ids that the model has a row for."""
        return Vocabulary.of(self.tokenizer, _rows(self.model))


@dataclass(frozen=True)
class Pretrained:
    """Any causal language model that transformers loads, from safetensors."""

    name: str = ""
    """A folder in the Hugging Face format, a GGUF file (which is dequantised), or a hub id."""
    revision: str | None = None
    """A hub commit, branch or tag; null is the newest commit of main."""
    max_length: int = 2048
    """Maximum length of an example in tokens, at most the model's context. Longer training examples are dropped."""
    dtype: str = "auto"
    """`auto` (bfloat16 on a GPU, float32 on a CPU), `float32`, `bfloat16`, or `mixed`: float32, with the linear layers'
    weights and products in bfloat16 (see `elrea.models.mixed`)."""
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
    def location(self) -> str:
        """`name` as the libraries take it: a folder with its home folder spelled out, or a hub id. A GGUF file is
        dequantised once, to a folder."""
        if not self.here:
            return self.name.rstrip("/")
        path = Path(os.path.expanduser(self.name))
        return str(converted(path)) if path.is_file() else os.path.expanduser(self.name)

    @property
    def shown_name(self) -> str:
        """The name to show: for a folder its last part only."""
        if not self.here:
            return self.location
        path = Path(os.path.abspath(os.path.expanduser(self.name)))
        return path.stem if path.is_file() else path.name

    def identity(self) -> str:
        """Identifies weights and tokenizer: SHA-256 of a folder's files, or the commit of a hub model.

        Raises:
            BackboneError: No such folder or hub id, or a file is missing in the folder.
        """
        if not self.name:
            raise BackboneError(
                "backbone=pretrained needs backbone.name: a model folder or a hub id"
            )
        if self.here:
            return fingerprint(Path(self.location), code=self.trust_remote_code)
        self._refuse_path()
        if re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            return f"{self.location}@{self.revision}"  # a whole commit names its content
        return f"{self.location}@{hub_info(self.location, self.revision).sha}"

    @property
    def here(self) -> bool:
        """Whether `name` is an existing folder or GGUF file; otherwise it is a hub id."""
        path = Path(os.path.expanduser(self.name))
        return bool(self.name) and (path.is_dir() or (is_gguf(self.name) and path.is_file()))

    def _refuse_path(self) -> None:
        """Refuses a name that is neither a folder nor can be a hub id."""
        name = self.location
        path = Path(os.path.expanduser(name))
        if is_gguf(name):
            raise BackboneError(f"{name}: no such file; give backbone.name an existing GGUF file")
        if path.is_file():
            raise BackboneError(f"{name}: is a file; give backbone.name the model's folder")
        if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
            raise BackboneError(
                f"{name}: no such folder; give backbone.name an existing model folder"
            )

    def check(self) -> None:
        """Refuses what is no causal language model with a tokenizer, as far as names of files and config.json tell.

        Nothing is downloaded.

        Raises:
            BackboneError: What it is instead, in one line.
        """
        if self.here:
            check_folder(Path(self.location), self.quantise)
        elif self.name:
            self._refuse_path()
            info = hub_info(self.location, self.revision)
            files = [file.rfilename for file in getattr(info, "siblings", None) or ()]
            summary = getattr(info, "config", None) or {}
            check_kind(self.location, files, summary, quantise=self.quantise)

    def config(self) -> PreTrainedConfig:
        """Reads the model's configuration.

        Raises:
            BackboneError: It cannot be loaded.
        """
        from transformers import AutoConfig

        try:
            config: PreTrainedConfig = AutoConfig.from_pretrained(self.location, **self._options())
        except Exception as error:  # transformers raises any class for a broken file, Exception too
            raise BackboneError(f"{self.name}: {_first_line(error)}") from error
        facts = config.to_dict()
        check_config(self.name, facts)
        if self.here:
            tied = getattr(config.get_text_config(), "tie_word_embeddings", True)
            check_head(Path(self.location), facts, bool(tied))
        return config

    def length(self) -> int:
        """Maximum length of an example in tokens: the smaller of `max_length` and the model's context."""
        context = getattr(self.config().get_text_config(), "max_position_embeddings", None)
        if not context or context < 1:  # XLNet has -1
            return self.max_length
        return min(self.max_length, context)

    def vocabulary(self, tokenizer: PreTrainedTokenizerBase) -> Vocabulary:
        """The ids that the model will have a row for, by its configuration; the model is not loaded."""
        rows = getattr(self.config().get_text_config(), "vocab_size", None)
        return Vocabulary.of(tokenizer, rows if isinstance(rows, int) else None)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Loads the tokenizer only.

        Raises:
            BackboneError: It cannot be loaded.
        """
        from transformers import AutoTokenizer

        try:
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                self.location, **self._options()
            )
            found = tokenizer("one two", add_special_tokens=False, verbose=False)["input_ids"]
        except Exception as error:  # any class, see `config`
            raise BackboneError(f"{self.name}: {_first_line(error)}") from error
        if not found:  # transformers makes an empty one where files are missing
            raise BackboneError(
                f"{self.name}: its tokenizer makes no tokens of a text; the files of its vocabulary are missing"
            )
        return tokenizer

    def load(self, device: Device) -> Backbone:
        """Loads model and tokenizer.

        Raises:
            BackboneError: They cannot be loaded, or tensors are missing.
        """
        import torch
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        from elrea.models.causality import check_causal
        from elrea.models.mixed import to_mixed

        logging.disable_progress_bar()
        where = torch.device(device.resolve())
        wanted = {"auto": "bfloat16" if where.type == "cuda" else "float32"}.get(
            self.dtype, self.dtype
        )
        if wanted not in ("float32", "bfloat16", "mixed"):
            raise BackboneError(
                f"backbone.dtype={self.dtype} must be auto, float32, bfloat16 or mixed"
            )
        mixed, dtype = wanted == "mixed", getattr(torch, {"mixed": "float32"}.get(wanted, wanted))
        if mixed and self.quantise:
            raise BackboneError(
                f"backbone.dtype=mixed: the linear layers are quantised by backbone.quantise={self.quantise}; "
                "leave one of them out"
            )
        smaller = self._quantisation(dtype, str(where))
        self.check()
        if self.here:
            check_parts(Path(self.location))
        self.config()  # checks it, before weights are downloaded
        tokenizer = self.tokenizer()
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                self.location, dtype=dtype, use_safetensors=True,
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
        if mixed:
            to_mixed(model)
        backbone = Backbone(model, tokenizer, self.shown_name)
        check_causal(model, tokenizer, backbone.vocabulary, self.name)
        return backbone

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


def hub_info(name: str, revision: str | None) -> Any:
    """What the hub says of a model: its commit (`sha`), the names of its files, a summary of its configuration.

    Raises:
        BackboneError: There is no such model.
        NotHere: The hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return HfApi().model_info(name, revision=revision)
    except Exception as error:  # without a network the HTTP client raises its own class
        kind = BackboneError if isinstance(error, RepositoryNotFoundError) else NotHere
        raise kind(
            f"{name}: no such folder, and the hub says {_first_line(error)}; give a model folder"
        ) from error


def _rows(model: PreTrainedModel) -> int | None:
    """Rows of the model's embedding; None if it has no plain one."""
    try:
        weight = getattr(model.get_input_embeddings(), "weight", None)
    except (AttributeError, NotImplementedError):
        return None
    return None if weight is None else int(weight.shape[0])


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
    for path in sorted([*folder.iterdir(), *folder.glob("additional_chat_templates/*.jinja")]):
        suffix = path.suffix
        known = suffix in (".safetensors", ".json", ".model", ".txt", ".jinja", *[".py"] * code)
        # Its code counts where it is run, whatever its name.
        if known or (suffix != ".py" and path.is_file() and is_of_tokenizer(path.name)):
            digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256(path)}\n".encode())
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
