"""The stages of the method, one file for each kind; `pipeline/graph.py` has their order."""
