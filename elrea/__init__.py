"""Ensembles of Low-Rank Expert Adapters (Li et al., ICLR 2025, arXiv:2502.00089)."""

__version__ = "0.1.0"
