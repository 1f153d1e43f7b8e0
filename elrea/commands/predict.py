"""Answers a file of prompts with a finished ensemble.

    elrea predict outputs/<day>/<time> --in prompts.jsonl --out answers.jsonl

A line of prompts.jsonl is `{"prompt": ...}`, or any row of data=jsonl: `instruction` and `input`,
`messages`, `history`, `system`, `choices`, in any of its formats. Its prompt is worded as in
training. A response, or a last message of the assistant, is ignored, as are `source` and fields
that begin with "_"; other unknown fields are refused, unless --field or --ignore names them.
It may have an `id`. Of `choices` the likeliest
becomes the answer.

A line of answers.jsonl has the prompt's `id`, the `answer` (and the `option` that its letter stands
for), the `nearest` cluster and the members' `weights`. After an interruption the same command
resumes behind the last complete batch.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elrea.commands.arguments import check_arguments, ensemble_parser, load_ensemble
from elrea.commands.exit import one_line_errors
from elrea.commands.output_folder import check_outside
from elrea.data.readers.formats import UnknownField, UnreadColumn, parse_row
from elrea.data.readers.forms import instances
from elrea.data.readers.hints import ignore_options
from elrea.data.readers.prompt_reader import PromptReader
from elrea.data.readers.tables import EmptyFile, rows_of
from elrea.errors import ConfigError, DataError
from elrea.method.ensemble.decoding_settings import Decoding
from elrea.method.ensemble.places import LOCAL
from elrea.store.files import CHECKSUM, is_text, key_of
from elrea.store.lock import Lease

if TYPE_CHECKING:
    from elrea.data.examples import Example
    from elrea.data.options import Options
    from elrea.method.ensemble.ensemble import Ensemble

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
        "--in", dest="prompts", type=Path, required=True,
        help="file of prompts, in any format of data=jsonl",
    )  # fmt: skip
    add_fields(parser)
    parser.add_argument(
        "--out", dest="answers", type=Path, required=True, help="file of answers to write or resume"
    )
    given = parser.parse_args(argv)
    if not given.answers.parent.is_dir():
        raise DataError(f"{given.answers.parent}: no such folder; make it, or give another --out")
    if given.answers.exists() and not given.answers.is_file():
        raise DataError(
            f"{given.answers}: no file that answers can be resumed in; give another --out"
        )
    check_outside(given.answers)
    settings = Decoding(given.max_new_tokens, given.temperature, seed=given.seed)
    facts = check_arguments(given)
    prompts = prompts_of_file(given, facts)
    decisive = {
        "settings": vars(settings),
        "top_k": given.top_k,
        "files": dict(facts["files"]),
    }
    with lock_file(given.answers):
        key = _key_in(given.answers, decisive, facts, prompts)
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
def lock_file(out: Path) -> Iterator[None]:
    """Locks the file of answers against other processes.

    Raises:
        DataError: Another process has the lock.
    """
    out = Path(os.path.realpath(out))  # by whichever link it is named
    lease = Lease(out.with_name(f".{out.name}.lease"))
    if not lease.acquire(wait=False):
        raise DataError(f"{out}: another process writes this file; name another one")
    try:
        yield
    finally:
        lease.release()


def add_fields(parser: argparse.ArgumentParser) -> None:
    """Adds `--field` and `--ignore`, for `prompts_of_file`."""
    parser.add_argument(
        "--field", action="append", default=[], metavar="ROLE=NAME",
        help="name of a field in the file of prompts, as data.fields; columns as choices=A,B,C,D (again for another)",
    )  # fmt: skip
    parser.add_argument(
        "--ignore", action="append", default=[], metavar="NAME",
        help="field to skip there, as data.ignore; '*': all without a role",
    )  # fmt: skip


def check_fields(given: argparse.Namespace) -> None:
    """Refuses `--field` and `--ignore` without `--prompts`.

    Raises:
        ConfigError: One of them is given alone.
    """
    if given.prompts is None and (given.field or given.ignore):
        raise ConfigError("--field and --ignore say how prompts are read; give --prompts too")


def prompts_of_file(
    given: argparse.Namespace, facts: Mapping[str, Any]
) -> list[tuple[str, Example]]:
    """Ids and prompts of the file `given.prompts`, with `--field` and `--ignore`, asked as the ensemble was trained.

    Raises:
        DataError: As `read_prompts`, or a `--field` is malformed.
    """
    fields: dict[str, str | list[str]] = {}
    for word in given.field:
        role, equals, name = word.partition("=")
        if not (role and equals and name):
            raise DataError(f"--field {word}: write ROLE=NAME, as --field instruction=question")
        several = role == "choices" and "," in name
        fields[role] = [column.strip() for column in name.split(",")] if several else name
    return read_prompts(given.prompts, facts.get("options", "text"), fields, given.ignore)


def read_prompts(
    path: Path,
    options: Options = "text",
    fields: Mapping[str, str | Sequence[str]] | None = None,
    ignore: Sequence[str] = (),
) -> list[tuple[str, Example]]:
    """Ids and prompts of a file. For messages, the id of the `Example` is its place in the file, `path:line`.

    Args:
        path: In any format of data=jsonl; another suffix is read as JSON lines.
        options: How rows with choices are asked.
        fields: Role -> the field's name in the file.
        ignore: Fields to skip.

    Raises:
        DataError: The file is missing or empty, a row is malformed, two have one id, or `fields` has an unknown role.
    """
    reader = PromptReader(options, fields, ignore)
    prompts: list[tuple[str, Example]] = []
    places: dict[str, str] = {}
    try:
        for row in rows_of(path, ignore=ignore):
            for part in instances(row.value, row.number, row.where):
                name = reader.name_of(part, row.where)
                name = str(row.number) if name is None else name
                if not is_text(name):
                    raise DataError(f"{row.where}: the id is not UTF-8 text")
                if name in places:
                    raise DataError(
                        f"{row.where}: duplicate id {name!r}, first at {places[name]}; make every id unique"
                    )
                places[name] = row.where
                prompts.append((name, reader.read(part, row.where)))
    except UnknownField as error:
        raise DataError(
            f"{error} (--field ROLE=NAME gives a field a role, --ignore NAME skips one)"
        ) from error
    except UnreadColumn as error:
        raise DataError(f"{error} ({ignore_options([error.name])} skips it)") from error
    except EmptyFile as error:
        raise DataError(
            f"{path}: the file has no prompts; write one JSON object per line"
        ) from error
    if reader.unseen:
        raise DataError(
            f"{path}: no row has the column {sorted(reader.unseen)[0]!r}, which --field choices names"
        )
    return prompts


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
        # Without a chat template, a space stands between prompt and response.
        rows[i] = {"answer": text.removeprefix(" ")}
    chosen = [i for i, prompt in enumerate(prompts) if prompt.choices]
    asked = [prompts[i] for i in chosen]
    sums = ensemble.score(asked, [p.choices for p in asked], routes=[routes[i] for i in chosen])
    for i, logs in zip(chosen, sums, strict=True):
        best = max(range(len(logs)), key=logs.__getitem__)
        rows[i] = {"answer": prompts[i].choices[best]}
        if prompts[i].options:
            rows[i]["option"] = prompts[i].options[best]
        rows[i]["log_likelihoods"] = [round(value, 6) for value in logs]
    for row, route in zip(rows, routes, strict=True):
        row["nearest"] = route.nearest if route.cosines else None
        row["weights"] = {name: round(weight, 6) for name, weight in route.weights.items()}
    return rows


def _key_in(
    out: Path,
    decisive: Mapping[str, Any],
    facts: Mapping[str, Any],
    prompts: Sequence[tuple[str, Example]],
) -> str:
    """The key of the answers: of all that decides them, wherever the backbone and the file of prompts lie.

    A file that was begun under an older key keeps it: one had the path of the prompts, both lacked what
    `ensemble.json` says beside the list of files.
    """
    asked = [(name, repr(replace(prompt, id=""))) for name, prompt in prompts]
    with_paths = [repr(prompt) for prompt in prompts]
    older = [key_of({**decisive, "prompts": words}) for words in (asked, with_paths)]
    if out.exists():
        with out.open("rb") as file:
            first = _parsed(file.readline())
        if first and first.get("by") in older:
            return str(first["by"])
    return key_of({**decisive, "ensemble": _without_places(facts), "prompts": asked})


def _without_places(facts: Mapping[str, Any]) -> dict[str, Any]:
    """`ensemble.json` without where the backbone lies: its fingerprint decides the answers."""
    kept = {name: value for name, value in facts.items() if name != CHECKSUM}
    backbone = dict(facts["backbone"]).items()
    return {**kept, "backbone": {name: value for name, value in backbone if name not in LOCAL}}


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
