"""Reports of finished runs: terminal tables, plots, report.html, W&B, and comparisons between runs and sweeps."""
