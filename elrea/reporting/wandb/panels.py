"""Panels of the W&B dashboard. They refer to the metrics that `elrea.reporting.wandb.run` logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from elrea.method.ensemble.strategy import BASE

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

MOST_RUNS = 200
"""Maximum number of runs in a panel."""
COLUMNS = (
    "strategy", "accuracy", "delta_to_base", "cluster_count", "forward_passes", "seconds_making",
    "seconds_run", "w_base",
    "routing_entropy", "gradient_conflict",
)  # fmt: skip
"""Pinned columns of the list of runs: the figures of `elrea.reporting.wandb.run.headline`."""


def workspace(
    entity: str, project: str, group: str | None, strategies: Sequence[str], against: str
) -> Workspace:
    """Builds the dashboard of a project, or of one sweep in it, without network access.

    Args:
        entity: W&B user or team.
        project: Project of the entity.
        group: `<day>/<time>` of a sweep; None shows every run of the project.
        strategies: Strategies with their own panels; runs that did not score one are missing in its panel.
        against: The config key that the sweep varies, e.g. clustering.k.

    Raises:
        ImportError: The extra `dashboard` is not installed.
    """
    from wandb_workspaces import expr
    from wandb_workspaces import workspaces as ws

    filters: list[Any] = [expr.Metric("Group") == group] if group else []
    settings = ws.RunsetSettings(
        filters=filters, pinned_columns=[f"summary:{name}" for name in COLUMNS]
    )
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"ELREA {group}" if group else "ELREA",
        sections=[_accuracy(strategies, against), _cost(strategies), _clusters(), _routing(), _training()],
        settings=ws.WorkspaceSettings(max_runs=MOST_RUNS),
        runset_settings=settings,
    )  # fmt: skip


def _accuracy(strategies: Sequence[str], against: str) -> Section:
    import wandb_workspaces.reports.v2 as wr

    varied_key = wr.Config(against)
    return _section(
        f"Accuracy against {against}",
        # From the table `results` of every run: a line per strategy, vertical where there are several seeds.
        _lines("clusters", "accuracy", "Accuracy against C, by strategy"),
        wr.BarPlot(
            title=f"Accuracy by {against}: mean and range over seeds", groupby=varied_key, groupby_aggfunc="mean",
            groupby_rangefunc="minmax", metrics=[f"strategies.{name}.accuracy" for name in strategies],
        ),
        wr.ScatterPlot(title=f"Chosen strategy: accuracy against {against}", x=varied_key, y="accuracy"),
        *(
            wr.ScatterPlot(title=f"{name}: accuracy against C", x="cluster_count", y=f"strategies.{name}.accuracy")
            for name in strategies
        ),
    )  # fmt: skip


def _cost(strategies: Sequence[str]) -> Section:
    import wandb_workspaces.reports.v2 as wr

    return _section(
        "Cost against accuracy",
        _lines("forward_passes", "accuracy", "Accuracy against forward passes per prompt, by strategy"),
        wr.ScatterPlot(title="Accuracy against forward passes", x="forward_passes", y="accuracy"),
        wr.ScatterPlot(title="Accuracy against the time of making all stages (s)", x="seconds_making", y="accuracy"),
        *(
            wr.ScatterPlot(
                title=f"{name}: gain on base against forward passes", x=f"strategies.{name}.forward_passes",
                y=f"strategies.{name}.delta_to_base",
            )
            for name in strategies if name != BASE
        ),
        wr.WeavePanelSummaryTable(table_name="results"),
    )  # fmt: skip


def _clusters() -> Section:
    import wandb_workspaces.reports.v2 as wr

    return _section(
        "Clusters",
        wr.MediaBrowser(title="Training examples by source and cluster", media_keys=["plots/clusters"]),
        wr.MediaBrowser(title="Features", media_keys=["plots/features"]),
        wr.WeavePanelSummaryTable(table_name="cluster_table"),
        wr.ScatterPlot(title="Gain against gradient conflict", x="gradient_conflict", y="delta_to_base"),
        wr.ScatterPlot(title="Agreement with the sources against C", x="cluster_count", y="clusters.nmi_source"),
    )  # fmt: skip


def _routing() -> Section:
    import wandb_workspaces.reports.v2 as wr

    return _section(
        "Routing",
        wr.MediaBrowser(title="Routing weights by source", media_keys=["plots/routing"]),
        wr.ScatterPlot(title="Gain against w_base", x="w_base", y="delta_to_base"),
        wr.ScatterPlot(title="Entropy of the routing weights against C", x="cluster_count", y="routing_entropy"),
        wr.WeavePanelSummaryTable(table_name="predictions"),
    )  # fmt: skip


def _training() -> Section:
    import wandb_workspaces.reports.v2 as wr

    adapters = (BASE, "expert-0", "expert-1")  # exist for any number of clusters
    return _section(
        "Training",
        *(wr.LinePlot(title=f"{name}: loss", x=f"{name}/step", y=[f"{name}/loss"]) for name in adapters),
        wr.MediaBrowser(title="All adapters", media_keys=["plots/training"]),
    )  # fmt: skip


def _lines(x: str, y: str, title: str) -> Any:
    """A line chart of the tables `results` of all visible runs."""
    import wandb_workspaces.reports.v2 as wr

    return wr.CustomChart(
        query={"summaryTable": {"tableKey": "results"}},
        chart_name="wandb/lineseries/v0",
        chart_fields={"step": x, "lineKey": "strategy", "lineVal": y},
        chart_strings={"title": title, "xname": x},
    )


def _section(name: str, *panels: Any) -> Section:
    from wandb_workspaces import workspaces as ws

    return ws.Section(name=name, panels=list(panels), is_open=True)
