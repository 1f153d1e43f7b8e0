"""Runs one experiment or a sweep, configured by Hydra.

    elrea run +experiment=elrea_mmlu
    elrea run -m +experiment=elrea_mmlu seed=0,1,2

`elrea run --help` lists the choices. `python run.py ...` in the clone is the same command.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from textwrap import fill

from elrea.commands.completion import OPTIONS
from elrea.commands.config_files import config_folder
from elrea.commands.exit import one_line_errors
from elrea.errors import ConfigError
from elrea.models.device import busy_threads_sleep
from elrea.pipeline.hydra_base import hydra_base, trusted
from elrea.plugins import allow
from elrea.reporting.progress import WIDTH

MODES = ("-m", "--multirun", "-r", "--run")
FLAGS = (*MODES, *"--help -h --hydra-help --version --resolve".split(), *OPTIONS)
VALUED = tuple(
    "--config-dir -cd --config-path -cp --config-name -cn --cfg -c --package -p --experimental-rerun".split()
)
"""Options of Hydra that may be typed anywhere, as `FLAGS` may; these take a value."""
INFO = ("--info", "-i")
INFOS = "all config defaults defaults-tree plugins searchpath".split()
"""What may follow `INFO`; the first one where nothing does."""


def main(argv: Sequence[str] | None = None) -> None:
    """Composes the config from the words and runs the job, or with `-m` every job of a sweep.

    Args:
        argv: Hydra's options and overrides; None: those of the process.

    Raises:
        ElreaError: There is no `conf/`, or the job fails with an error that the user can fix.
    """
    if argv is not None:
        # Hydra reads its words there; completion is the program's.
        completes = bool({*OPTIONS} & {*argv})
        sys.argv = ["elrea" if completes else "elrea run", *argv]
    sys.argv[1:] = options_first(sys.argv[1:])
    conf = config_folder()
    helps = bool({"--help", "-h"} & set(sys.argv[1:]))
    plugins = () if helps else typed_plugins(sys.argv[1:])
    allow(plugins)
    if not helps:  # it looks at the machine for 20 ms
        busy_threads_sleep()
    import hydra

    from elrea.commands.jobs.job import (
        HydraTask,  # with it comes ${sweep_folder:} of conf/config.yaml
    )

    job = HydraTask(plugins)
    told = {**hydra_base(), **trusted()}
    if trusted():
        sys.argv += mode_of_experiment(sys.argv[1:], conf)
    start = hydra.main(config_path=str(conf), config_name="config", **told)(job)
    if not helps:
        return start()
    text = StringIO()
    try:
        with redirect_stdout(text):
            start()  # ends the process
    finally:
        said = text.getvalue()
        print(wrapped(said if argv is None else said.replace("python run.py", "elrea run")), end="")


def options_first(words: Sequence[str]) -> list[str]:
    """The words with Hydra's options before the overrides: its parser takes none between two overrides."""
    options, overrides, rest = list[str](), list[str](), list(words)
    while rest:
        word = rest.pop(0)
        if word in VALUED and rest:
            options += [word, rest.pop(0)]
        elif word in INFO:
            # With its value, or it would take the override that comes to stand after it.
            options += [word, rest.pop(0) if rest and rest[0] in INFOS else INFOS[0]]
        elif word in FLAGS or word.partition("=")[0] in (*VALUED, *INFO):
            options.append(word)
        else:
            overrides.append(word)
    return [*options, *overrides]


def typed_plugins(words: Sequence[str]) -> tuple[str, ...]:
    """The names in `plugins=[mypkg]` on the command line, the last one if there are several.

    Raises:
        ConfigError: It is no list of names.
    """
    given: object = []
    for word in words:
        if re.match(r"\+{0,2}plugins=", word):
            from hydra.core.override_parser.overrides_parser import OverridesParser

            override = OverridesParser.create().parse_override(word)
            given = None if override.is_sweep_override() else override.value()
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError("plugins: wants the names of packages, as plugins=[mypkg]")
    return tuple(map(str, names))


def mode_of_experiment(words: Sequence[str], conf: Path) -> list[str]:
    """`hydra.mode=MULTIRUN` if the file of a typed experiment has the line `mode: MULTIRUN`; else nothing.

    Hydra 1.3 finds it there. 1.4 takes the mode from the primary config or from the command line alone.
    """
    if {*MODES} & {*words} or any(word.lstrip("+").startswith("hydra.mode=") for word in words):
        return []
    typed = " ".join(words)
    added = re.findall(r"(?:^| )(?:--config-dir|-cd)[ =](\S+)", typed)
    names = re.findall(r"(?:^| )\+?experiment=(\S+)", typed)
    for folder in (conf, *map(Path, added)):
        for name in ",".join(names).replace("[", "").replace("]", "").split(","):
            path = folder / "experiment" / f"{name}.yaml"
            if path.is_file() and re.search(r"^  mode: MULTIRUN$", path.read_text("utf-8"), re.M):
                return ["hydra.mode=MULTIRUN"]
    return []


def wrapped(text: str) -> str:
    """Breaks the lines that are longer than `WIDTH`, which list the choices of a group; further lines are indented."""
    return "".join(
        fill(line, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
        + "\n"
        if len(line) > WIDTH
        else line + "\n"
        for line in text.splitlines()
    )


if __name__ == "__main__":
    with one_line_errors():
        main()
