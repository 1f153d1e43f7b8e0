"""Scores strategies on test examples, by likelihood or by generated text, and computes the statistics of the scores."""
