"""The judges: each module here decides whether a generated text is right, and is found by its name.

`Example.judge` names the module. It defines `judge(text, example) -> Judged` and may define `check(example)`, which
raises DataError for an example that it cannot judge. A judge reads the answer from the text without looking at the
right answer, and compares the two afterwards. `elrea.evaluation.judge` finds the modules.
"""
