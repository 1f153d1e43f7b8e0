"""A finished run shown: terminal, pictures, report.html, W&B, and comparisons between runs."""
