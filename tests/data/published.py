"""Small data sets in the layouts of the real ones: as published files, and as on the hub."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Rows = Sequence[dict[str, Any]]

GSM8K = {
    "train": [
        {
            "question": f"Ann has {i} pens and buys 1,000. How many has she?",
            "answer": f"She has {i}+1000=<<{i}+1000={i + 1000}>>{i + 1000}.\n#### {i + 1000:,}",
        }
        for i in range(6)
    ],
    "test": [{"question": "Tom eats 2 of 5 figs. How many are left?", "answer": "5-2=3\n#### 3"}],
}
SVAMP = [
    {
        "ID": f"chal-{i}",
        "Body": f"There are {i} cats" if i % 2 else f"There are {i} cats.",
        "Question": "How many ears are there?",
        "Equation": f"( 2.0 * {i}.0 )",
        "Answer": 2.0 * i,
        "Type": "Multiplication",
    }
    for i in range(1, 13)
]
MATHQA = {
    split: [
        {
            "Problem": f"a {split} train runs {i} km in 2 hours . its speed ?",
            "Rationale": f'"speed = {i} / 2 . answer : b"',
            "options": f"a ) 7 kmph , b ) {i} / 2 kmph , c ) rs . 5 , d ) 9 , e ) none of these",
            "correct": "b",
            "category": "physics",
        }
        for i in range(1, 5)
    ]
    for split in ("train", "dev", "test")
}
MATH = {
    split: [
        {
            "problem": f"What is ${i}+1$ ({split})?",
            "level": "Level 1",
            "type": subject,
            "solution": f"It is $\\boxed{{{i + 1}}}$, as $1+{i}={i + 1}$.",
        }
        for i, subject in enumerate(["Algebra", "Algebra", "Geometry"])
    ]
    for split in ("train", "test")
}
BBH = {
    "navigate": [
        {"input": f"Take {i} steps.\nOptions:\n- Yes\n- No", "target": "No"} for i in range(3)
    ],
    "word_sorting": [{"input": f"Sort: b{i} a{i}", "target": f"a{i} b{i}"} for i in range(2)],
}
PROMPT = """Not for training.
-----
What {task} asks.

Q: First?
A: Let's think step by step.
One thing. It is so.
So the answer is x y.

Q: Second?
Options:
- Yes
A: Let's think step by step. At once. So the answer is (B).

Q: Third?
A: Let's think step by step.
So the answer is -3.
"""
MMLU = {
    split: {
        subject: [
            (f"{subject} {split} {i}?", ("w", "x", "y", "z"), "ABCD"[i % 4]) for i in range(n)
        ]
        for subject in ("astronomy", "virology")
    }
    for split, n in (("dev", 5), ("val", 2), ("test", 3))
}
DOLLY = [
    {
        "instruction": f"What is {i}?",
        "context": f"{i} is a number." if i % 2 else "",
        "response": f"A number, {i}.",
        "category": "open_qa",
    }
    for i in range(10)
]
LESS = [
    {
        "dataset": name,
        "id": f"{name}_{i}",
        "messages": [
            {"role": "user", "content": f"{name} {i}?"},
            {"role": "assistant", "content": "Yes."},
        ],
    }
    for name in ("cot", "dolly")
    for i in range(5)
]


def message(name: str, parent: str | None, role: str, **more: Any) -> dict[str, Any]:
    """One of OpenAssistant's messages."""
    row = {
        "message_id": name,
        "parent_id": parent,
        "message_tree_id": "r1",
        "role": role,
        "text": f"<{name}>",
    }
    return {**row, "lang": "en", "deleted": False, "rank": None, **more}


OASST = [
    message("r1", None, "prompter"),
    message("a1", "r1", "assistant", rank=1),
    message("a0", "r1", "assistant", rank=0),
    message("q1", "a0", "prompter"),
    message("b1", "q1", "assistant"),
    message("q2", "a1", "prompter"),
    message("r2", None, "prompter", lang="de", message_tree_id="r2"),
    message("c1", "r2", "assistant", lang="de", message_tree_id="r2"),
    message("gone", "r2", "assistant", deleted=True, message_tree_id="r2"),
]
"""The threads r1 a0 q1 b1; r1 a1 (q2 has no answer); r2 c1."""


def trees() -> list[dict[str, Any]]:
    """The same messages as trees."""
    nodes: dict[str, dict[str, Any]] = {row["message_id"]: {**row, "replies": []} for row in OASST}
    roots = []
    for row in OASST:
        if row["parent_id"] is None:
            roots.append(nodes[row["message_id"]])
        else:
            nodes[row["parent_id"]]["replies"].insert(0, nodes[row["message_id"]])
    return [
        {"message_tree_id": root["message_id"], "tree_state": "ready_for_export", "prompt": root}
        for root in roots
    ]


def lines(path: Path, rows: Rows) -> None:
    """Write rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def save(name: str, folder: Path) -> Path:
    """Write a data set in its published layout."""
    folder.mkdir(parents=True, exist_ok=True)
    if name == "gsm8k":
        for split, rows in GSM8K.items():
            lines(folder / f"{split}.jsonl", rows)
    elif name == "svamp":
        (folder / "SVAMP.json").write_text(json.dumps(SVAMP, indent=1))
    elif name == "mathqa":
        for split, rows in MATHQA.items():
            (folder / f"{split}.json").write_text(json.dumps(rows, indent=1))
    elif name == "math":
        for split, rows in MATH.items():
            for i, row in enumerate(rows):
                file = folder / split / row["type"].lower() / f"{9 - i}.json"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(row))
    elif name == "bbh":
        for task, rows in BBH.items():
            (folder / "bbh").mkdir(exist_ok=True)
            (folder / "cot-prompts").mkdir(exist_ok=True)
            (folder / "bbh" / f"{task}.json").write_text(
                json.dumps({"canary": "x", "examples": rows})
            )
            (folder / "cot-prompts" / f"{task}.txt").write_text(PROMPT.format(task=task))
    elif name == "mmlu":
        for split, subjects in MMLU.items():
            (folder / split).mkdir()
            for subject, questions in subjects.items():
                with (folder / split / f"{subject}_{split}.csv").open("w", newline="") as stream:
                    csv.writer(stream).writerows([q, *options, a] for q, options, a in questions)
    elif name == "dolly":
        lines(folder / "databricks-dolly-15k.jsonl", DOLLY)
    elif name == "less":
        for part in ("cot", "dolly"):
            file = folder / "train" / "processed" / part / f"{part}_data.jsonl"
            lines(file, [row for row in LESS if row["dataset"] == part])
    elif name == "oasst":
        with gzip.open(folder / "x_ready.trees.jsonl.gz", "wt", encoding="utf-8") as stream:
            stream.writelines(json.dumps(tree) + "\n" for tree in trees())
    elif name == "flan_cot":
        for task, n in (("creak", 4), ("ecqa", 6)):
            table = [f"Is {i} so?\\nOptions:\\n- yes\tyes\tIt {{is}} {i}." for i in range(n)]
            (folder / f"{task}_train.tsv").write_text("\n".join(table) + "\n")
    else:
        raise KeyError(name)
    return folder


def on_hub(name: str) -> dict[tuple[str, str], Rows]:
    """(config, split) -> rows, with the columns that the hub's data set has."""
    if name == "gsm8k":
        return {("main", split): rows for split, rows in GSM8K.items()}
    if name == "svamp":  # an answer is a text there
        rows = [{**row, "Answer": str(row["Answer"])} for row in SVAMP]
        return {("default", "train"): rows[::-2], ("default", "test"): rows[::2]}
    if name == "mathqa":
        hub = {"dev": "validation"}
        return {("default", hub.get(split, split)): rows for split, rows in MATHQA.items()}
    if name == "math":
        return {
            (subject.lower(), split): [row for row in rows if row["type"] == subject]
            for split, rows in MATH.items()
            for subject in ("Algebra", "Geometry")
        }
    if name == "bbh":
        return {(task, "test"): rows for task, rows in BBH.items()}
    if name == "mmlu":
        hub = {"val": "validation"}
        return {
            ("all", hub.get(split, split)): [
                {
                    "question": q,
                    "subject": subject,
                    "choices": list(options),
                    "answer": "ABCD".index(a),
                }
                for subject, questions in subjects.items()
                for q, options, a in questions
            ]
            for split, subjects in MMLU.items()
        }
    if name == "dolly":
        return {("default", "train"): DOLLY}
    if name == "oasst":
        return {("default", "train"): OASST[:6], ("default", "validation"): OASST[6:]}
    raise KeyError(name)
