"""Builds Grafana's JSON from the tables in `boards.py` and `panels.py`.

    python dashboards/build.py            write dashboards/*.json
    python dashboards/build.py --check    change nothing; exit 1 if a file is not what the tables give

The JSON is for Grafana 11.6 and newer; the data source, job and instance are variables, so it is imported as it is.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders import prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models

from dashboards.boards import BOARDS
from dashboards.panels import Board, Panel, Query
from dashboards.queries import rate

__all__ = ["main", "rendered"]

FOLDER: Final = Path(__file__).parent
SOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="$datasource")
# Every worker has it, whether its agent answers or not: so it lists all jobs and instances, and no others.
LISTED_BY: Final = "diagnostics_agent_up"
COLUMNS: Final = 24  # of Grafana's grid
STAT_HEIGHT, GRAPH_HEIGHT, AXIS_HEIGHT = 4, 8, 6


def main(argv: list[str] | None = None) -> int:
    """Write the files, or with --check compare them. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="dashboards/build.py", description="Build the Grafana dashboards.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a file is not up to date")
    check = parser.parse_args(argv).check
    stale = []
    for name, text in rendered().items():
        path = FOLDER / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.write_text(text, encoding="utf-8")
            print(path)
    if check and stale:
        print(f"not up to date: {', '.join(stale)}; run python dashboards/build.py", file=sys.stderr)
        return 1
    return 0


def rendered() -> dict[str, str]:
    """File name -> its text, for every dashboard."""
    return {f"{board.uid.removeprefix('highwater-')}.json": _text(board) for board in BOARDS}


def _text(board: Board) -> str:
    document: dict[str, Any] = json.loads(JSONEncoder().encode(_dashboard(board).build()))
    for annotation in document["annotations"]["list"]:
        # Fields of Prometheus annotations, which the SDK's model of them leaves out.
        annotation |= {"titleFormat": "{{kind}} capture: {{outcome}}", "tagKeys": "kind,outcome", "step": "15s"}
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _dashboard(board: Board) -> dashboards.Dashboard:
    built = (
        dashboards.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["highwater"])
        .readonly()  # changed here, in the tables, not in a browser where nobody finds it again
        .tooltip(models.DashboardCursorSync.TOOLTIP if board.one_instance else models.DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .with_variable(dashboards.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_variable("job", f"label_values({LISTED_BY}, job)", several=True))
        .with_variable(
            _variable("instance", f'label_values({LISTED_BY}{{job=~"$job"}}, instance)', several=not board.one_instance)
        )
        .annotation(_captures())
        .link(dashboards.DashboardLink("Highwater").type(models.DashboardLinkType.DASHBOARDS).tags(["highwater"])
              .as_dropdown(True).include_vars(True).keep_time(True))
    )  # fmt: skip
    number = 0
    for row in board.rows:
        built.with_row(dashboards.Row(row.title))
        for panel in row.panels:
            number += 1
            width = COLUMNS if board.one_instance else COLUMNS // len(row.panels)
            height = STAT_HEIGHT if panel.kind == "stat" else AXIS_HEIGHT if board.one_instance else GRAPH_HEIGHT
            graph = _stat(panel) if panel.kind == "stat" else _timeseries(panel)
            built.with_panel(graph.id(number).span(width).height(height))
    return built


def _variable(name: str, query: str, *, several: bool) -> dashboards.QueryVariable:
    variable = (
        dashboards.QueryVariable(name)
        .label(name.capitalize())
        .query(query)
        .datasource(SOURCE)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)  # an instance that has gone is found in its own time
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(several)
        .include_all(several)
    )
    return variable.all_value(".+") if several else variable


def _captures() -> dashboards.AnnotationQuery:
    """A capture slows the service down: it must be seen beside the figures that it moves."""
    return (
        dashboards.AnnotationQuery()
        .name("Captures")
        .datasource(SOURCE)
        .enable(True)
        .icon_color("purple")
        .expr(f"sum by (instance, worker, kind, outcome) ({rate('diagnostics_captures_total')}) > 0")
    )


def _timeseries(panel: Panel) -> timeseries.Panel:
    built = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.description)
        .datasource(SOURCE)
        .unit(panel.unit)
        .line_width(1)
        .fill_opacity(30 if panel.stacked else 8)
        .show_points(common.VisibilityMode.NEVER)
        .tooltip(common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.TABLE)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
    )  # fmt: skip
    if not any(":deriv" in query.expr for query in panel.queries):
        built.min(0)  # only a slope is ever below
    if panel.stacked:
        built.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    if panel.thresholds:
        built.thresholds(_thresholds(panel)).thresholds_style(
            common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        )
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        built.with_target(_target(letter, query))
    return built


def _stat(panel: Panel) -> stat.Panel:
    built = (
        stat.Panel()
        .title(panel.title)
        .description(panel.description)
        .datasource(SOURCE)
        .unit(panel.unit)
        .color_mode(common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.AREA)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_thresholds(panel))
    )
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        built.with_target(_target(letter, query))
    return built


def _thresholds(panel: Panel) -> dashboards.ThresholdsConfig:
    steps = [models.Threshold(value=None, color="green")]
    steps += [models.Threshold(value=value, color=color) for value, color in panel.thresholds]
    return dashboards.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _target(letter: str, query: Query) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .ref_id(letter)
        .datasource(SOURCE)
        .expr(query.expr)
        .legend_format(query.legend)
        .range()
        .exemplar(query.exemplar)
    )


if __name__ == "__main__":
    sys.exit(main())
