"""README and docs: links resolve, and every path, command, option, group and key that they name exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from omegaconf import OmegaConf

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("elrea/", "tests/", "conf/", "docs/", "experiments/")
WORDS = 900
"""Most words of the README, code blocks not counted."""

FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
OVERRIDE = re.compile(r"(?<![\w./@-])([a-z_]+(?:[./][a-z_0-9]+)*)=(\S*)")
"""`key=value` or `group=choice` as typed after `python run.py`."""


@pytest.fixture(params=DOCS, ids=lambda path: path.name)
def page(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_links_resolve(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in headings(path), f"{page.name}: {target}"


def test_paths_exist(page: Path) -> None:
    for code in CODE.findall(page.read_text()):
        if code.startswith(FOLDERS) and not set(code) & set("<>* "):
            assert (ROOT / code).exists(), f"{page.name}: {code}"


def test_readme_is_short() -> None:
    assert len(FENCE.sub("", DOCS[0].read_text()).split()) <= WORDS


def test_the_picture_is_small() -> None:
    assert (ROOT / "docs" / "method.svg").stat().st_size < 20_000


def test_commands_and_options_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = import_module("elrea.commands.cli").COMMANDS
    for line in command_lines(page):
        found = re.search(r"(?:^|[|$] )elrea ([a-z-]+)(.*)", line)
        if not found:
            continue
        command, rest = found.groups()
        assert command in commands, f"{page.name}: {line}"
        options = re.findall(r"(?<!\S)--?[a-z][a-z_-]*", rest)
        if command in ("run", "harness") or not options:
            continue  # Hydra's and lm-eval's own
        with pytest.raises(SystemExit):
            import_module(f"elrea.commands.{commands[command][0]}").main(["--help"])
        listed = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", capsys.readouterr().out))
        assert set(options) <= listed, f"{page.name}: {line}"


def test_overrides_exist(page: Path) -> None:
    keys = config_keys()
    for code in (*CODE.findall(page.read_text()), *command_lines(page)):
        for key, value in OVERRIDE.findall(code):
            group = ROOT / "conf" / key
            if key == "experiment" or group.is_dir():
                for choice in re.findall(r"[a-z_0-9]+", value):
                    ours = (group / f"{choice}.yaml").is_file()
                    assert ours or f"# mine/{key}/{choice}.yaml\n" in page.read_text(), (
                        f"{page.name}: {code}"
                    )
            elif "." in key and not key.startswith(
                ("hydra", "math.", "mmlu.", "bbh.", "tokenizer.")
            ):
                assert key.rpartition(".")[2] in keys, f"{page.name}: {code}"


def test_the_groups_table_is_complete() -> None:
    rows = table(ROOT / "docs" / "configuration.md", "| group |")
    listed = {CODE.findall(row[0])[0].lstrip("+"): set(CODE.findall(row[2])) for row in rows}
    folders = {path.parent for path in (ROOT / "conf").rglob("*.yaml")}
    groups = {
        folder.relative_to(ROOT / "conf").as_posix(): {path.stem for path in folder.glob("*.yaml")}
        for folder in folders
    }
    inner = {"data/paper", "data/small", "scale/answers"}  # `scale` selects them
    groups = {n: c for n, c in groups.items() if n not in inner and n[:5] not in ("hydra", ".")}
    assert listed == groups


def test_the_commands_table_is_complete() -> None:
    rows = table(ROOT / "docs" / "commands.md", "| command |")
    listed = {CODE.findall(row[0])[0].split()[1] for row in rows}
    assert listed == set(import_module("elrea.commands.cli").COMMANDS)
    from elrea.commands.old_names import COMMANDS

    old = {code for row in rows[1:] for code in CODE.findall(row[2])}
    commands = {name for name, file in COMMANDS.items() if file.startswith("commands/")}
    assert old == {f"python -m {name.removesuffix('.__main__')}" for name in commands}


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):.*##", (ROOT / "Makefile").read_text(), re.M))
    rows = table(ROOT / "docs" / "commands.md", "| target |")
    listed = {code.removeprefix("make ") for row in rows for code in CODE.findall(row[0])}
    assert listed == targets - {"help"}
    for path in DOCS:
        for code in (*CODE.findall(path.read_text()), *command_lines(path)):
            if found := re.match(r"make ([a-z0-9-]+)", code):
                assert found[1] in targets, f"{path.name}: {code}"


def headings(path: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    lines = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text()), re.M)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}


def command_lines(path: Path) -> Iterator[str]:
    """The lines of code blocks and of inline code, comments left out and continued lines joined."""
    text = path.read_text().replace("\\\n", " ")
    fenced = "\n".join(FENCE.findall(text)).splitlines()
    indented = [line for line in text.splitlines() if line.startswith("    ")]
    for line in (*fenced, *indented, *CODE.findall(text)):
        yield line.partition("  # ")[0].strip()


def config_keys() -> set[str]:
    """Every key in conf/, without the groups before it."""

    def of(node: object) -> Iterator[str]:
        for name, child in node.items() if isinstance(node, dict) else ():
            yield str(name)
            yield from of(child)

    files = (ROOT / "conf").rglob("*.yaml")
    return {key for path in files for key in of(OmegaConf.to_container(OmegaConf.load(path)))}


def table(path: Path, head: str) -> list[list[str]]:
    """The cells of a Markdown table that begins with `head`, without its two head lines."""
    lines = path.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(head))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows
