r"""Writes MATH-Combined (MATH, GSM8K, SVAMP, MathQA) as JSON lines with answers in \boxed{}.

    elrea combine --root data --out combined
    elrea combine --root data --out combined sources.mathqa.train_split=dev

data=jsonl reads the files. The same source files and settings write the same bytes. The command
prints which examples were dropped, and why.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from elrea.commands.exit import announce, one_line_errors
from elrea.commands.parser import Parser
from elrea.config import build
from elrea.data.sources.maths import Maths, paper_sizes
from elrea.errors import ConfigError, ElreaError
from elrea.reporting.terminal import wrapped
from elrea.store.files import write_text

if TYPE_CHECKING:
    from elrea.data.corpus import Corpus
    from elrea.data.examples import Example

SPLITS = ("train", "dev", "test")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with these words, or with those of the process."""
    given = _parser().parse_args(argv)
    for name in SPLITS:
        if (given.out / f"{name}.jsonl").exists():
            raise ConfigError(f"{given.out}: {name}.jsonl exists already; name another folder")
    if not given.root and not given.hub:
        raise ConfigError("--root: give the folder of math/, gsm8k/, svamp/ and mathqa/; or --hub")
    source = combined_source(given.root, given.hub, given.words)
    if given.root and not Path(given.root).is_dir():
        raise ConfigError(f"--root {given.root}: no such folder")
    announce("reading the data sets ...")
    with _own_settings():
        corpus = source.load()
    parts = {name: part for name in SPLITS if (part := getattr(corpus, name))}
    for name, examples in parts.items():
        write_text(given.out / f"{name}.jsonl", "".join(map(json_line, examples)))
    _print_counts(corpus, parts)
    for line in corpus.left_out or ("nothing was dropped",):
        print(wrapped(line))
    words = (shlex.quote(f"data.{name}={given.out}/{name}.jsonl") for name in parts)
    print(f"{given.out}: elrea run data=jsonl {' '.join(words)}")


@contextmanager
def _own_settings() -> Iterator[None]:
    """Errors of the data name settings as this command takes them: --root, and overlap=drop instead of data.overlap."""
    try:
        yield
    except ElreaError as error:
        text = re.sub(r"\bdata\.root=", "--root ", str(error))
        text = re.sub(r"\bdata\.hub=true", "--hub", text)
        settings = "|".join(field.name for field in fields(Maths))
        raise type(error)(re.sub(rf"\bdata\.(?=(?:{settings})\b)", "", text)) from error


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="elrea combine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--root", help="folder of math/, gsm8k/, svamp/ and mathqa/ (default: none, with --hub)"
    )
    parser.add_argument(
        "--hub", action="store_true",
        help="fetch data sets that are not below --root from the hub (default: no)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, required=True,
        help="folder to write train.jsonl and test.jsonl into, and dev.jsonl with dev_per_source=n",
    )  # fmt: skip
    parser.add_argument(
        "words", nargs="*", metavar="key=value", help="settings of data=maths (default: its own)"
    )
    return parser


def _print_counts(corpus: Corpus, parts: Mapping[str, Sequence[Example]]) -> None:
    """Prints the number of examples by source and split."""
    counts = {name: Counter(example.source for example in part) for name, part in parts.items()}
    sources = list(dict.fromkeys(example.source for example in corpus))
    width = max(map(len, ("source", *sources)))
    print(f"{'source':{width}}" + "".join(f"  {name:>6}" for name in counts))
    for source in sources:
        print(f"{source:{width}}" + "".join(f"  {n[source]:6,}" for n in counts.values()))
    print(f"{'all':{width}}" + "".join(f"  {n.total():6,}" for n in counts.values()))


def combined_source(root: str | None, on_hub: bool, words: Sequence[str]) -> Maths:
    """MATH-Combined in the paper's sizes, with these settings changed.

    Args:
        root: Folder of the data sets.
        on_hub: Whether to fetch the others from the hub.
        words: Settings of `Maths` as key=value.

    Raises:
        ConfigError: A word is not key=value, or names no setting.
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
            raise ConfigError(f"{word!r}: must be key=value, as sources.mathqa.train_split=dev")
    try:
        merged = OmegaConf.merge(node, OmegaConf.from_dotlist(list(words)))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{' '.join(words)}: {str(error).splitlines()[0]}") from error
    source: Maths = build(merged, "data")
    return source


def json_line(example: Example) -> str:
    """An example as a line of JSON."""
    prompt = f"{example.header}\n\n{example.instruction}".lstrip("\n")
    row = {"id": example.id, "instruction": prompt, "response": example.response}
    row |= {"source": example.source, "category": example.category, "judge": example.judge}
    return json.dumps({name: text for name, text in row.items() if text}, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    with one_line_errors(resumable=False):
        main()
