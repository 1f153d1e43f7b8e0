"""Ensembles of Low-Rank Expert Adapters (Li et al., ICLR 2025, arXiv:2502.00089)."""

import sys
from typing import TYPE_CHECKING, Any

from elrea.commands.old_names import OldNames
from elrea.version import __version__

if TYPE_CHECKING:
    from elrea.method.ensemble.decoding_settings import Decoding
    from elrea.method.ensemble.ensemble import Ensemble

__all__ = ["Decoding", "Ensemble", "__version__"]

sys.meta_path.append(OldNames())


def __getattr__(name: str) -> Any:
    """`elrea.Ensemble` and `elrea.Decoding`, imported when they are asked for: torch takes a second."""
    if name == "Decoding":
        from elrea.method.ensemble import decoding_settings

        return decoding_settings.Decoding
    if name == "Ensemble":
        from elrea.method.ensemble import ensemble

        return ensemble.Ensemble
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
