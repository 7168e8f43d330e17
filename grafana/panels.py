"""What all dashboards are made of: data sources, variables, queries, and the five kinds of panels, each with what a
person needs to read it: a unit, what to conclude, from where on it is bad, and where to look next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import common, heatmap, nodegraph, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heat_kinds
from grafana_foundation_sdk.models.common import DataSourceRef
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PROMETHEUS = DataSourceRef("prometheus", "ezmsg-prometheus")
TEMPO = DataSourceRef("tempo", "ezmsg-tempo")
WIDTH = 24

D = "messaging_destination_name"
S = "messaging_destination_subscription_name"
K = "ezmsg_channel_kind"
UNIT = "ezmsg_unit_address"
TASK = "ezmsg_task_name"
PROCESS = "ezmsg_process_name"
CHANGED = 'ezmsg_settings_event!="INITIAL_SETTINGS"'

# The dashboards in the order a person debugs, with the variables a link hands over.
TITLES = {
    "overview": "1 · Overview",
    "edge": "2 · Edge",
    "unit": "3 · Unit",
    "process": "4 · Process",
    "control": "5 · Control plane",
    "health": "6 · Telemetry health",
}

Steps = tuple[float | None, float | None]
"""From where on a value is doubtful, and from where on it is bad."""
NEVER_BAD: Steps = (None, None)


def uid(name: str) -> str:
    """The uid of a dashboard."""
    return f"ezmsg-{name}"


def rate(metric: str, labels: str = "") -> str:
    """How fast a counter grows, or the native histogram of the last interval, of the graph that was chosen."""
    return f"rate({of_graph(metric, labels)}[$__rate_interval])"


def grown(metric: str, by: str, labels: str = "", window: str = "5m", *, is_histogram: bool = False) -> str:
    """By how much a counter has grown lately.

    For what is rare: the first occurrence counts, which `rate` and `increase` do not see, for its series has no past.
    """

    now, before = of_graph(metric, labels), f"{of_graph(metric, labels)} offset {window}"
    if is_histogram:
        now, before = f"histogram_count({now})", f"histogram_count({before})"
    return f"sum by ({by}) (clamp_min({now} - ({before} or 0 * {now}), 0))"


def of_graph(metric: str, labels: str = "") -> str:
    """A metric of the graph that was chosen."""
    return f'{metric}{{job="$graph"{f", {labels}" if labels else ""}}}'


def rates(metric: str, by: str, labels: str = "") -> str:
    """The rates of a metric, added up by labels."""
    return f"sum by ({by}) ({rate(metric, labels)})"


def quantile(q: float, metric: str, by: str, labels: str = "") -> str:
    """A quantile of a native histogram."""
    return f"histogram_quantile({q:g}, {rates(metric, by, labels)})"


def shown(label: str) -> str:
    """The value of a label in the name of a series."""
    return f"{{{{{label}}}}}"


@dataclass(frozen=True)
class Query:
    """One query; `legend` names its series. `exemplars`: dots that lead to traces."""

    expr: str
    legend: str = ""
    exemplars: bool = False

    def over_time(self) -> prometheus.Dataquery:
        """As a line over the time that is shown."""
        return self._query().range().exemplar(self.exemplars)

    def at_once(self, table: bool) -> prometheus.Dataquery:
        """Its value now."""
        format = PromQueryFormat.TABLE if table else PromQueryFormat.TIME_SERIES
        return self._query().instant().format(format)

    def as_heat(self) -> prometheus.Dataquery:
        """As a histogram over the time that is shown."""
        return self._query().range().exemplar(self.exemplars).format(PromQueryFormat.HEATMAP)

    def _query(self) -> prometheus.Dataquery:
        return prometheus.Dataquery().expr(self.expr).legend_format(self.legend or "__auto").datasource(PROMETHEUS)


def both_ends(metric: str, by: str, labels: str, name: str) -> tuple[Query, Query]:
    """The median and the slow end of a native histogram."""
    return (
        Query(quantile(0.5, metric, by, labels), f"{name} p50"),
        Query(quantile(0.99, metric, by, labels), f"{name} p99"),
    )


@dataclass(frozen=True)
class Panel:
    """What every panel has. `leads_to` is the dashboard to look at next, `handing` what it is told of a series."""

    title: str
    says: str
    unit: str
    leads_to: str
    bad: Steps = NEVER_BAD
    span: int = 12
    height: int = 8
    handing: tuple[tuple[str, str], ...] = ()
    decimals: int | None = None

    def dress(self, panel: Any) -> Any:
        """Give a panel of the SDK all of that."""
        made = panel.title(self.title).description(self.says).unit(self.unit).datasource(PROMETHEUS)
        made = made.span(self.span).height(self.height).thresholds(steps(self.bad))
        made = made.links([link(self.leads_to)])
        if self.handing:
            made = made.data_links([link(self.leads_to, self.handing)])
        return made if self.decimals is None else made.decimals(self.decimals)


def lines(
    about: Panel, *queries: Query, stacked: bool = False, is_log: bool = False, maximum: float | None = None
) -> timeseries.Panel:
    """Lines over time."""
    panel: timeseries.Panel = about.dress(timeseries.Panel()).targets(numbered(q.over_time() for q in queries))
    if is_log:
        panel = panel.scale_distribution(common.ScaleDistributionConfig().type(kinds.ScaleDistribution.LOG).log(10))
    else:
        panel = panel.min(0)
    panel = panel.line_width(1).fill_opacity(25 if stacked else 5).show_points(kinds.VisibilityMode.AUTO)
    legend = (
        common.VizLegendOptions().display_mode(kinds.LegendDisplayMode.TABLE).placement(kinds.LegendPlacement.BOTTOM)
    )
    panel = panel.legend(legend.calcs(["lastNotNull", "max"]).show_legend(True))
    panel = panel.tooltip(
        common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI).sort(kinds.SortOrder.DESCENDING)
    )
    if maximum is not None:
        panel = panel.max(maximum)
    if about.bad != NEVER_BAD:
        style = common.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds_style(style)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(kinds.StackingMode.NORMAL).group("A"))
    return panel


def number(about: Panel, query: Query, words: Mapping[str, tuple[str, str]] | None = None) -> stat.Panel:
    """One number, coloured by how bad it is, with its past behind it; `words` are for values, with a colour each."""
    panel: stat.Panel = about.dress(stat.Panel()).targets(numbered([query.over_time()]))
    reduce = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    panel = panel.reduce_options(reduce).graph_mode(kinds.BigValueGraphMode.AREA)
    if words:
        said = {value: model.ValueMappingResult(text, colour) for value, (text, colour) in words.items()}
        panel = panel.mappings([model.ValueMap(options=said)])
    return panel.color_mode(kinds.BigValueColorMode.VALUE).text_mode(kinds.BigValueTextMode.AUTO)


def heat(about: Panel, query: Query) -> heatmap.Panel:
    """A native histogram over time, with exemplars."""
    panel: heatmap.Panel = about.dress(heatmap.Panel()).targets(numbered([query.as_heat()]))
    colours = heatmap.HeatmapColorOptions().mode(heat_kinds.HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    axis = heatmap.YAxisConfig().unit(about.unit)
    return panel.calculate(False).color(colours).y_axis(axis).exemplars_color("rgba(31,96,196,0.9)")


def listing(
    about: Panel, *queries: Query, columns: Mapping[str, str], sort_by: str, units: Mapping[str, str] | None = None
) -> table.Panel:
    """A table of what there is now: `columns` are the labels and `Value #A` … to show, and how to call them."""
    panel: table.Panel = about.dress(table.Panel()).targets(numbered(q.at_once(table=True) for q in queries))
    panel = panel.with_transformation(model.DataTransformerConfig("merge", options={}))
    names = list(columns)
    shown = {
        "includeByName": dict.fromkeys(names, True),
        "renameByName": dict(columns),
        "indexByName": {name: place for place, name in enumerate(names)},
    }
    panel = panel.with_transformation(model.DataTransformerConfig("organize", options=shown))
    for column, unit in (units or {}).items():
        panel = panel.override_by_name(column, [model.DynamicConfigValue("unit", unit)])
    return panel.sort_by([common.TableSortByFieldState().display_name(sort_by).desc(True)])


def topology(about: Panel, nodes: Query, edges: Query) -> nodegraph.Panel:
    """A graph; the labels of both queries are called as the panel wants them, values become the main statistics."""
    panel: nodegraph.Panel = about.dress(nodegraph.Panel())
    panel = panel.targets(numbered([nodes.at_once(table=True), edges.at_once(table=True)]))
    renamed = {"regex": "Value.*", "renamePattern": "mainstat"}
    panel = panel.with_transformation(model.DataTransformerConfig("renameByRegex", options=renamed))
    options = nodegraph.NodeOptions().main_stat_unit(about.unit)
    edge_options = nodegraph.EdgeOptions().main_stat_unit(about.unit).secondary_stat_unit("ms")
    return panel.nodes(options).edges(edge_options)


def steps(bad: Steps) -> build.ThresholdsConfig:
    """Green, then orange, then red."""
    made = [model.Threshold(None, "green")]
    made += [
        model.Threshold(value, colour)
        for value, colour in zip(bad, ("orange", "red"), strict=True)
        if value is not None
    ]
    return build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(made)


def link(name: str, handing: Sequence[tuple[str, str]] = ()) -> build.DashboardLink:
    """To another dashboard, at the same time and graph; with values of a series for its variables."""
    values = "".join(f"&var-{variable}=${{__field.labels.{label}}}" for variable, label in handing)
    url = f"/d/{uid(name)}?${{__url_time_range}}&var-graph=${{graph}}{values}"
    return (
        build.DashboardLink(f"Look at {TITLES[name]}").type(model.DashboardLinkType.LINK).url(url).target_blank(False)
    )


def numbered(queries: Any) -> list[prometheus.Dataquery]:
    """Queries with the letters Grafana tells them apart by."""
    return [query.ref_id(chr(ord("A") + place)) for place, query in enumerate(queries)]


def variable(name: str, label: str, says: str, query: str, *, all_of_them: bool = True) -> build.QueryVariable:
    """A variable whose values Prometheus knows."""
    made = build.QueryVariable(name).label(label).description(says).datasource(PROMETHEUS)
    made = made.query({"query": query, "refId": name}).definition(query)
    made = made.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(model.VariableSort.ALPHABETICAL_ASC)
    return made.include_all(True).all_value(".*").multi(True) if all_of_them else made


def board(name: str, says: str, *variables: build.QueryVariable) -> build.Dashboard:
    """An empty dashboard with what all of them have."""
    made = build.Dashboard(f"ezmsg {TITLES[name]}").uid(uid(name)).description(says).tags(["ezmsg"]).readonly()
    made = made.time("now-30m", "now").refresh("10s").timezone("browser").tooltip(model.DashboardCursorSync.CROSSHAIR)
    made = made.with_variable(
        variable(
            "graph",
            "Graph",
            "The service.name of a graph",
            "label_values(ezmsg_graph_process_count, job)",
            all_of_them=False,
        )
    )
    for one in variables:
        made = made.with_variable(one)
    for other, title in TITLES.items():
        if other != name:
            to = build.DashboardLink(title).type(model.DashboardLinkType.LINK).url(f"/d/{uid(other)}")
            made = made.link(to.keep_time(True).include_vars(True).target_blank(False))
    return made.annotation(
        annotation("Alerts", 'ALERTS{alertstate="firing", job="$graph"}', "{{alertname}}", "red")
    ).annotation(
        annotation(
            "Settings",
            settings_just_changed(),
            f"settings of {shown(UNIT)}",
            "blue",
        )
    )


def filled(empty: build.Dashboard, *panels: Any) -> build.Dashboard:
    """A dashboard with panels, in this order."""
    for panel in panels:
        empty = empty.with_panel(panel)
    return empty


def settings_changes(labels: str = "") -> str:
    """How often the settings of units have changed since they began."""
    return f"sum by ({UNIT}) ({of_graph('ezmsg_settings_updates_total', ', '.join(filter(None, (CHANGED, labels))))})"


def settings_just_changed() -> str:
    """Units whose settings changed just now."""
    return f"{grown('ezmsg_settings_updates_total', UNIT, CHANGED, '30s')} > 0"


def annotation(name: str, expr: str, title: str, colour: str) -> build.AnnotationQuery:
    """Marks on the time axis where a query has values."""
    made = build.AnnotationQuery().name(name).datasource(PROMETHEUS).enable(True).icon_color(colour)
    return made.expr(expr).title_format(title).step("10s").use_value_for_time(False)
