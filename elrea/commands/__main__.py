"""`python -m elrea.commands <command> ...`: the same as `elrea <command> ...`."""

from elrea.commands.cli import main

if __name__ == "__main__":
    main()
