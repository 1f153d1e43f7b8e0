"""Answers a file of prompts with a finished ensemble.

    python -m elrea.predict outputs/<day>/<time> --in prompts.jsonl --out answers.jsonl

A line of the prompts is `{"prompt": ...}` (or `instruction`, with or without `input`), and may have an `id` and
`choices`: then the likeliest choice is the answer. What else `data=jsonl` reads (`response`, `source`, ...) is passed
over, and so is a field whose name begins with "_"; others are refused, and so are chats. A line of the answers has the
prompt's `id`, the `answer`, the `nearest` cluster and the members' `weights`. Stopped anywhere, the same command goes
on after the last whole line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.commands.chat import command, opened
from elrea.commands.messages import told
from elrea.data.examples import Example
from elrea.data.readers.rows import NAMES
from elrea.data.readers.tables import parse_row
from elrea.errors import DataError, did_you_mean
from elrea.store.files import is_text, key_of
from elrea.store.lock import Lease

if TYPE_CHECKING:
    from elrea.method.ensemble.decoding import Decoding
    from elrea.method.ensemble.ensemble import Ensemble

ROLES = {name: role for role, names in NAMES.items() for name in names}
"""What a field of a prompt is, by its name."""

ASKING = ("instruction", "input", "choices", "id")
"""Roles that this command reads."""

BATCH = 16
"""Prompts that are answered together, and that a stopped run loses at most."""


def main() -> None:
    parser = command("predict", __doc__)
    parser.add_argument(
        "--in", dest="prompts", type=Path, required=True, help="JSON lines of prompts"
    )
    parser.add_argument(
        "--out", dest="answers", type=Path, required=True, help="JSON lines to write"
    )
    given = parser.parse_args()
    if not given.answers.parent.is_dir():
        raise DataError(f"{given.answers.parent}: no such folder; make it, or give another --out")
    prompts = read_prompts(given.prompts)
    from elrea.method.ensemble.decoding import Decoding

    settings = Decoding(given.max_new_tokens, given.temperature, seed=given.seed)
    made_by = {"settings": vars(settings), "top_k": given.top_k}
    ensemble = opened(given)
    predict(ensemble, prompts, settings, given.answers, made_by)


def predict(
    ensemble: Ensemble,
    prompts: Sequence[tuple[str, Example]],
    settings: Decoding,
    out: Path,
    made_by: dict[str, Any],
) -> None:
    """Appends an answer for every prompt that has none yet, batch by batch.

    Args:
        ensemble: Answers.
        prompts: Ids and prompts.
        settings: How answers are written.
        out: The answers' file.
        made_by: What else decides the answers; a file of other answers is refused.

    Raises:
        DataError: A prompt cannot be answered, the file holds something else, or another process writes it.
    """
    facts = {**made_by, "files": ensemble.saved.files, "prompts": [repr(p) for p in prompts]}
    by = key_of(facts)
    ensemble.check([prompt for _, prompt in prompts], settings)
    with alone(out):
        done = _done(out, by, len(prompts))
        if done:
            print(f"{done:,} of {len(prompts):,} prompts are answered already")
        if done < len(prompts):
            _answer(ensemble, prompts, settings, out, by, done)


def _answer(
    ensemble: Ensemble,
    prompts: Sequence[tuple[str, Example]],
    settings: Decoding,
    out: Path,
    by: str,
    done: int,
) -> None:
    from elrea.reporting.progress import bar

    with out.open("ab") as file, bar("answers", len(prompts) - done, "prompts") as advance:
        for start in range(done, len(prompts), BATCH):
            part = prompts[start : start + BATCH]
            drawn = replace(settings, seed=settings.seed + start)
            rows = _answers(ensemble, [prompt for _, prompt in part], drawn)
            lines = [
                json.dumps({"id": name, **row, "by": by}, ensure_ascii=False)
                for (name, _), row in zip(part, rows, strict=True)
            ]
            file.write("".join(f"{line}\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())
            advance(len(part))


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Keeps other processes from answering into the same file."""
    lease = Lease(out.with_name(f".{out.name}.lease"))
    if not lease.acquire(wait=False):
        raise DataError(f"{out}: another process is answering into it; name another file")
    try:
        yield
    finally:
        lease.release()


def read_prompts(path: Path) -> list[tuple[str, Example]]:
    """Ids and prompts of a file; a prompt's own id is its place in the file, for messages.

    Raises:
        DataError: No such file, an empty one, or a bad line.
    """
    found: list[tuple[str, Example]] = []
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                where = f"{path}:{number}"
                if (row := parse_row(raw, where)) is not None:
                    values = _by_role(row, where)
                    name, prompt = str(values.get("id", number)), _prompt(values, where)
                    if not is_text("".join([name, prompt.instruction, *prompt.choices])):
                        raise DataError(f"{where}: is not UTF-8 text")
                    found.append((name, prompt))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if not found:
        raise DataError(f"{path}: holds no prompts; write one JSON object a line")
    return found


def _by_role(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The row's values that are not null, by the role they play in `data=jsonl`."""
    values: dict[str, Any] = {}
    for name, value in row.items():
        role = ROLES.get(name)
        if role == "messages":
            raise DataError(f"{where}: messages are not answered here; give the last one as prompt")
        if role is None and not name.startswith("_"):
            near = did_you_mean(name, [known for known, role in ROLES.items() if role in ASKING])
            raise DataError(
                f"{where}: unknown field {name!r}{near}; it may be half of the question: rename it, or begin it with _"
            )
        if role is None or value is None:
            continue
        if role in ASKING and role in values:
            raise DataError(f"{where}: {name!r} is a second {role}; keep one of the two")
        values[role] = value
    if type(values.get("id", "")) not in (str, int, float):
        raise DataError(f"{where}: the id must be a text or a number")
    return values


def _prompt(row: Mapping[str, Any], where: str) -> Example:
    texts = [row.get("instruction"), row.get("input")]
    words = [text for text in texts if text]
    if not isinstance(texts[0], str) or not all(isinstance(text, str) for text in words):
        raise DataError(f"{where}: wants a text as prompt (or instruction, with or without input)")
    choices = row.get("choices") or []
    if not isinstance(choices, list) or not all(isinstance(c, str) and c for c in choices):
        raise DataError(f"{where}: choices are a list of texts that are not empty")
    return Example(
        where, "\n".join(words), choices[0] if choices else "", "", choices=tuple(choices)
    )


def _answers(
    ensemble: Ensemble, prompts: list[Example], settings: Decoding
) -> list[dict[str, Any]]:
    routes = ensemble.route(prompts)
    rows: list[dict[str, Any]] = [{} for _ in prompts]
    free = [i for i, prompt in enumerate(prompts) if not prompt.choices]
    texts = ensemble.generate(
        [prompts[i] for i in free], settings, routes=[routes[i] for i in free]
    )
    for i, text in zip(free, texts, strict=True):
        rows[i] = {"answer": text}
    chosen = [i for i, prompt in enumerate(prompts) if prompt.choices]
    asked = [prompts[i] for i in chosen]
    sums = ensemble.score(asked, [p.choices for p in asked], routes=[routes[i] for i in chosen])
    for i, logs in zip(chosen, sums, strict=True):
        best = prompts[i].choices[max(range(len(logs)), key=logs.__getitem__)]
        rows[i] = {"answer": best, "log_likelihoods": [round(value, 6) for value in logs]}
    for row, route in zip(rows, routes, strict=True):
        row["nearest"] = route.nearest
        row["weights"] = {name: round(weight, 6) for name, weight in route.weights.items()}
    return rows


def _done(out: Path, by: str, count: int) -> int:
    """How many of the same answers are there, in whole batches; what a stopped run wrote beyond is cut off.

    Raises:
        DataError: The file holds something else.
    """
    if not out.exists():
        return 0
    with out.open("r+b") as file:
        content = file.read()
        lines = content.rpartition(b"\n")[0].split(b"\n") if b"\n" in content else []
        mine = all(row and row.get("by") == by for row in map(_parsed, lines))
        if not mine or len(lines) > count or (content and not lines):
            raise DataError(
                f"{out}: holds other answers (of another ensemble, prompts or settings); name another file"
            )
        if len(lines) < count:  # draws go batch by batch
            lines = lines[: len(lines) // BATCH * BATCH]
        file.truncate(sum(len(line) + 1 for line in lines))
    return len(lines)


def _parsed(line: bytes) -> Any:
    try:
        return parse_row(line, "")
    except DataError:
        return None


if __name__ == "__main__":
    with told():
        main()
