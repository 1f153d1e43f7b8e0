"""Makes the study's data: seven sources of real text, five of them with choices, split by question.

    python -m experiments.real_model.mixture --data <folder of flan_cot/, t0/, gsm8k/> --into <folder>

Writes JSON lines as data=jsonl reads them: test.jsonl, half of it as test-half.jsonl, dev.jsonl, and for each size and
draw a train-<size>-<draw>.jsonl from the questions that are in none of these: another sample of the same pool.

| source | from | answer |
|---|---|---|
| ecqa | Flan's chains of thought | one of five |
| sensemaking | Flan's chains of thought | of two sentences the one that makes no sense, or the one that does |
| situation | T0: Social IQa, DREAM, QuaRel | one of two or three |
| sciq | T0: SciQ, without its paragraphs | one of four |
| paraphrase | T0: QQP, PAWS, MRPC | yes or no |
| gigaword | T0: Gigaword, a news sentence | its headline; only its loss is measured |
| gsm8k | GSM8K, at most 600 characters | a solution; only its loss is measured |
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from elrea.commands.exit import one_line_errors
from elrea.errors import DataError
from elrea.store.files import write_text

SIZES = ("small", "large")
COUNTS = {
    "ecqa": (300, 40, 60, 240), "sensemaking": (300, 40, 60, 240), "situation": (140, 30, 60, 200),
    "paraphrase": (220, 40, 60, 240), "sciq": (90, 25, 60, 70), "gigaword": (90, 24, 60, 70),
    "gsm8k": (60, 20, 30, 120),
}  # fmt: skip
"""Questions of each source: test, dev, small training set, large one."""
DRAWS = (0, 1, 2, 3, 4, 10, 11)
"""Draws of the training sets: a seed's run trains on the draw of its number, 10 and 11 are for choosing settings."""
LONGEST = 600
"""Characters of a question and its solution."""

Row = dict[str, Any]


def flan(root: Path, task: str) -> Iterator[Row]:
    """Rows of one of Flan's tasks with options."""
    for line in (root / "flan_cot" / f"{task}_train.tsv").read_text(encoding="utf-8").splitlines():
        question, answer, *_ = [*line.split("\t"), ""]
        text, _, listed = question.replace("\\n", "\n").partition("\nOptions:\n")
        choices = [part.removeprefix("- ").strip() for part in listed.strip().split("\n- ")]
        if task == "sensemaking":
            answer = next((c for c in choices if c.startswith(f"{answer}:")), "")
            choices, answer = [_sentence(choice) for choice in choices], _sentence(answer)
        if answer in choices and len(set(choices)) == len(choices):
            yield row(text, choices, choices.index(answer))


def _sentence(choice: str) -> str:
    """The sentence in `Sentence A: "He drinks milk."`, without label and quotation marks."""
    return re.sub(r'^Sentence [AB]: "?|"$', "", choice)


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


def sciq(root: Path) -> Iterator[Row]:
    """School science; the paragraph that has the answer is left out."""
    for text, answer in t0(root, "sciq_Multiple_Choice"):
        question, _, listed = text.rpartition("Q: ")[2].partition("Choices:")
        choices = [part.strip() for part in listed.removesuffix("A:").split("\n- ")[1:]]
        if answer in choices and len(set(choices)) == len(choices):
            yield row(question, choices, choices.index(answer))


def paraphrase(root: Path) -> Iterator[Row]:
    """Pairs of questions or sentences: do they mean the same?"""
    for template in ("glue_qqp_duplicate", "paws_labeled_final_Meaning"):
        for text, label in t0(root, template):
            choices = ("yes", "no") if label.islower() else ("Yes", "No")
            yield row(text, choices, choices.index(label))
    choices = ("equivalent", "not equivalent")
    for text, label in t0(root, "glue_mrpc_equivalent"):
        yield row(text, choices, choices.index(label))


def gigaword(root: Path) -> Iterator[Row]:
    """Headlines of news sentences."""
    for text, headline in t0(root, "gigaword_make_a_title"):
        yield {"instruction": text, "response": headline}


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

    Args:
        root: Folder of flan_cot/, t0/ and gsm8k/.

    Raises:
        DataError: A source lacks questions.
        OSError: A file is missing.
    """
    pools = {
        "ecqa": distinct(flan(root, "ecqa")), "sensemaking": distinct(flan(root, "sensemaking")),
        "situation": distinct(situation(root)), "paraphrase": distinct(paraphrase(root)),
        "sciq": distinct(sciq(root)), "gigaword": distinct(gigaword(root)),
        "gsm8k": distinct(gsm8k(root, "train")),
    }  # fmt: skip
    files: dict[str, list[Row]] = {"test": [], "test-half": [], "dev": []}
    for source, pool in pools.items():
        tests, devs, *sizes = COUNTS[source]
        random.Random(f"{source} split").shuffle(pool)
        if source == "gsm8k":
            held = distinct(gsm8k(root, "test"))
            random.Random("gsm8k test").shuffle(held)
        else:
            held, pool = pool[:tests], pool[tests:]
        files["test"] += named(source, held[:tests])
        files["test-half"] += named(source, held[: tests // 2])
        files["dev"] += named(source, pool[:devs])
        rest = pool[devs:]
        if len(rest) < max(sizes):
            raise DataError(
                f"{source}: {len(rest)} questions are left for training, of {max(sizes)}; give the whole data set"
            )
        for size, count in zip(SIZES, sizes, strict=True):
            for draw in DRAWS:
                drawn = random.Random(f"{source} {draw}").sample(rest, len(rest))[:count]
                files.setdefault(f"train-{size}-{draw}", []).extend(named(source, drawn))
    return files


def named(source: str, rows: Iterable[Row]) -> list[Row]:
    """The rows, each with its source."""
    return [{**each, "source": source} for each in rows]


def write(root: Path, folder: Path) -> None:
    """Writes all files of `build` into a folder, as JSON lines."""
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
