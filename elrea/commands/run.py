"""Runs one experiment or a sweep, configured by Hydra.

    elrea run +experiment=elrea_mmlu
    elrea run -m +experiment=elrea_mmlu seed=0,1,2

`elrea run --help` lists the choices. `python run.py ...` in the clone is the same command.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from elrea.commands.config_files import config_folder
from elrea.commands.messages import one_line_errors
from elrea.models.device import idle_threads_sleep


def main(argv: Sequence[str] | None = None) -> None:
    """Composes the config from the words and runs the job, or with `-m` every job of a sweep.

    Args:
        argv: Hydra's options and overrides; None: those of the process.

    Raises:
        ElreaError: There is no `conf/`, or the job fails with an error that the user can fix.
    """
    conf = config_folder()
    idle_threads_sleep()
    import hydra

    from elrea.commands.job import run  # with it comes ${sweep_folder:} of conf/config.yaml

    if argv is not None:
        sys.argv = ["elrea run", *argv]  # Hydra reads its words there
    hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(run)()


if __name__ == "__main__":
    with one_line_errors():
        main()
