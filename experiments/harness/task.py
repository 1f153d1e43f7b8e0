"""Writes a run's test questions as a local task of lm-eval: FOLDER/<name>.yaml and FOLDER/<name>.jsonl.

python experiments/harness/task.py outputs/<day>/<time> --out FOLDER
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from elrea.commands.exit import one_line_errors
from elrea.errors import DataError
from elrea.store.files import write_text

TASK = """# Made from {run} by experiments/harness/task.py.
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: prompt
doc_to_choice: choices
doc_to_target: answer
target_delimiter: ""  # the choices begin with the space that the project's prompts have before an answer
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""


def write_task(run: Path, out: Path, name: str = "elrea_exam") -> int:
    """Writes the questions that a run was scored on, and the task file.

    Args:
        run: A run's folder; its `config.yaml` names the data.
        out: The folder for lm-eval's `--include_path`.
        name: Name of the task.

    Returns:
        The number of questions.

    Raises:
        ElreaError: The config or its data cannot be read, or a question does not fit the task: it has no choices, or
            it has earlier turns or shots, which lm-eval would pass to routing as a part of the question.
    """
    from elrea.data.templates import separator
    from elrea.pipeline.assemble import experiment_of

    experiment = experiment_of(run)[0]
    corpus = experiment.corpus
    lines = []
    for example in corpus.dev if experiment.evaluation.split == "dev" else corpus.test:
        if not example.choices or example.shots or example.history:
            raise DataError(
                f"{example.id}: a task needs plain multiple choice, and this question has no choices, or has shots or "
                "earlier turns"
            )
        prompt = "\n\n".join(text for text in (example.header, example.instruction) if text)
        space = separator(prompt)
        row = {
            "id": example.id,
            "source": example.source,
            "category": example.category,
            "prompt": prompt,
            "choices": [space + choice for choice in example.choices],
            "answer": example.answer,
        }
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    data = (out / f"{name}.jsonl").resolve()
    write_text(data, "".join(lines))
    task = TASK.format(run=run, name=name, data=json.dumps(str(data)))
    write_text(out / f"{name}.yaml", task)
    return len(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run's folder, as outputs/<day>/<time>")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the task to")
    parser.add_argument("--name", default="elrea_exam", help="name of the task (elrea_exam)")
    given = parser.parse_args()
    count = write_task(given.run, given.out, given.name)
    print(f"{count:,} questions: lm-eval's --tasks {given.name} --include_path {given.out}")


if __name__ == "__main__":
    with one_line_errors():
        main()
