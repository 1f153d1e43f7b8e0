"""Data: reads examples from files and the hub, checks them, and turns them into prompts, token ids and batches.

A data source is a class with `load() -> Corpus` (`sources/`, `exam/`) and a YAML file in conf/data/. `readers/` reads
files, `overlap/` finds test questions in train, `prompts` and `templates` make token ids of examples.
"""
