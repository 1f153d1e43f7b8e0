"""What Hydra is told of its version, which 1.3 asks for and 1.4 has given up."""

from __future__ import annotations


def hydra_base() -> dict[str, str]:
    """Arguments of Hydra's entry functions: 1.3's own behaviour, which is the only one from 1.4 on, with a warning to
    those who still ask for one."""
    import hydra

    major, minor, *_ = hydra.__version__.split(".")
    return {"version_base": "1.3"} if (int(major), int(minor)) < (1, 4) else {}
