"""`python -m elrea <command> ...`: the same as `elrea <command> ...`."""

from elrea.commands.cli import main

if __name__ == "__main__":
    main()
