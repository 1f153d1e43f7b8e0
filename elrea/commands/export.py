"""Writes a finished ensemble, or any PEFT folder, in a form that other programs load.

    elrea export outputs/<day>/<time> --to served --as peft
    elrea export outputs/<day>/<time> --to one --as merged --weights uniform
    elrea export outputs/<day>/<time> --to llama --as gguf --prompts prompts.jsonl
    elrea export merged --to llama --as gguf

peft: a plain PEFT folder for each member, base adapter and experts. A prompt's nearest expert
alone answers it; routing.json says which expert is which cluster's. merged: whole models, for
transformers; name members with --only, or merge them with --weights. gguf: LoRA files for
llama.cpp, and scales.json with the list of scales that it takes. With --weights, the members'
weighted sum is the one adapter (`elrea merge` has more ways). With --prompts, routes.jsonl has
each prompt's nearest expert and its scales by MoE Routing, which llama.cpp computes in one
pass.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.commands.arguments import (
    check_arguments,
    device_of,
    ensemble_folder,
    ensemble_parser,
    load_ensemble,
)
from elrea.commands.exit import announce, one_line_errors
from elrea.commands.merge import (
    check_rank,
    members_of,
    normalised,
    parse_weights,
)
from elrea.commands.output_folder import check_out, publish_new
from elrea.commands.predict import add_fields, check_fields, prompts_of_file
from elrea.errors import ConfigError, did_you_mean
from elrea.method.ensemble.folder import read_facts
from elrea.models.peft_folders import config_of, is_peft

if TYPE_CHECKING:
    from elrea.models.backbone import Pretrained
    from elrea.models.peft_folders import PeftFolder
    from elrea.reporting.model_card import Model

FORMS = ("peft", "merged", "gguf")


@dataclass(frozen=True)
class Plan:
    """What is to be exported.

    Attributes:
        folders: The members' PEFT folders by name.
        weights: Weights of the members in the one adapter to write; None: one for each.
        ensemble: Folder of the ensemble; None for a PEFT folder from elsewhere.
        facts: Contents of `ensemble.json`.
    """

    folders: Mapping[str, Path]
    weights: Mapping[str, float] | None = None
    ensemble: Path | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def single(self) -> bool:
        """Whether one adapter is written, at the top of the folder."""
        return self.ensemble is None or self.weights is not None


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with these words, or with those of the process.

    Raises:
        ElreaError: An argument, the ensemble, its backbone or a prompt cannot be used.
    """
    given = _parser().parse_args(argv)
    check_fields(given)
    check_out(given.to, [given.run] if is_peft(given.run) else [])
    plan = _plan(given)
    device = device_of(given)
    backbone, config, dtype = _backbone(given, plan)
    lines = _routes(given, plan)
    announce("reading the adapters ...")
    if not given.prompts:
        device.apply()
    adapters, notes = _adapters(given, plan)

    from elrea.reporting.external_formats import Export

    export = Export(
        given.form, adapters, _model(plan, adapters, backbone), notes, backbone, config, dtype,
        plan.ensemble, plan.facts, plan.single, lines,
    )  # fmt: skip
    announce("writing ...")
    publish_new(given.to, export.write)
    width = max(map(len, adapters))
    for name in adapters:
        print(f"{name:{width}}  {given.to / export.path(name)}")
    for note in notes:
        print(note)


def _parser() -> argparse.ArgumentParser:
    parser = ensemble_parser("export", __doc__, generates=False)
    parser.add_argument("--to", type=Path, required=True, help="folder to write")
    parser.add_argument("--as", dest="form", required=True, choices=FORMS, help="what to write")
    parser.add_argument(
        "--only", help="members to write, as expert-0,expert-2; all for all (default: all, but for merged)"
    )  # fmt: skip
    parser.add_argument(
        "--weights", help="write one adapter, the members' sum: uniform, or base=0.2,expert-0=0.8"
    )
    parser.add_argument("--rank", type=int, help="with --weights: reduce the sum to this rank")
    parser.add_argument(
        "--dtype", help="of merged weights: float32, bfloat16 or float16 (default: the backbone's)"
    )
    parser.add_argument(
        "--prompts", type=Path,
        help="file of prompts, in any format of data=jsonl, whose routes to write",
    )  # fmt: skip
    add_fields(parser)
    return parser


def _plan(given: argparse.Namespace) -> Plan:
    """What to write, checked as far as no tensors are needed."""
    for option, needs, there in (
        ("rank", "--weights", given.weights), ("top_k", "--prompts", given.prompts),
        ("dtype", "--as merged", given.form == "merged"),
    ):  # fmt: skip
        if getattr(given, option) is not None and not there:
            raise ConfigError(f"--{option.replace('_', '-')}: needs {needs}")
    if is_peft(given.run):
        for option in ("only", "weights", "prompts"):
            if getattr(given, option) is not None:
                raise ConfigError(
                    f"--{option}: {given.run} is one adapter; give the folder of a run"
                )
        config_of(given.run)
        return Plan({given.run.resolve().name: given.run})
    folder = ensemble_folder(given.run)
    members = members_of(folder)
    facts = read_facts(folder)
    if given.weights is not None:
        if given.only or given.prompts:
            raise ConfigError("--weights: writes one adapter; leave out --only and --prompts")
        weights = normalised(parse_weights(given.weights, members, facts))
        used = [name for name, weight in weights.items() if weight]
        check_rank(given.rank, [folder / name for name in used])
        return Plan({name: folder / name for name in used}, weights, folder, facts)
    if given.only is None and given.form == "merged":
        raise ConfigError(
            "--as merged: writes a whole model per member; name members with --only (all for all), or merge them with "
            "--weights"
        )
    only = [name.strip() for name in (given.only or "all").split(",")]
    names = members if only == ["all"] else list(dict.fromkeys(only))
    for name in names:
        if name not in members:
            near = did_you_mean(name, members) or f" (there is: {', '.join(members)})"
            raise ConfigError(f"--only: no member {name!r}{near}")
    return Plan({name: folder / name for name in names}, None, folder, facts)


def _backbone(given: argparse.Namespace, plan: Plan) -> tuple[Pretrained | None, Any, str]:
    """The backbone, its configuration, and the type of merged weights, where the form needs them."""
    if given.form == "peft":
        return None, None, ""
    from elrea.models.backbone import Pretrained

    whole = given.form == "merged"
    if plan.ensemble is not None:
        from elrea.method.ensemble.places import find_backbone

        backbone = find_backbone(
            plan.facts, plan.ensemble, given.backbone, trust_remote_code=given.trust_remote_code, verify=whole
        )  # fmt: skip
    else:
        named = config_of(next(iter(plan.folders.values())))
        place = given.backbone or named.get("base_model_name_or_path")
        if not place:
            raise ConfigError(f"{given.run}: names no backbone; give its folder as --backbone")
        revision = None if given.backbone else named.get("revision")
        backbone = Pretrained(str(place), revision, trust_remote_code=given.trust_remote_code)
    if whole:
        from elrea.models.full_weights import check_dtype

        return backbone, None, check_dtype(backbone, given.dtype)
    from elrea.models.gguf_lora import architecture_of

    config = backbone.config()
    architecture_of(config, backbone.shown_name)
    return backbone, config, ""


def _routes(given: argparse.Namespace, plan: Plan) -> list[str] | None:
    """Lines of routes.jsonl; None without --prompts."""
    if given.prompts is None:
        return None
    facts = check_arguments(given)
    prompts = prompts_of_file(given, facts)
    from elrea.method.ensemble.routing_json import answering, route_line

    if not answering(facts):
        raise ConfigError("--prompts: this ensemble routes no prompts; leave it out")
    ensemble = load_ensemble(given)
    routes = ensemble.route([prompt for _, prompt in prompts])
    names = list(plan.folders)
    return [
        json.dumps(route_line(name, route, names))
        for (name, _), route in zip(prompts, routes, strict=True)
    ]


def _adapters(given: argparse.Namespace, plan: Plan) -> tuple[dict[str, PeftFolder], list[str]]:
    """The adapters to write by name, and lines to print about them."""
    from elrea.models.peft_folders import read_folder

    found = {name: read_folder(path) for name, path in plan.folders.items()}
    notes = []
    if plan.weights is not None:
        from elrea.method.ensemble.merging import merged

        sum_ = merged(found, plan.weights, given.rank)
        shares = ", ".join(f"{name} {weight:.4f}" for name, weight in plan.weights.items())
        found = {"adapter": sum_.adapter}
        notes = [f"the sum of {shares}: rank {sum_.adapter.lora.r}, {sum_.how}", sum_.warning]
    quantised = dict(plan.facts.get("backbone") or {}).get("quantise")
    if quantised and given.form == "merged":
        notes.append(
            f"trained on the backbone in {quantised}, and merged into its full weights: answers differ a little"
        )
    return found, notes


def _model(plan: Plan, adapters: Mapping[str, PeftFolder], backbone: Pretrained | None) -> Model:
    """The backbone, for the cards."""
    from elrea.reporting.model_card import Model

    first = next(iter(adapters.values()))
    place = backbone.location if backbone is not None else first.backbone
    revision = backbone.revision if backbone is not None else first.revision
    shown = dict(plan.facts.get("backbone") or {}).get("name")
    return Model.of(place, revision, shown and str(shown))


if __name__ == "__main__":
    with one_line_errors(resumable=False):
        main()
