"""The rows of this study: what is compared, what dev chooses from for each row, and which runs have which rows."""

from __future__ import annotations

from elrea.errors import DataError

FACTORS = {
    "elrea": (0.06, 0.25),
    "random_cluster": (0.06, 0.25),
    "continued": (0.06, 0.25, 0.5),
    "compute_matched": (0.5, 1.0, 0.25),
    "parameter_matched": (0.25, 0.12),
    "parameter_matched_rslora": (0.5, 0.25),
    "source": (0.5, 1.0, 2.0),
}
"""By row: the rates tried, as multiples of the base adapter's: two for all, a third beyond the better one for some.

With two clusters instead of four, which is what is found without `clustering.pca`, ELREA, its random clusters and
`parameter_matched` had 0.5 too and `parameter_matched_rslora` 1.0: it was the worst of theirs."""
OF_EXPERTS = ("random_cluster", "continued")
"""Rows whose `rate` is a multiple of `training.expert_learning_rate` instead."""
SHARED = {
    "compute_matched_passes": "compute_matched", "random_weighted": "random_cluster",
    "instruction_embedding": "elrea", "elrea_states": "elrea",
}  # fmt: skip
"""Rows that take another's rate: they train in the same way, on other groups or for longer."""
ROWS = (
    "backbone", "base", "compute_matched", "compute_matched_passes", "continued", "parameter_matched",
    "parameter_matched_rslora", "random_cluster", "random_weighted", "uniform", "source", "elrea_states",
    "instruction_embedding", "elrea", "elrea_top1", "elrea_one",
)  # fmt: skip
FIRST = (
    "backbone", "base", "continued", "random_cluster", "random_weighted", "uniform", "source", "elrea", "elrea_top1",
    "elrea_one",
)  # fmt: skip
"""Rows of `--rows first`: those that share their training with another, or train for as few steps as ELREA."""
MATCHED = ("compute_matched", "parameter_matched", "parameter_matched_rslora")
"""Rows that `--rows first` has in runs of their own, after the others: they cost most of what is left."""
DISTILLED = {"elrea_distilled": "elrea", "elrea_one_distilled": "elrea_one"}
"""Rows with a distilled router: the strategies that its own run has for them."""
JOINT = {
    "base_joint": "base", "random_cluster_joint": "random_cluster", "elrea_joint": "elrea",
    "elrea_top1_joint": "elrea_top1", "elrea_one_joint": "elrea_one",
}  # fmt: skip
"""Rows on a base adapter that is trained less, tuned together with the experts: the strategies that their run has."""
STEERED = ("steered", "steered_random")
"""Rows of one adapter that ELREA's clusters, or random ones of their sizes, steer; they have runs of their own."""
FORMS: tuple[dict[str, float], ...] = (
    {"rank": 8, "epochs": 2, "rate": 1.0}, {"rank": 8, "epochs": 2, "rate": 0.5}, {"epochs": 4, "rate": 0.25},
)  # fmt: skip
"""Of those rows: two are trained as the base adapter is, at its rate and at half of it; one has as many parameters as
all experts, and as many steps as base adapter and experts together, at the first rate of `parameter_matched`."""
BESIDE = {
    "distilled": DISTILLED, "matched": {row: row for row in MATCHED}, "steered": {row: row for row in STEERED},
    "joint": JOINT,
}  # fmt: skip
"""By the first word of a run's name: the rows that it adds to its seed's run, and the strategies it has for them."""
TRUNKS = ((2.5e-4, 2), (5e-4, 2), (1e-3, 1))
"""Rates and epochs of the base adapters that `JOINT` tries."""
EXPERT_RATES = (1.25e-4, 5e-4)
"""Experts' learning rates that are tried on each of them."""


def beside(name: str, kind: str) -> str:
    """Name of the run of `BESIDE` that belongs to a seed's run.

    Raises:
        DataError: It is not the name of such a run.
    """
    if not name.startswith("test-"):
        raise DataError(f"{name}: give the study's runs on test, as <work>/runs/test-small-4-0")
    return name.replace("test-", f"{kind}-", 1)
