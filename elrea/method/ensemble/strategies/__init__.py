"""One file per strategy: a row of the tables."""
