"""Logs runs to Weights & Biases: live curves, results, artifacts; and builds the dashboard."""
