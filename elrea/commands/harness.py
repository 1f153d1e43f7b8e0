"""Evaluates a finished ensemble with EleutherAI's lm-evaluation-harness.

    elrea harness --model elrea --model_args path=outputs/<day>/<time> --tasks arc_easy

The options are those of lm-eval. Up to 0.4.13 it finds no models outside its own package, so this
command registers the model first; later releases find it by the entry point `lm_eval.models`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from elrea.commands.arguments import ensemble_folder
from elrea.commands.config_files import install
from elrea.commands.exit import announce, one_line_errors
from elrea.errors import ConfigError
from elrea.method.ensemble.folder import read_facts


def main(argv: Sequence[str] | None = None) -> None:
    """Runs lm-eval's command with these words, or with those of the process.

    Raises:
        ConfigError: lm-eval is not installed.
        StoreError: `path=` in --model_args names no ensemble.
    """
    if argv is not None:
        sys.argv = ["elrea harness", *argv]  # lm-eval reads its words there
    if find_spec("lm_eval") is None:
        if {"-h", "--help"} & set(sys.argv[1:]):
            print(__doc__)
        raise _missing("lm_eval")
    for word in sys.argv[1:]:
        for part in word.removeprefix("--model_args=").split(","):
            if part.startswith("path="):
                read_facts(ensemble_folder(Path(part.removeprefix("path="))))
    announce("importing lm-eval ...")
    try:
        from lm_eval.__main__ import cli_evaluate
        from lm_eval.api.registry import model_registry
    except ModuleNotFoundError as error:
        raise _missing(str(error.name)) from error
    if "elrea" not in model_registry:
        model_registry.register("elrea", target="elrea.commands.lm_eval_model:ElreaLM")
    cli_evaluate()


def _missing(module: str) -> ConfigError:
    return ConfigError(f"{module} is not installed: {install('harness')}")


if __name__ == "__main__":
    with one_line_errors(resumable=False):
        main()
