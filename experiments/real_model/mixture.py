"""Makes the study's data: seven sources of real text, six of them with choices, split by question.

    python -m experiments.real_model.mixture --data <folder of flan_cot/, t0/, gsm8k/> --into <folder>

Writes JSON lines as data=jsonl reads them: test.jsonl and dev.jsonl, and for each size and draw a
train-<size>-<draw>.jsonl from the questions that are in neither. A draw is another sample of the same pool.

| source | from | answer |
|---|---|---|
| creak, strategyqa | Flan's chains of thought | yes or no |
| sensemaking | Flan's chains of thought | a letter, of two sentences |
| ecqa | Flan's chains of thought | a letter, of five answers |
| situation | T0: Social IQa, DREAM, QuaRel | a letter, of two or three answers |
| paraphrase | T0: QQP, PAWS, MRPC | yes or no; for MRPC a letter |
| gsm8k | GSM8K: problems and solutions of at most 600 characters together | a solution; only its loss is measured |
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from elrea.commands.messages import one_line_errors
from elrea.errors import DataError
from elrea.store.files import write_text

SIZES = {"small": 60, "large": 240}
"""Training questions of each source."""
TEST, DEV = 150, 40
"""Test and dev questions of each source."""
SHARES = {"gsm8k": 0.5}
"""Of all these numbers: a source with long answers has half as many questions."""
DRAWS = (0, 1, 2, 3, 4, 10, 11)
LONGEST = 600
"""Characters of a question and its solution."""

Row = dict[str, Any]


def flan(root: Path, task: str) -> Iterator[Row]:
    """Rows of one of Flan's tasks with options."""
    for line in (root / "flan_cot" / f"{task}_train.tsv").read_text(encoding="utf-8").splitlines():
        question, answer, *_ = [*line.split("\t"), ""]
        text, _, listed = question.replace("\\n", "\n").partition("\nOptions:\n")
        choices = [part.removeprefix("- ").strip() for part in listed.strip().split("\n- ")]
        if task == "strategyqa":
            choices = ["yes", "no"]
        if task == "sensemaking":
            answer = next((c for c in choices if c.startswith(f"{answer}:")), "")
            choices = [re.sub(r'^Sentence [AB]: "?|"$', "", choice) for choice in choices]
            answer = re.sub(r'^Sentence [AB]: "?|"$', "", answer)
        if answer in choices and len(set(choices)) == len(choices):
            yield row(text, choices, choices.index(answer))


def t0(root: Path, template: str) -> Iterator[tuple[str, str]]:
    """Prompt and completion of one of T0's templates."""
    for line in (root / "t0" / f"{template}.jsonl").read_text(encoding="utf-8").splitlines():
        given = json.loads(line)
        yield given["prompt"].strip(), given["completion"].removesuffix("<|endoftext|>").strip()


def situation(root: Path) -> Iterator[Row]:
    """Questions on a situation, a dialogue or a short story, with two or three answers."""
    for text, letter in t0(root, "social_i_qa_Show_choices_and_generate_index"):
        context, *choices = re.split(r"\n\n[ABC]: ", text)
        context = context.rpartition("\n\n")[0]
        yield row(context, choices, "ABC".index(letter))
    for text, answer in t0(root, "dream_baseline"):
        context, *choices = re.split(r"\n\n- ", text)
        if answer in choices:
            yield row(context, choices, choices.index(answer))
    for text, answer in t0(root, "quarel_choose_between"):
        story, *choices = re.split(r" \([AB]\) ", text.partition("Question: ")[2])
        if answer in choices:
            yield row(story, choices, choices.index(answer))


def paraphrase(root: Path) -> Iterator[Row]:
    """Pairs of questions or sentences: do they mean the same?"""
    for template in ("glue_qqp_duplicate", "paws_labeled_final_Meaning"):
        for text, label in t0(root, template):
            choices = ("yes", "no") if label.islower() else ("Yes", "No")
            yield row(text, choices, choices.index(label))
    choices = ("equivalent", "not equivalent")
    for text, label in t0(root, "glue_mrpc_equivalent"):
        yield row(text, choices, choices.index(label))


def gsm8k(root: Path, split: str) -> Iterator[Row]:
    """Problems with their solutions, without the marks of a calculator."""
    for line in (root / "gsm8k" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines():
        given = json.loads(line)
        solution = re.sub(r"<<.*?>>", "", given["answer"]).replace("####", "The answer is")
        yield {"instruction": given["question"].strip(), "response": solution.strip()}


def row(text: str, choices: Sequence[str], answer: int) -> Row:
    """A question with choices, as data=jsonl reads it."""
    return {"instruction": text.strip(), "choices": list(choices), "answer": answer}


def distinct(rows: Iterable[Row]) -> list[Row]:
    """Rows that are not too long, each question once."""
    found = {
        re.sub(r"\W+", " ", " ".join([each["instruction"], *each.get("choices", ())]).lower()): each
        for each in rows
        if len(each["instruction"]) + len(each.get("response", "")) <= LONGEST
    }
    return list(found.values())


def build(root: Path) -> dict[str, list[Row]]:
    """All files by name, without suffix.

    Raises:
        DataError: A source lacks questions.
        OSError: A file is missing.
    """
    pools = {
        **{
            task: distinct(flan(root, task))
            for task in ("creak", "strategyqa", "sensemaking", "ecqa")
        },
        "situation": distinct(situation(root)),
        "paraphrase": distinct(paraphrase(root)),
        "gsm8k": distinct(gsm8k(root, "train")),
    }
    files: dict[str, list[Row]] = {"test": [], "dev": []}
    for source, pool in pools.items():
        share = SHARES.get(source, 1)
        tests, devs = int(TEST * share), int(DEV * share)
        random.Random(f"{source} split").shuffle(pool)
        if source == "gsm8k":
            own = distinct(gsm8k(root, "test"))
            random.Random("gsm8k test").shuffle(own)
            held, pool = own[:tests], pool
        else:
            held, pool = pool[:tests], pool[tests:]
        files["test"] += named(source, held)
        files["dev"] += named(source, pool[:devs])
        rest = pool[devs:]
        if len(rest) < 2 * SIZES["small"]:
            raise DataError(
                f"{source}: {len(pool)} questions are left for dev and train; it needs more"
            )
        for size, count in SIZES.items():
            for draw in DRAWS:
                wanted = min(int(count * share), len(rest))
                drawn = random.Random(f"{source} {draw}").sample(rest, len(rest))[:wanted]
                files.setdefault(f"train-{size}-{draw}", []).extend(named(source, drawn))
    return files


def named(source: str, rows: Iterable[Row]) -> list[Row]:
    """The rows with their source."""
    return [{**each, "source": source} for each in rows]


def write(root: Path, folder: Path) -> None:
    """Writes all files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in build(root).items():
        text = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows)
        write_text(folder / f"{name}.jsonl", text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of flan_cot/, t0/, gsm8k/")
    parser.add_argument("--into", type=Path, required=True, help="folder for the JSON lines")
    given = parser.parse_args()
    with one_line_errors():
        write(given.data, given.into)


if __name__ == "__main__":
    main()
