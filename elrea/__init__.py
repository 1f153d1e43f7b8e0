"""Ensembles of Low-Rank Expert Adapters (Li et al., ICLR 2025, arXiv:2502.00089)."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`elrea.Ensemble`, imported when it is asked for: torch takes a second."""
    if name == "Ensemble":
        from elrea.ensemble.ensemble import Ensemble

        return Ensemble
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
