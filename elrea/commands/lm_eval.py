"""lm-eval's own command, to which `--model elrea` is known: lm-eval finds no models outside its own package.

python -m elrea.harness --model elrea --model_args path=outputs/<day>/<time> --tasks arc_easy --batch_size 16
"""

from __future__ import annotations

from elrea.commands.messages import told
from elrea.errors import ConfigError


def main() -> None:
    try:
        from lm_eval.__main__ import cli_evaluate
        from lm_eval.api.registry import model_registry
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed: .venv/bin/pip install -c constraints.txt -e '.[harness]'"
        ) from error
    if "elrea" not in model_registry:
        model_registry.register("elrea", target="elrea.commands.lm_eval_model:ElreaLM")
    cli_evaluate()


if __name__ == "__main__":
    with told():
        main()
