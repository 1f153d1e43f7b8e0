"""The data sources, one file each. A new source is one class here and one YAML file in conf/data/.

A source is a dataclass with `load() -> Corpus`. A published data set subclasses `base.Source` and implements `read`;
a benchmark without training questions subclasses `benchmark.Benchmark` and implements `questions`.
"""
