"""Runs one experiment or a sweep, configured by Hydra.

    elrea run +experiment=elrea_mmlu
    elrea run -m +experiment=elrea_mmlu seed=0,1,2

`elrea run --help` lists the choices. `python run.py ...` in the clone is the same command.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from textwrap import fill

from elrea.commands.config_files import config_folder
from elrea.commands.messages import one_line_errors
from elrea.models.device import busy_threads_sleep
from elrea.reporting.progress import WIDTH


def main(argv: Sequence[str] | None = None) -> None:
    """Composes the config from the words and runs the job, or with `-m` every job of a sweep.

    Args:
        argv: Hydra's options and overrides; None: those of the process.

    Raises:
        ElreaError: There is no `conf/`, or the job fails with an error that the user can fix.
    """
    if argv is not None:
        sys.argv = ["elrea run", *argv]  # Hydra reads its words there
    flags = [word for word in sys.argv[1:] if word in ("-m", "--multirun")]
    # Hydra's parser takes no option between two overrides.
    sys.argv[1:] = [*flags, *(word for word in sys.argv[1:] if word not in flags)]
    conf = config_folder()
    helps = bool({"--help", "-h"} & set(sys.argv[1:]))
    if not helps:  # it looks at the machine for 20 ms
        busy_threads_sleep()
    import hydra

    from elrea.commands.job import run  # with it comes ${sweep_folder:} of conf/config.yaml

    start = hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(run)
    if not helps:
        return start()
    text = StringIO()
    try:
        with redirect_stdout(text):
            start()  # ends the process
    finally:
        print(wrapped(text.getvalue()), end="")


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
