"""The strategies, one file for each: the rows of the result tables."""
