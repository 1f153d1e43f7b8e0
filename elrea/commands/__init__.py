"""The command line: `elrea run`, sweeps, and the commands that work on a finished run."""
