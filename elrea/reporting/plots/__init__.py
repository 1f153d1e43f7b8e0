"""Plots of runs and sweeps, as PNG files."""
