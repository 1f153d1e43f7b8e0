"""Runs one experiment: `python run.py +experiment=elrea_mmlu`; `python run.py --help` lists the choices."""

from elrea.commands.exit import one_line_errors
from elrea.commands.run import main

if __name__ == "__main__":
    with one_line_errors():
        main()
