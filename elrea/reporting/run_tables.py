"""Rows of report.html's tables: figures by source, the data, the clusters, and sample answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from elrea.method.ensemble.strategy import BACKBONE, BASE
from elrea.reporting.summary import routing_figures, shot_figures
from elrea.reporting.terminal import difference, percent

if TYPE_CHECKING:
    from elrea.data.examples import Example
    from elrea.evaluation.scoring import Outcome
    from elrea.reporting.report import Report

SAMPLES = 10
"""Test items whose answers are shown."""
SHOWN = 600
"""Maximum number of characters of a question or answer that are shown."""
ALL = "all items"
LARGEST = 4
"""Sources named for each cluster, and members for each sample."""

QUALITY = {
    "nmi_source": "agreement with the sources (NMI)",
    "nmi_category": "agreement with the categories (NMI)",
    "within": "mean cosine within clusters",
    "between": "mean cosine between clusters",
    "conflict": "share of negative cosines, all pairs",
    "conflict_within": "share of negative cosines within clusters",
    "silhouette": "silhouette",
    "stability_seeds": "stability over seeds (adjusted Rand index)",
    "stability_samples": "stability over samples (adjusted Rand index)",
}
"""Figures of a clustering (`elrea.method.clustering.quality`) in words."""

Table = tuple[list[str], list[tuple[str, ...]]]
"""The heads of the columns, and the rows."""


@dataclass(frozen=True)
class Sample:
    """A test item with what was answered.

    Attributes:
        id: Of the item.
        source: Of the item.
        question: The prompt: earlier turns and the instruction.
        reference: The right answer.
        answers: A row per strategy: its name, what it answered, "right" or "wrong".
        routing: The members with the largest weights, as "expert-1 0.65, base 0.20"; empty if no strategy routes.
    """

    id: str
    source: str
    question: str
    reference: str
    answers: list[tuple[str, str, str]]
    routing: str


def accuracy_by_source(report: Report) -> Table | None:
    """Accuracy in percent, a row per source and a column per strategy; the last rows are the mean over sources and
    over items, and over tasks if those are not the sources. Plain text, which has no right answer, is left out. None if
    there is one source."""

    def share(outcome: Outcome, items: Sequence[int]) -> float:
        return sum(outcome.correct[i] for i in items) / len(items)

    items = [i for i, example in enumerate(report.test) if not example.plain_text]
    table = _by_source(report, items, share, percent)
    count = len(set(report.tasks))
    if table and count > 1 and list(report.tasks) != [example.source for example in report.test]:
        macro = [percent(report.strategies.get(name, {}).get("macro")) for name in report.outcomes]
        table[1].append((f"mean over {count} tasks (macro)", "", *macro))
    return table


def loss_by_source(report: Report) -> Table | None:
    """The same for the loss in nats per token, of plain text too; None if there is no loss."""

    def mean(outcome: Outcome, items: Sequence[int]) -> float | None:
        losses = [loss for i in items if (loss := outcome.loss[i]) is not None]
        return sum(losses) / len(losses) if losses else None

    if not any(loss is not None for o in report.outcomes.values() for loss in o.loss):
        return None
    every = range(len(report.test))
    texts = "all items, plain text too" if len({e.plain_text for e in report.test}) > 1 else ALL
    return _by_source(
        report, every, mean, lambda loss: "-" if loss is None else f"{loss:.3f}", texts
    )


def _by_source(
    report: Report,
    items: Sequence[int],
    figure: Callable[[Outcome, Sequence[int]], float | None],
    shown: Callable[[float | None], str],
    total: str = ALL,
) -> Table | None:
    groups: dict[str, list[int]] = {}
    for i in items:
        groups.setdefault(report.test[i].source, []).append(i)
    if len(groups) < 2:
        return None
    outcomes = list(report.outcomes.values())
    by_source = {name: [figure(o, groups[name]) for o in outcomes] for name in sorted(groups)}
    rows = [
        (name, f"{len(groups[name]):,}", *map(shown, found)) for name, found in by_source.items()
    ]
    columns = [
        [x for x in column if x is not None] for column in zip(*by_source.values(), strict=True)
    ]
    means = [sum(column) / len(column) if column else None for column in columns]
    rows.append(("mean over sources", "", *map(shown, means)))
    rows.append((total, f"{len(items):,}", *(shown(figure(o, items)) for o in outcomes)))
    labels = [report.strategies.get(name, {}).get("label", name) for name in report.outcomes]
    return ["source", "items", *labels], rows


def data_rows(report: Report) -> list[tuple[str, str]]:
    """How many examples were used, dropped, too long, or have no feature: a name and a count."""
    rows = [
        ("training examples", f"{report.train:,}"),
        ("too long to train on (dropped)", f"{len(report.dropped):,}"),
        ("test items", f"{len(report.test):,}"),
        ("test prompts too long (count as wrong)", f"{len(report.too_long):,}"),
    ]
    shots = shot_figures(report).get("test_shots")
    if shots:
        rows.append(
            (
                f"test prompts without room for all {shots['wanted']} shots",
                f"{shots['prompts_with_fewer']:,}",
            )
        )
    for split, ids in report.skipped.items():
        if ids:
            rows.append((f"{split} prompts without a feature (zero gradient)", f"{len(ids):,}"))
    return rows


def cluster_table(report: Report) -> Table | None:
    """A row per cluster: training examples, test prompts nearest to it, and its largest sources. None without
    clusters."""
    grouping = report.grouping
    if grouping is None:
        return None
    nearest = routing_figures(report).get("nearest")
    total = max(1, int(grouping.counts.sum()))
    rows: list[tuple[str, ...]] = []
    for c in range(grouping.clusters):
        counts = grouping.counts[:, c]
        order = sorted(range(len(counts)), key=lambda s: -int(counts[s]))
        named = [f"{grouping.sources[s]} {counts[s]:,}" for s in order[:LARGEST] if counts[s]]
        more = int((counts > 0).sum()) - len(named)
        largest = ", ".join(named) + (f", and {more} more" if more > 0 else "")
        size = int(counts.sum())
        rows.append(
            (
                str(c),
                f"{size:,}",
                percent(size / total),
                f"{nearest[c]:,}" if nearest else "-",
                largest,
            )
        )
    return ["cluster", "training examples", "%", "nearest test prompts", "largest sources"], rows


def gate_tables(report: Report) -> list[tuple[str, Table]]:
    """By strategy that dev decided: a row per cluster with the gain of its expert over the trunk."""
    tables = []
    for name, gate in report.gates.items():
        unit = "points" if gate.measure == "correct" else "nats per token"
        rows = [
            (
                str(c),
                f"{v.examples:,}",
                *(difference(gate, gain) for gain in (v.difference, v.shrunk, v.low)),
                "the expert" if v.serves else "the trunk",
            )
            for c, v in enumerate(gate.clusters)
        ]
        heads = ["cluster", "dev examples", f"gain, {unit}", "shrunk", "lower bound", "serves"]
        tables.append((name, (heads, rows)))
    return tables


def quality_rows(report: Report) -> list[tuple[str, str]]:
    """`quality_in_words` of the run's clusters; empty without clusters."""
    if (grouping := report.grouping) is None:
        return []
    return quality_in_words(grouping.quality, grouping.categorised)


def categorised(examples: Iterable[Example]) -> bool:
    """Whether examples are of several categories."""
    return len({example.category for example in examples}) > 1


def quality_in_words(found: Mapping[str, Any], categories: bool) -> list[tuple[str, str]]:
    """Figures of a clustering in words; those that could not be computed are left out.

    Args:
        found: As `elrea.method.clustering.quality.quality` returns them.
        categories: Whether the training examples are of several categories: else agreement with them says nothing.
    """
    return [
        (text, f"{found[name]:.3f}")
        for name, text in QUALITY.items()
        if found.get(name) is not None and (categories or name != "nmi_category")
    ]


def samples(report: Report) -> Iterator[Sample]:
    """`SAMPLES` test items, evenly spaced over the test set, with the answers of `chosen`, base and backbone."""
    n = len(report.test)
    shown = [name for name in (report.chosen, BASE, BACKBONE) if name in report.outcomes]
    for i in sorted({k * n // SAMPLES for k in range(SAMPLES)}) if n else []:
        example = report.test[i]
        answers = []
        for name in dict.fromkeys(shown):
            outcome = report.outcomes[name]
            verdict = "" if example.plain_text else "right" if outcome.correct[i] else "wrong"
            answers.append((name, _answer(report, name, i), verdict))
        yield Sample(
            example.id,
            example.source,
            _cut("\n\n".join([*(text for _, text in example.history), example.instruction])),
            _cut(example.named(example.response)),
            answers,
            _members(report, i),
        )


def _answer(report: Report, name: str, i: int) -> str:
    """What a strategy answered to item i: its text, its choice, or the loss of the right answer."""
    outcome, example = report.outcomes[name], report.test[i]
    if outcome.text and (text := outcome.text[i]) is not None:
        return _cut(text)
    if (choice := outcome.choice[i]) is not None:
        return _cut(example.named(example.choices[choice]))
    if (loss := outcome.loss[i]) is not None:
        return f"(not generated; loss of the right answer {loss:.3f} nats per token)"
    return "(no answer: the prompt was too long)" if example.id in report.too_long else "-"


def _members(report: Report, i: int) -> str:
    if report.weights is None:
        return ""
    members, weights = report.weights
    named = Counter(dict(zip(members, weights[i].tolist(), strict=True)))
    return ", ".join(
        f"{name} {weight:.2f}" for name, weight in named.most_common(LARGEST) if weight
    )


def _cut(text: str) -> str:
    text = text.strip()
    return text if len(text) <= SHOWN else f"{text[:SHOWN].rstrip()} ..."


def values(report: Report) -> dict[str, Any]:
    """The tables of a run's report.html, by their names in its template."""
    return {
        "accuracies": accuracy_by_source(report),
        "losses": loss_by_source(report),
        "data": data_rows(report),
        "clusters": cluster_table(report),
        "quality": quality_rows(report),
        "gates": gate_tables(report),
        "samples": list(samples(report)),
    }
