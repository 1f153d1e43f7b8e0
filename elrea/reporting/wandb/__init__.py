"""Weights & Biases: runs, artifacts, dashboard."""
