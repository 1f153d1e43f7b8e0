"""The same readers fed by atheris, which looks at what code a change reaches and goes on from there.

    pip install atheris                            # Linux, Python 3.11 to 3.13; no dependency of this project
    python -m tests.fuzz.guided --minutes 10

Every reader has a process of its own. Any end but success or an ElreaError of one line ends that process with a
traceback and the bytes that did it, and makes the command fail. What was tried goes to guided.json beside this file.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

RESULTS = Path(__file__).with_name("guided.json")
ROOT = Path(__file__).parents[2]


def one(name: str, seconds: int) -> None:
    """Feeds one reader, in this process, which atheris ends."""
    import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]

    with atheris.instrument_imports(include=["elrea"], enable_loader_override=False):
        import tests.conftest  # noqa: F401  # no network, one thread
        from elrea.errors import ElreaError
        from tests.fuzz.readers import READERS, prepare

    logging.disable()
    reader = next(reader for reader in READERS if reader.name == name)
    home = Path(tempfile.mkdtemp(prefix="guided"))
    whole, folder = prepare(reader, home)
    seeds = home / "seeds"
    seeds.mkdir()
    shutil.copyfile(whole / reader.file, seeds / "whole")

    def attempt(data: bytes) -> None:
        (folder / reader.file).write_bytes(data)
        try:
            reader.mend(folder)
            reader.read(folder)
        except ElreaError as error:
            assert str(error) and "\n" not in str(error), repr(error)[:3000]
        finally:
            for kept in (reader.file, "ensemble.json"):
                if (whole / kept).exists():
                    shutil.copyfile(whole / kept, folder / kept)

    words = [
        f"-max_total_time={seconds}",
        "-max_len=20000",
        "-rss_limit_mb=0",
        f"-artifact_prefix={home}/",
    ]
    atheris.Setup([sys.argv[0], *words, str(seeds)], attempt)
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz.guided", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )  # fmt: skip
    parser.add_argument("--minutes", type=float, default=10.0, help="for all readers together")
    parser.add_argument("--reader", help="this one alone, in this process")
    given = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        raise SystemExit(
            "atheris is not installed: pip install atheris (Linux, Python 3.11 to 3.13)"
        )
    if given.reader:
        return one(given.reader, max(1, int(60 * given.minutes)))
    from tests.fuzz.readers import READERS
    from tests.fuzz.report import conclude

    share = given.minutes / len(READERS)
    rows = {}
    for reader in READERS:
        words = ["--reader", reader.name, "--minutes", str(share)]
        command = [sys.executable, "-m", "tests.fuzz.guided", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        runs = re.findall(r"Done (\d+) runs|^#(\d+)", done.stderr, re.MULTILINE)
        tried = max((int(a or b) for a, b in runs), default=0)
        reached = re.findall(r"cov: (\d+)", done.stderr)
        rows[reader.name] = {
            "tried": tried,
            "edges": int(reached[-1]) if reached else 0,
            "failed": done.returncode != 0,
        }
        said = "BAD " if done.returncode else "ok  "
        print(
            f"{said} {reader.name}: {tried:,} files, {rows[reader.name]['edges']} edges", flush=True
        )
        if done.returncode:
            print(done.stderr[-3000:], flush=True)
    conclude(RESULTS, {"minutes": given.minutes}, rows)


if __name__ == "__main__":
    main()
