"""Reads rows from files and from the hub (`tables`, `hub`, `dataset`), and instruction files (`jsonl`, `rows`)."""
