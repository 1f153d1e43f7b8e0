"""Arguments of Hydra's entry functions that 1.3 wants and 1.4 has given up, or the other way round."""

from __future__ import annotations

from typing import Any

from elrea import plugins

CALLBACK = "elrea.commands.jobs.sweep.Sweep"
"""The class that conf/config.yaml has Hydra itself build."""


def hydra_base() -> dict[str, str]:
    """`version_base="1.3"` for Hydra 1.3; 1.4 warns about the argument, so it is left out."""
    return {} if _knows_whitelists() else {"version_base": "1.3"}


def trusted() -> dict[str, Any]:
    """What 1.4 may build by a config's `_target_`: our callback, and those of plugins. 1.3 takes no such list."""
    if not _knows_whitelists():
        return {}
    allowed = {*plugins.named(), *plugins.installed()}
    return {"execution_whitelist": [CALLBACK, *sorted(f"{name}.*" for name in allowed)]}


def _knows_whitelists() -> bool:
    import hydra

    major, minor, *_ = hydra.__version__.split(".")
    return (int(major), int(minor)) >= (1, 4)
