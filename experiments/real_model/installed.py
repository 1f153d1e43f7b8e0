"""Questions that Python's and the installed packages' own data answer: real text on a machine without any download.

Each source is a table of facts: a question, its answer, and the answers of other questions among which wrong ones are
drawn. Nothing is written by hand but the wording of the questions.
"""

from __future__ import annotations

import errno
import inspect
import json
import mimetypes
import os
import re
import subprocess
import sys
import unicodedata
import zoneinfo
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import unescape
from html.entities import name2codepoint
from http import HTTPStatus
from importlib import import_module, resources
from pathlib import Path


@dataclass(frozen=True)
class Fact:
    """A question with one right answer.

    Attributes:
        question: What is asked; no other fact of the source asks it.
        answer: The right answer.
        wrong: Answers that are wrong here, at least three.
    """

    question: str
    answer: str
    wrong: tuple[str, ...]


MODULES = """
    ast base64 binascii bisect builtins bz2 calendar cmath codecs collections colorsys configparser contextlib copy
    csv dataclasses datetime decimal difflib dis email.utils enum filecmp fileinput fnmatch fractions functools
    gettext glob gzip hashlib heapq hmac html inspect io ipaddress itertools json keyword linecache locale logging
    lzma math mimetypes operator os os.path pathlib pickle pkgutil platform plistlib pprint quopri random re sched
    secrets select shelve shlex shutil signal site socket ssl stat statistics string struct subprocess symtable sys
    sysconfig tarfile tempfile textwrap threading time timeit tokenize traceback types typing unicodedata
    urllib.parse urllib.request uuid warnings weakref xml.sax.saxutils zipfile zlib
""".split()
"""Modules of the standard library whose import has no effect."""
LEAST, MOST = 20, 150
"""Characters of a sentence that is asked about."""
KINDS = {
    "Ll": "a small letter", "Lu": "a capital letter", "Lo": "a letter without case", "Mn": "a combining mark",
    "Nd": "a decimal digit", "No": "a fraction or another number", "Sm": "a mathematical symbol",
    "Sc": "a currency sign", "Ps": "an opening bracket", "Pd": "a dash",
}  # fmt: skip
"""General categories of Unicode -> what they are called here."""
PER_KIND = 40
"""Characters of a category at most, so that no category fills the source."""


def functions() -> Iterator[tuple[str, str, str]]:
    """The standard library's functions by the first sentences of their docstrings, from a process without any package:
    some packages replace functions of the standard library."""
    command = [sys.executable, "-I", "-S", __file__]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    yield from ((question, name, module) for question, name, module in json.loads(printed))


def functions_here() -> Iterator[tuple[str, str, str]]:
    """The same from this process."""
    for module in MODULES:
        try:
            names = vars(import_module(module))
        except ImportError:  # Python can be built without some
            continue
        for name, value in sorted(names.items()):
            if name.startswith("_") or not (inspect.isroutine(value) and value.__doc__):
                continue
            sentence = first_sentence(value.__doc__)
            if _fits(sentence) and not _says(sentence, name):
                yield f"Which function of Python's {module} does this? {sentence}", name, module


def statuses() -> Iterator[tuple[str, str, str]]:
    """HTTP's statuses by their descriptions."""
    for status in HTTPStatus:
        text = status.description
        if text and status.phrase.lower() not in text.lower():
            yield f'Which HTTP status means "{text}"?', f"{status.value} {status.phrase}", ""


def system_errors() -> Iterator[tuple[str, str, str]]:
    """The operating system's errors by their messages."""
    for number, name in sorted(errno.errorcode.items()):
        yield f'A call failed: "{os.strerror(number)}". Which errno is it?', name, ""


def characters() -> Iterator[tuple[str, str, str]]:
    """Unicode's characters: what kind of character a name belongs to."""
    counts = Counter[str]()
    for point in range(0x21, 0x3000):
        kind, name = unicodedata.category(chr(point)), unicodedata.name(chr(point), "")
        plain = name and not re.search(r"[0-9]|IDEOGRAPH|SYLLABLE", name)
        if kind in KINDS and plain and point % 3 == 0 and counts[kind] < PER_KIND:
            counts[kind] += 1
            yield f"{name} is a character of Unicode. What is it?", KINDS[kind], ""


def entities() -> Iterator[tuple[str, str, str]]:
    """HTML's entities by the names of their characters."""
    for name, point in sorted(name2codepoint.items()):
        title = unicodedata.name(chr(point), "")
        if title and unescape(f"&{name};") == chr(point):  # HTML 5 has others for some
            yield f"Complete the HTML entity for {title.lower()}:", f"&{name};", ""


def countries() -> Iterator[tuple[str, str, str]]:
    """Time zones and their countries; nothing where neither the system nor the package tzdata has the tables."""
    names, zones = _table("iso3166.tab"), _table("zone.tab")
    countries = {row[0]: row[1] for row in names if len(row) > 1}
    for row in sorted(zones):
        if len(row) > 2 and (country := countries.get(row[0])):
            place = row[2].rpartition("/")[2].replace("_", " ")
            if not any(_says(row[2], word) for word in (country, country.split()[0])):
                yield f"In which country is {place}, whose time zone is {row[2]}?", country, ""


def media_types() -> Iterator[tuple[str, str, str]]:
    """File name extensions and their media types, as Python has them built in."""
    known = mimetypes.MimeTypes().types_map[True]
    for suffix, kind in sorted(known.items()):
        if suffix[1:] not in kind:
            yield f"A server sends the file data{suffix}. Content-Type:", kind, ""


def topics() -> Iterator[tuple[str, str, str]]:
    """Sentences of Python's reference and the topic that they are from."""
    texts: dict[str, str] = import_module("pydoc_data.topics").topics
    plain = [" ".join(text.split()) for text in texts.values()]
    for topic, text in sorted(texts.items()):
        title = text.strip().splitlines()[0].replace('"', "")
        for sentence in sentences(text)[:12]:
            given = _says(sentence, topic) or _says(sentence, title)
            if not given and sum(sentence in other for other in plain) == 1:
                yield f"Python's reference says: {sentence} On which page?", title, ""


def data_sets() -> Iterator[tuple[str, str, str]]:
    """Sentences of scikit-learn's descriptions of its data sets, and the data set."""
    folder = resources.files("sklearn.datasets.descr")
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".rst"):
            continue
        name = file.name.removesuffix(".rst").removesuffix("_data").replace("_", " ")
        for sentence in sentences(file.read_text(encoding="utf-8")):
            if not any(_says(sentence, word) for word in name.split()):
                yield f"{sentence}\nWhich data set is described?", name, ""


def units() -> Iterator[tuple[str, str, str]]:
    """CODATA's physical constants and their units."""
    from scipy.constants import find, unit

    for name in sorted(find("")):  # the current ones; earlier tables had other names
        if unit(name) and not _says(name, unit(name)) and "relationship" not in name:
            yield f"State the unit of this constant: {name}", unit(name), ""


SOURCES: dict[str, Callable[[], Iterator[tuple[str, str, str]]]] = {
    "functions": functions, "http": statuses, "errno": system_errors, "characters": characters,
    "entities": entities, "countries": countries, "media_types": media_types, "reference": topics,
    "data_sets": data_sets, "units": units,
}  # fmt: skip
"""Name -> (question, answer, group) of its facts; wrong answers are those of the same group."""


def facts(source: str) -> list[Fact]:
    """The facts of a source, each question once. A question with two answers is left out, and so is one whose group
    has fewer than three other answers."""
    rows = list(dict.fromkeys(SOURCES[source]()))
    asked = Counter(question for question, _, _ in rows)
    answers: dict[str, dict[str, None]] = {}
    for _, answer, group in rows:
        answers.setdefault(group, {})[answer] = None
    found = []
    for question, answer, group in rows:
        wrong = tuple(other for other in answers[group] if other != answer)
        if asked[question] == 1 and len(wrong) >= 3:
            found.append(Fact(question, answer, wrong))
    return found


def first_sentence(text: str) -> str:
    """The first sentence of a docstring, on one line, without a signature before it."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    if re.match(r"[\w.]+\(.*\)( ->.*)?$", paragraphs[0].splitlines()[0]):
        paragraphs[0] = paragraphs[0].partition("\n")[2] or " ".join(paragraphs[1:2])
    line = " ".join(paragraphs[0].split())
    return re.split(r"(?<=[.!?])\s", line)[0]


def sentences(text: str) -> list[str]:
    """The plain sentences of reStructuredText, in order: of paragraphs that are neither titles, lists nor tables."""
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        line = " ".join(paragraph.split())
        if not re.match(r"[A-Z]", line) or re.search(r"::|\*\*|==|--|\.\. |`|http|\|", line):
            continue
        # A point after a capital letter or a number may be that of an abbreviation.
        parts = re.split(r"(?<=[.!?])\s(?=[A-Z])", line)
        found += [part for part in parts if _fits(part) and re.search(r"[a-z)\"]\.$", part)]
    return found


def _fits(sentence: str) -> bool:
    return LEAST <= len(sentence) <= MOST and " " in sentence


def _says(sentence: str, answer: str) -> bool:
    """Whether a sentence gives the answer away."""
    return answer.lower() in sentence.lower()


def _table(name: str) -> list[list[str]]:
    """The rows of one of the time zone database's tables; none where it is not installed."""
    for folder in zoneinfo.TZPATH:
        if (path := Path(folder) / name).is_file():
            return _rows(path.read_text(encoding="utf-8"))
    try:
        return _rows((resources.files("tzdata") / "zoneinfo" / name).read_text(encoding="utf-8"))
    except (ModuleNotFoundError, FileNotFoundError):
        return []


def _rows(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]


if __name__ == "__main__":
    json.dump(list(functions_here()), sys.stdout)
