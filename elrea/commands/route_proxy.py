"""Routes requests to an engine that serves the experts: vLLM, or llama.cpp's llama-server.

elrea route-proxy outputs/<day>/<time> --engine http://127.0.0.1:8000
elrea route-proxy outputs/<day>/<time> --engine http://127.0.0.1:8080 --form scales --lora experts

The proxy speaks OpenAI's API (/v1/chat/completions and /v1/completions). It computes a request's
weights with the run's router, words its prompt as in training, names the adapter in the request,
and passes it on; the engine answers, streamed or not. It prints one JSON line for each, without
prompts and keys.
docs/serving.md says how to load the experts in both engines.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from elrea.commands.arguments import (
    check_arguments,
    ensemble_folder,
    ensemble_parser,
    load_ensemble,
)
from elrea.errors import ConfigError

if TYPE_CHECKING:
    from elrea.commands.proxy.addressing import Form

FORMS = ("name", "scales")
LORAS = ("experts", "members")


def main(argv: Sequence[str] | None = None) -> None:
    """Serves until it is stopped.

    Raises:
        ElreaError: An argument or the ensemble cannot be used, or the extra `serve` is not installed.
    """
    given = _parser().parse_args(argv)
    _check(given)
    facts = check_arguments(given)
    try:
        import uvicorn

        from elrea.commands.proxy.app import Proxy, app
    except ImportError as error:
        raise ConfigError(
            f"route-proxy needs the extra `serve` ({error}): pip install 'elrea[serve]'"
        ) from error
    from elrea.commands.merge import members_of
    from elrea.commands.proxy.addressing import SERVES, Adapters, same_as
    from elrea.method.ensemble.routing_json import answering

    answers = answering(facts)
    if not answers:
        raise ConfigError("this ensemble routes no prompts: serve it without the proxy")
    form: Form = "name" if given.form == "name" else given.lora
    loaded = members_of(ensemble_folder(given.run))
    if form == "experts":
        loaded = experts_of(loaded, answers)
    ensemble = load_ensemble(given)
    adapters = Adapters(form, loaded, given.name)
    lines = [
        SERVES[form]
        + ("" if form in same_as(ensemble.strategy) else "; the run's own answers differ"),
        f"listening on http://{given.host}:{given.port}/v1; Ctrl-C ends",
    ]
    if not ensemble.prompter.chat:
        lines[:0] = [
            "no chat template in training: ask /v1/completions, or give the engine the template of docs/serving.md"
        ]
    for line in lines:  # into a file too: a service has to see that it is ready
        print(line, file=sys.stderr, flush=True)
    uvicorn.run(
        app(Proxy(ensemble, given.engine.rstrip("/"), adapters, given.timeout)),
        host=given.host, port=given.port, log_level="warning", access_log=False,
    )  # fmt: skip


def experts_of(members: Sequence[str], answers: Sequence[str]) -> list[str]:
    """The members that `--lora experts` asks for: one for each cluster, without the base adapter and a trunk.

    Args:
        members: All that the ensemble mixes; a trunk is the last.
        answers: Of each cluster, the member that answers.

    Raises:
        ConfigError: Another one answers.
    """
    from elrea.method.ensemble.strategy import BASE

    found = [name for name in members if name != BASE][: len(answers)]
    if others := sorted({*answers} - {*found}):
        raise ConfigError(
            f"--lora experts: {others[0]} answers where dev keeps an expert out: load all members, and say "
            "--lora members"
        )
    return found


def _parser() -> argparse.ArgumentParser:
    parser = ensemble_parser("route-proxy", __doc__, generates=False)
    parser.add_argument(
        "--engine", required=True, help="address of the engine, as http://127.0.0.1:8000"
    )
    parser.add_argument(
        "--form", choices=FORMS, default="name",
        help="what the engine takes: the adapter's name as the model (vLLM), or a scale for each adapter "
        "(llama-server) (default: name)",
    )  # fmt: skip
    parser.add_argument(
        "--name", default="{}",
        help="with --form name: the adapters' names, {} for a member's, as expert-0 (default: {})",
    )  # fmt: skip
    parser.add_argument(
        "--lora", choices=LORAS, default="experts",
        help="with --form scales: the files that the engine has loaded: the experts 0, 1, ..., of which the nearest "
        "serves, or the base adapter before them, and all are mixed as in MoE Routing (default: experts)",
    )  # fmt: skip
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)"
    )
    parser.add_argument("--port", type=int, default=8100, help="port to listen on (default: 8100)")
    parser.add_argument(
        "--timeout", type=float, default=600.0, help="longest silence of the engine, in seconds (default: 600)"
    )  # fmt: skip
    return parser


def _check(given: argparse.Namespace) -> None:
    """Refuses arguments that need no run to be refused."""
    if not re.match(r"https?://[^/\s]", given.engine):
        raise ConfigError(f"--engine {given.engine}: must begin with http:// or https://")
    if given.name.count("{}") != 1 or "{" in given.name.replace("{}", ""):
        raise ConfigError(f"--name {given.name}: needs {{}} once, for the member's name")
    if not 1 <= given.port <= 65535:
        raise ConfigError(f"--port {given.port}: must be 1 to 65535")
    if not 0 < given.timeout < float("inf"):
        raise ConfigError(f"--timeout {given.timeout}: must be above 0 and finite")
