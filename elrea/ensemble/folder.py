"""A finished ensemble as a folder that travels: plain PEFT adapters, and what routing needs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from elrea.files import sha256, walk, write_json, write_text

CARD = """---
library_name: peft
base_model: {backbone}
---
# ELREA ensemble on {backbone}

One base adapter and {clusters} experts, trained on {data} and to be mixed by routing weights.

- `base/`, `expert-0/` ... are plain PEFT folders: `PeftModel.from_pretrained(backbone, "base")` loads one alone.
- `routing/` holds what a prompt's weights come from: the clusters' centroids (`centroids.safetensors`), and the base
  adapter with Adam's moments at each epoch's end (`epoch_1/` ...), with which the prompt's gradient is taken.
- `ensemble.json` says how: the features, the router, the backbone's name and fingerprint, every file's SHA-256.

| strategy | accuracy | n |
|---|---|---|
{rows}

Scores: {note}
"""


def save_ensemble(
    folder: Path,
    adapters: Mapping[str, Path],
    epochs: list[Path],
    centroids: Tensor,
    facts: Mapping[str, Any],
    card: Mapping[str, Any],
) -> None:
    """Writes an ensemble folder; one that is there already is replaced.

    Args:
        folder: Where to.
        adapters: PEFT folder of each member by name, the base first.
        epochs: The base adapter's folders per epoch, moments included.
        centroids: [C, d].
        facts: What `ensemble.json` holds beside the list of files.
        card: Values of the README's blanks.
    """
    aside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    for name, source in adapters.items():
        shutil.copytree(source, aside / name)
    for epoch in epochs:
        shutil.copytree(epoch, aside / "routing" / epoch.name)
    save_file({"centroids": centroids}, aside / "routing" / "centroids.safetensors")
    write_text(aside / "README.md", CARD.format(**card))
    files = {path.relative_to(aside).as_posix(): sha256(path) for path in walk(aside)}
    write_json(aside / "ensemble.json", {**facts, "members": list(adapters), "files": files})
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
