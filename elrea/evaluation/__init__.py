"""Scoring test items by likelihood or by generated text, and the statistics on that."""
