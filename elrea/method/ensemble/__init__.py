"""Strategies, and how their members run together: mixing, joint forward, decoding."""
