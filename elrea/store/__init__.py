"""Keeps the output of every stage on disk under a key, verifies it by checksums, and shares it between processes."""
