"""Answers a file of prompts with a finished ensemble.

    elrea predict outputs/<day>/<time> --in prompts.jsonl --out answers.jsonl

A line of prompts.jsonl is `{"prompt": ...}`, or has `instruction` and optionally `input`. It may
have an `id`, and `choices`, of which the likeliest becomes the answer. Other fields of data=jsonl
(`response`, `source`, ...) and fields that begin with "_" are ignored; unknown fields and chats are
refused.

A line of answers.jsonl has the prompt's `id`, the `answer`, the `nearest` cluster and the members'
`weights`. After an interruption the same command resumes behind the last complete batch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.commands.arguments import check_arguments, ensemble_parser, load_ensemble
from elrea.commands.messages import one_line_errors
from elrea.data.examples import Example
from elrea.data.readers.formats import parse_row
from elrea.data.readers.rows import NAMES
from elrea.errors import DataError, did_you_mean
from elrea.method.ensemble.decoding_settings import Decoding
from elrea.store.files import is_text, key_of
from elrea.store.lock import Lease

if TYPE_CHECKING:
    from elrea.method.ensemble.ensemble import Ensemble

ROLES = {name: role for role, names in NAMES.items() for name in names}
"""Role of a field in data=jsonl, by the field's name."""
PROMPT_ROLES = ("instruction", "input", "choices", "id")
"""Roles that this command uses."""
BATCH = 16
"""Prompts in one batch: an interruption loses at most so many answers."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command with these words, or with those of the process.

    Raises:
        ElreaError: An argument, the ensemble or a prompt cannot be used; the file of answers holds other answers, or
            another process writes it.
    """
    parser = ensemble_parser("predict", __doc__)
    parser.add_argument(
        "--in", dest="prompts", type=Path, required=True, help="file of prompts, as JSON lines"
    )
    parser.add_argument(
        "--out", dest="answers", type=Path, required=True, help="file of answers to write or resume"
    )
    given = parser.parse_args(argv)
    if not given.answers.parent.is_dir():
        raise DataError(f"{given.answers.parent}: no such folder; make it, or give another --out")
    settings = Decoding(given.max_new_tokens, given.temperature, seed=given.seed)
    facts = check_arguments(given)
    prompts = read_prompts(given.prompts)
    key = key_of(
        {
            "settings": vars(settings),
            "top_k": given.top_k,
            "files": dict(facts["files"]),
            "prompts": [repr(prompt) for prompt in prompts],
        }
    )
    with alone(given.answers):
        done, size = _answered(given.answers, key, len(prompts))
        if done:
            print(f"{done:,} of {len(prompts):,} prompts are answered already", flush=True)
        if done < len(prompts):
            ensemble = load_ensemble(given)
            ensemble.check([prompt for _, prompt in prompts], settings)
        if given.answers.exists():
            os.truncate(given.answers, size)
        if done < len(prompts):
            predict(ensemble, prompts, settings, given.answers, key, done)


def predict(
    ensemble: Ensemble,
    prompts: Sequence[tuple[str, Example]],
    settings: Decoding,
    out: Path,
    key: str,
    done: int = 0,
) -> None:
    """Appends the answers that are missing, batch by batch.

    Args:
        ensemble: The ensemble that answers.
        prompts: Ids and prompts.
        settings: How tokens are chosen.
        out: The file of answers.
        key: Written as `by` into every line: the hash of all that decides the answers.
        done: Answers in the file.

    Raises:
        OSError: The file cannot be written.
    """
    from elrea.reporting.progress import bar

    with out.open("ab") as file, bar("answers", len(prompts) - done, "prompts") as advance:
        for start in range(done, len(prompts), BATCH):
            batch = prompts[start : start + BATCH]
            drawn = replace(settings, seed=settings.seed + start)
            rows = _answers(ensemble, [prompt for _, prompt in batch], drawn)
            lines = [
                json.dumps({"id": name, **row, "by": key}, ensure_ascii=False)
                for (name, _), row in zip(batch, rows, strict=True)
            ]
            file.write("".join(f"{line}\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())
            advance(len(batch))


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Locks the file of answers against other processes.

    Raises:
        DataError: Another process has the lock.
    """
    lease = Lease(out.with_name(f".{out.name}.lease"))
    if not lease.acquire(wait=False):
        raise DataError(f"{out}: another process writes this file; name another one")
    try:
        yield
    finally:
        lease.release()


def read_prompts(path: Path) -> list[tuple[str, Example]]:
    """Ids and prompts of a file. For messages, the id of the `Example` is its place in the file, `path:line`.

    Raises:
        DataError: The file is missing or empty, or a line is malformed.
    """
    prompts: list[tuple[str, Example]] = []
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                where = f"{path}:{number}"
                if (row := parse_row(raw, where)) is not None:
                    values = _by_role(row, where)
                    name, prompt = str(values.get("id", number)), _prompt(values, where)
                    if not is_text("".join([name, prompt.instruction, *prompt.choices])):
                        raise DataError(f"{where}: is not UTF-8 text")
                    prompts.append((name, prompt))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if not prompts:
        raise DataError(f"{path}: the file has no prompts; write one JSON object per line")
    return prompts


def _by_role(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The row's values by their role in data=jsonl, without nulls.

    Raises:
        DataError: An unknown field, two fields of one role, or an id that is neither text nor number.
    """
    values: dict[str, Any] = {}
    for name, value in row.items():
        role = ROLES.get(name)
        if role in ("messages", "system", "history"):
            raise DataError(
                f"{where}: a chat in `{name}` is not supported; give its last message as `prompt`"
            )
        if role is None and not name.startswith("_"):
            near = did_you_mean(
                name, [known for known, role in ROLES.items() if role in PROMPT_ROLES]
            )
            raise DataError(
                f"{where}: unknown field {name!r}; rename it, or let it begin with _ to have it ignored{near}"
            )
        if role is None or value is None:
            continue
        if role in PROMPT_ROLES and role in values:
            raise DataError(
                f"{where}: {name!r} is a second field for the {role}; keep one of the two"
            )
        values[role] = value
    if type(values.get("id", "")) not in (str, int, float):
        raise DataError(f"{where}: the id must be a text or a number")
    return values


def _prompt(row: Mapping[str, Any], where: str) -> Example:
    texts = [row.get("instruction"), row.get("input")]
    words = [text for text in texts if text]
    if not isinstance(texts[0], str) or not all(isinstance(text, str) for text in words):
        raise DataError(f"{where}: `prompt` (or `instruction`, `input`) must be a text")
    if not "".join(words).strip():
        raise DataError(f"{where}: the prompt is empty")
    choices = row.get("choices") or []
    if not isinstance(choices, list) or not all(isinstance(c, str) and c for c in choices):
        raise DataError(f"{where}: `choices` must be a list of non-empty texts")
    return Example(
        where, "\n".join(words), choices[0] if choices else "", "", choices=tuple(choices)
    )


def _answers(
    ensemble: Ensemble, prompts: list[Example], settings: Decoding
) -> list[dict[str, Any]]:
    """A row per prompt: answer, log-likelihoods of its choices if it has any, nearest cluster and weights."""
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


def _answered(out: Path, key: str, count: int) -> tuple[int, int]:
    """Answers that the file has, in complete batches, and their size in bytes; the rest of the file is to be cut off.

    Raises:
        DataError: The file has other answers.
    """
    if not out.exists():
        return 0, 0
    content = out.read_bytes()
    lines = content.rpartition(b"\n")[0].split(b"\n") if b"\n" in content else []
    ours = all(row and row.get("by") == key for row in map(_parsed, lines))
    if not ours or len(lines) > count or (content and not lines):
        raise DataError(
            f"{out}: has answers of another ensemble, other prompts or other settings; name another file"
        )
    if len(lines) < count:  # a batch shares one seed, so that it is answered as a whole
        lines = lines[: len(lines) // BATCH * BATCH]
    return len(lines), sum(len(line) + 1 for line in lines)


def _parsed(line: bytes) -> Any:
    """The row of a line; None if it is malformed."""
    try:
        return parse_row(line, "")
    except DataError:
        return None


if __name__ == "__main__":
    with one_line_errors():
        main()
