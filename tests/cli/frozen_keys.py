"""Lists every config key of every choice; `python -m tests.cli.frozen_keys` writes the list to frozen_keys.txt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

CONF = Path(__file__).parents[2] / "conf"
FROZEN = Path(__file__).with_name("frozen_keys.txt")
ACCEPT = "python -m tests.cli.frozen_keys"
ELSEWHERE = ("experiment", "hydra", "scale")
"""Groups without keys of their own: their files set keys of other groups, or of Hydra."""


def keys() -> set[str]:
    """`<group>=<choice>: <key>` for every key that a choice has, inherited ones included, and `config: <key>`."""
    paths = [path.relative_to(CONF).with_suffix("") for path in CONF.glob("*/**/*.yaml")]
    choices = [
        (path.parent.as_posix(), path.name) for path in paths if path.parts[0] not in ELSEWHERE
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        root = OmegaConf.to_container(compose("config"), resolve=False)
        words = [f"+{group}@c{i}={name}" for i, (group, name) in enumerate(choices)]
        nodes = OmegaConf.to_container(compose(None, words), resolve=False)
    assert isinstance(root, dict) and isinstance(nodes, dict)
    of_choices = {
        f"{group}={name}: {key}"
        for i, (group, name) in enumerate(choices)
        for key in _below(nodes[f"c{i}"])
    }
    alone = {str(key) for key, value in root.items() if not isinstance(value, dict)}
    return of_choices | {f"config: {key}" for key in alone}


def frozen() -> set[str]:
    """The keys in frozen_keys.txt, which has one line per choice."""
    lines = (line.split(": ") for line in FROZEN.read_text(encoding="utf-8").splitlines())
    return {f"{choice}: {key}" for choice, keys in lines for key in keys.split()}


def freeze() -> None:
    """Writes the keys as they are now."""
    choices: dict[str, list[str]] = {}
    for line in sorted(keys()):
        choice, key = line.split(": ")
        choices.setdefault(choice, []).append(key)
    text = "".join(f"{choice}: {' '.join(names)}\n" for choice, names in choices.items())
    FROZEN.write_text(text, encoding="utf-8")


def _below(node: object, prefix: str = "") -> Iterator[str]:
    """Keys with points. A source in data=mix or data=maths has the keys of its own choice, which are not repeated."""
    for name, child in node.items() if isinstance(node, dict) else ():
        yield f"{prefix}{name}"
        if prefix != "sources.":
            yield from _below(child, f"{prefix}{name}.")


if __name__ == "__main__":
    freeze()
