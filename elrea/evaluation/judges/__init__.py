"""The judges: each module here decides whether a generated text is right, and is found by its name.

`Example.judge` names the module. It defines `judge(text, example) -> Judged` and may define `check(example)`, which
raises DataError for an example that it cannot judge. A judge reads the answer from the text without looking at the
right answer, and compares the two afterwards. `Judged.why` says in a few words how. `elrea.evaluation.judge` finds the
modules, and leaves think blocks out of a text before it is judged (`evaluation.think`).
"""
