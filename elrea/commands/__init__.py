"""What a user types: the job itself, sweeps, and the commands on a finished run."""
