"""Refuses folders and hub models that are no causal language model, as far as their files tell it.

Only names of files and `config.json` are read: no weights, and neither torch nor transformers is imported. What the
files cannot tell is checked when the model is loaded (`elrea.models.causality`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from elrea.errors import BackboneError, StoreError
from elrea.models.headers import shapes
from elrea.store.files import read_json

WRITES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ModelWithLMHead", "ModelLM")
"""Ends of the names of transformers' classes that write text."""
JUDGES = {
    "ForSequenceClassification": "a classifier or reward model",
    "ForTokenClassification": "a classifier of tokens",
    "ForMultipleChoice": "a classifier",
    "ForQuestionAnswering": "a marker of answers in a text",
    "ForMaskedLM": "an encoder",
    "ForPreTraining": "an encoder",
    "ForNextSentencePrediction": "an encoder",
    "RewardModel": "a reward model",
    "ForRewardModeling": "a reward model",
    "ForSequenceScore": "a reward model",
}
"""What the class of a model does, by the end of its name."""
ENCODERS = frozenset(
    "albert bert bert-generation big_bird camembert convbert data2vec-text deberta deberta-v2 distilbert electra "
    "ernie esm eurobert fnet funnel longformer megatron-bert mobilebert modernbert mpnet mra nomic_bert nystromformer "
    "reformer rembert roberta roberta-prelayernorm "
    "roc_bert roformer squeezebert xlm-roberta xlm-roberta-xl xmod yoso".split()
)
"""Types whose tokens see later ones unless `is_decoder` is true."""
DENOISERS = frozenset("dream llada llada_moe diffullama sdar a2d fast_dllm".split())
"""Types of diffusion language models, whose tokens see later ones."""
BOTH = frozenset(
    "bart bigbird_pegasus blenderbot blenderbot-small fsmt led longt5 m2m_100 marian mbart mt5 mvp nllb-moe pegasus "
    "pegasus_x plbart prophetnet switch_transformers t5 t5gemma t5gemma2 umt5".split()
)
"""Types of an encoder and a decoder; `config.json` says it too, the hub's summary of it does not."""
PACKAGES = {
    "bitsandbytes": ["bitsandbytes"], "bitsandbytes_4bit": ["bitsandbytes"], "bitsandbytes_8bit": ["bitsandbytes"],
    "gptq": ["optimum", "gptqmodel"], "awq": ["gptqmodel"], "auto-round": ["auto_round"],
    "compressed-tensors": ["compressed_tensors"], "torchao": ["torchao"], "hqq": ["hqq"], "aqlm": ["aqlm"],
    "vptq": ["vptq"], "quanto": ["optimum"], "spqr": ["spqr_quant"], "quark": ["quark"], "eetq": ["kernels"],
}  # fmt: skip
"""The Python packages that read weights of a quantisation."""
HEADS = ("lm_head", "embed_out", "output_layer", "cls.predictions", "lm_loss", "pred_layer")
"""Parts of the names of output heads."""
ADAPTER = "adapter_config.json"


def check_folder(folder: Path, quantise: str | None = None) -> None:
    """Refuses a folder that is no causal language model with a tokenizer.

    Args:
        folder: Any; what is missing in it altogether is left to the caller.
        quantise: How its weights are to be quantised.

    Raises:
        BackboneError: What it is instead, and what to do.
    """
    files = [path.name for path in folder.iterdir() if path.is_file()]
    config: Any = {}
    if "config.json" in files:
        try:
            config = read_json(folder / "config.json")
        except StoreError:
            return  # whoever reads it says where it is broken
    base = None
    if ADAPTER in files:
        try:
            base = dict(read_json(folder / ADAPTER)).get("base_model_name_or_path")
        except (StoreError, TypeError, ValueError):
            base = None
    check_kind(str(folder), files, config, base=base, quantise=quantise)


def check_kind(
    name: str,
    files: Collection[str],
    config: Any,
    *,
    base: str | None = None,
    quantise: str | None = None,
) -> None:
    """Refuses what is no causal language model.

    Args:
        name: The folder or hub id, for messages.
        files: Names of the files in it.
        config: Contents of `config.json`, or the hub's summary of it.
        base: The backbone that an adapter in it names.
        quantise: How its weights are to be quantised.

    Raises:
        BackboneError: What it is instead, and what to do.
    """
    if ADAPTER in files:
        _refuse_adapter(name, "config.json" in files, base)
    if not isinstance(config, Mapping):
        raise BackboneError(f"{name}: its config.json is not a JSON object")
    weights = [file for file in files if file.endswith((".safetensors", ".bin", ".pt"))]
    if not weights and any(file.endswith(".gguf") for file in files):
        raise BackboneError(
            f"{name}: has GGUF files only; give backbone.name one of them, or the folder of safetensors"
        )
    if config:
        check_config(name, config, files)
        _check_quantisation(name, config, quantise)
    if weights and "config.json" in files and not any(map(is_of_tokenizer, files)):
        raise BackboneError(
            f"{name}: has no tokenizer (tokenizer.json, tokenizer.model, vocab.json or the like); copy the files of "
            "the model's tokenizer into the folder"
        )


def _refuse_adapter(name: str, whole: bool, base: str | None) -> None:
    if whole:
        raise BackboneError(
            f"{name}: has an {ADAPTER} beside the model, so that transformers would load the adapter's own backbone; "
            "move that file away"
        )
    named = base or "its model"
    raise BackboneError(
        f"{name}: is an adapter, not a model; give backbone.name={named} and adapter.start={name}"
    )


def check_config(name: str, config: Mapping[str, Any], files: Collection[str] = ()) -> None:
    """Refuses an architecture that cannot write text from left to right.

    Args:
        name: The folder or hub id, for messages.
        config: Contents of `config.json`.
        files: Names of the files beside it.

    Raises:
        BackboneError: What it is instead.
    """
    kind = str(config.get("model_type") or "")
    named = config.get("architectures")
    classes = [str(each) for each in named] if isinstance(named, list) else []
    needed = "the backbone has to be a causal language model, which predicts each token from those before it"
    label = classes[0] if classes else kind

    def refuse(what: str) -> None:
        raise BackboneError(f"{name}: {label} is {what}; {needed}")

    two = config.get("is_encoder_decoder")
    if two is True or (kind in BOTH and two is not False):
        refuse("an encoder with a decoder")
    if not any(each.endswith(WRITES) for each in classes):
        for end, what in JUDGES.items():
            if any(each.endswith(end) for each in classes):
                refuse(what)
    if kind.lower() in DENOISERS:
        refuse("a diffusion model, whose tokens see later ones")
    if kind in ENCODERS and config.get("is_decoder") is not True:
        refuse("an encoder, whose tokens see later ones")
    text = config.get("text_config")
    for part in (config, text if isinstance(text, Mapping) else {}):
        for key, value in (("use_bidirectional_attention", True), ("use_bidirectional_attention", "all"),
                           ("is_causal", False), ("use_bidirectional", True)):  # fmt: skip
            if part.get(key) is value or (isinstance(value, str) and part.get(key) == value):
                refuse(f"an encoder ({key} is {str(value).lower()} in its config.json)")
    if "modules.json" in files and not any(each.endswith(WRITES) for each in classes):
        refuse("a model of embeddings (sentence-transformers)")


def check_head(folder: Path, config: Mapping[str, Any], tied: bool) -> None:
    """Refuses a body without an output head, such as a model of embeddings; its head would be random.

    Args:
        folder: Of the model.
        config: Contents of `config.json`.
        tied: Whether the output head is the embedding itself.

    Raises:
        BackboneError: There is no head.
    """
    named = config.get("architectures")
    classes = [str(each) for each in named] if isinstance(named, list) else []
    custom = config.get("auto_map")
    if tied or not classes or any(each.endswith(WRITES) for each in classes) or custom:
        return
    names = _tensors(folder)
    if names and not any(part in name for name in names for part in HEADS):
        raise BackboneError(
            f"{folder}: {classes[0]} has no output head (a model of embeddings?), so that it cannot predict tokens; "
            "give the causal language model that it was made from"
        )


def _tensors(folder: Path) -> set[str]:
    """Names of the tensors in a folder's safetensors; empty if a file cannot be read."""
    try:
        return {name for path in folder.glob("*.safetensors") for name in shapes(path)}
    except ValueError:
        return set()


def _check_quantisation(name: str, config: Mapping[str, Any], quantise: str | None) -> None:
    stored = config.get("quantization_config")
    if not isinstance(stored, Mapping):
        return
    method = str(stored.get("quant_method") or "")
    if quantise is not None:
        raise BackboneError(
            f"backbone.quantise={quantise}: {name} is quantised already ({method or 'by its config.json'}); say "
            "backbone.quantise=null"
        )
    missing = [each for each in PACKAGES.get(method, ()) if importlib.util.find_spec(each) is None]
    if missing:
        shown = " ".join(missing).replace("_", "-")
        raise BackboneError(
            f"{name}: its weights are quantised ({method}), and what reads them is not installed: pip install {shown}"
        )


def is_of_tokenizer(file: str) -> bool:
    """Whether a file by its name holds a tokenizer, or names one that needs no file."""
    ends = (".model", ".tiktoken", ".spm", ".vocab", ".codes")
    whole = ("vocab.json", "vocab.txt", "vocab.bpe", "merges.txt", "tekken.json")
    return file.startswith(("tokenizer", "tokenization")) or file in whole or file.endswith(ends)
