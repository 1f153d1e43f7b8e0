"""Runs `run.py` on the pretended GPU: `python -m tests.gpu.whole_run WORDS`; says at the end what it computed on."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

from tests.gpu.pretend import pretended

ROOT = Path(__file__).parents[2]


def main() -> None:
    from elrea.models.backbone import Pretrained

    load = Pretrained.load
    seen: set[str] = set()

    def loaded(self: Pretrained, device: Any) -> Any:
        backbone = load(self, device)
        weight = next(backbone.model.parameters())
        seen.add(f"{weight.device.type} {weight.dtype}")
        return backbone

    Pretrained.load = loaded  # type: ignore[method-assign]
    sys.argv[0] = "run.py"
    with pretended():
        runpy.run_path(str(ROOT / "run.py"), run_name="__main__")
    print(*sorted(seen))


if __name__ == "__main__":
    main()
