r"""Writes MATH-Combined as JSON lines that data=jsonl reads: MATH, GSM8K, SVAMP and MathQA with answers in \boxed{}.

    python -m elrea.data.combine --root data --out combined
    python -m elrea.data.combine --root data --out combined sources.mathqa.train_split=dev sources.math.limit_train=4000

The same files and words write the same bytes. What was dropped, and why, is printed.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from elrea.commands.messages import told
from elrea.config import build
from elrea.data.examples import Example
from elrea.data.sources.maths import Maths, paper_sizes
from elrea.errors import ConfigError
from elrea.store.files import write_text

SPLITS = ("train", "dev", "test")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m elrea.data.combine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", help="folder of math/, gsm8k/, svamp/ and mathqa/")
    parser.add_argument("--hub", action="store_true", help="take what is not there from the hub")
    parser.add_argument(
        "--out", type=Path, required=True,
        help="folder to write train.jsonl and test.jsonl into, and dev.jsonl where dev_per_source asks for one",
    )  # fmt: skip
    parser.add_argument("words", nargs="*", help="settings of data=maths, as key=value")
    given = parser.parse_args()
    for name in SPLITS:
        if (given.out / f"{name}.jsonl").exists():
            raise ConfigError(f"{given.out}: {name}.jsonl is there already; name another folder")
    if not given.root and not given.hub:
        raise ConfigError(
            "--root: say which folder holds math/, gsm8k/, svamp/ and mathqa/; or --hub"
        )
    source = settings(given.root, given.hub, given.words)
    corpus = source.load()
    made = {name: part for name in SPLITS if (part := getattr(corpus, name))}
    for name, examples in made.items():
        write_text(given.out / f"{name}.jsonl", "".join(map(line_of, examples)))
    counts = {name: Counter(example.source for example in part) for name, part in made.items()}
    sources = list(dict.fromkeys(example.source for example in corpus))
    width = max(map(len, ("source", *sources)))
    print(f"{'source':{width}}" + "".join(f"  {name:>6}" for name in counts))
    for source_name in sources:
        print(f"{source_name:{width}}" + "".join(f"  {n[source_name]:6,}" for n in counts.values()))
    print(f"{'all':{width}}" + "".join(f"  {n.total():6,}" for n in counts.values()))
    for line in corpus.left_out or ("nothing was dropped",):
        print(line)
    words = " ".join(f"data.{name}={given.out}/{name}.jsonl" for name in made)
    print(f"{given.out}: python run.py data=jsonl {words}")


def settings(root: str | None, on_hub: bool, words: Sequence[str]) -> Maths:
    """MATH-Combined as it is asked for.

    Raises:
        ConfigError: a word that is no key=value, or names no setting.
    """
    node: dict[str, Any] = {
        "_target_": "elrea.data.sources.maths.Maths",
        "root": root,
        "hub": on_hub,
    }
    node["sources"] = {
        name: {
            "_target_": f"{type(source).__module__}.{type(source).__name__}",
            "limit_train": source.limit_train,
            "limit_test": source.limit_test,
            "overlap": source.overlap,
        }
        for name, source in paper_sizes().items()
    }
    for word in words:
        if "=" not in word or "_target_" in word:
            raise ConfigError(f"{word!r}: wants key=value, as sources.mathqa.train_split=dev")
    try:
        merged = OmegaConf.merge(node, OmegaConf.from_dotlist(list(words)))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{' '.join(words)}: {str(error).splitlines()[0]}") from error
    made: Maths = build(merged, "data")
    return made


def line_of(example: Example) -> str:
    """An example as a line of JSON."""
    asked = f"{example.header}\n\n{example.instruction}".lstrip("\n")
    row = {"id": example.id, "instruction": asked, "response": example.response}
    row |= {"source": example.source, "category": example.category, "judge": example.judge}
    return json.dumps({name: text for name, text in row.items() if text}, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    with told():
        main()
