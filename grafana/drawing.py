"""The kinds of panels, drawn on axes of matplotlib: one function for each type, called as Grafana calls it."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.dates import DateFormatter

COLOURS = {"green": "#3a9d4f", "orange": "#e8912d", "red": "#d23c3c"}
SUFFIXES = {"mps": " msg/s", "cps": " /s", "ops": " op/s", "ms": " ms", "none": ""}
LEGEND = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True)
class Drawn:
    """The result of one query, and how its series are called."""

    legend: str
    result: list[dict[str, Any]]

    def name(self, metric: dict[str, str]) -> str:
        """The name of a series."""
        if self.legend == "__auto":
            return ", ".join(f"{key}={value}" for key, value in metric.items())
        return LEGEND.sub(lambda found: metric.get(found[1], ""), self.legend)


def text(value: float, unit: str) -> str:
    """A value as Grafana would write it, about."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s":
        for factor, name in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
            if abs(value) * factor >= 1 or name == "µs":
                return f"{value * factor:.3g} {name}" if value else "0 s"
    if unit in ("bytes", "Bps"):
        per = "/s" if unit == "Bps" else ""
        for factor, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
            if abs(value) >= factor:
                return f"{value / factor:.3g} {name}{per}"
        return f"{value:.3g} B{per}"
    return f"{value:.4g}{SUFFIXES[unit]}"


def nothing(axes: Axes) -> None:
    """What Grafana shows when there is nothing."""
    axes.axis("off")
    axes.text(0.5, 0.5, "No data", ha="center", va="center", color="grey")


def _steps(panel: dict[str, Any]) -> list[tuple[float, str]]:
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    return [(-np.inf if one["value"] is None else one["value"], COLOURS[one["color"]]) for one in steps]


def _unit(panel: dict[str, Any]) -> str:
    return panel["fieldConfig"]["defaults"]["unit"]


def _times(values: list[Any]) -> list[datetime]:
    return [datetime.fromtimestamp(float(when), UTC) for when, _ in values]


def timeseries(axes: Axes, panel: dict[str, Any], results: list[Drawn]) -> None:
    """Lines, or a stack of them."""
    unit = _unit(panel)
    stacked = panel["fieldConfig"]["defaults"]["custom"].get("stacking", {}).get("mode") == "normal"
    below: dict[float, float] = defaultdict(float)
    for drawn in results:
        for series in drawn.result:
            points = [(float(when), float(value)) for when, value in series["values"]]
            points = [(when, value) for when, value in points if not np.isnan(value)]
            times = _times(points)
            name = drawn.name(series["metric"])
            last = f"{name}   last {text(points[-1][1], unit)}" if points else f"{name}   never a number"
            if stacked:
                floor = [below[when] for when, _ in points]
                for when, value in points:
                    below[when] += value
                axes.fill_between(times, floor, [below[when] for when, _ in points], alpha=0.6, label=last)
            else:
                axes.plot(times, [value for _, value in points], linewidth=1.2, label=last)
    _, high = axes.get_ylim()
    for value, colour in _steps(panel)[1:]:
        if value <= max(high, 0) * 1.5:
            axes.axhline(value, color=colour, linestyle="--", linewidth=0.8)
    if panel["fieldConfig"]["defaults"]["custom"].get("scaleDistribution", {}).get("type") == "log":
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(lambda _value, _place: "")
    else:
        axes.set_ylim(0, None if axes.dataLim.y1 > 0 else 1)
    axes.yaxis.set_major_formatter(lambda value, _place: text(value, unit))
    _time_axis(axes)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.12), fontsize=7, ncols=2, frameon=False, borderaxespad=0)


def stat(axes: Axes, panel: dict[str, Any], results: list[Drawn]) -> None:
    """One number in the colour of its threshold."""
    axes.axis("off")
    values = [float(value) for _, value in results[0].result[0]["values"]]
    colour = [colour for limit, colour in _steps(panel) if values[-1] >= limit][-1]
    said = text(values[-1], _unit(panel))
    for mapping in panel["fieldConfig"]["defaults"].get("mappings", ()):
        if word := mapping["options"].get(f"{values[-1]:g}"):
            said, colour = word["text"], COLOURS[word["color"]]
    axes.text(0.5, 0.5, said, ha="center", va="center", fontsize=20, color=colour)


def heatmap(axes: Axes, panel: dict[str, Any], results: list[Drawn]) -> None:
    """A native histogram over time."""
    cells: dict[tuple[float, float], dict[float, float]] = defaultdict(dict)
    for when, histogram in results[0].result[0]["histograms"]:
        for _, low, high, count in histogram.get("buckets", ()):
            if float(low) > 0:
                cells[float(low), float(high)][float(when)] = float(count)
    times = sorted({when for column in cells.values() for when in column})
    edges = sorted({edge for bucket in cells for edge in bucket})
    counts = np.full((len(edges) - 1, len(times)), np.nan)
    for (low, high), column in cells.items():
        for when, count in column.items():
            counts[edges.index(low) : edges.index(high), times.index(when)] = count
    dates = [datetime.fromtimestamp(when, UTC) for when in (*times, 2 * times[-1] - times[-2])]
    axes.pcolormesh(dates, edges, counts, norm=LogNorm(), cmap="Oranges")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _place: text(value, _unit(panel)))
    is_narrow = edges[-1] < 20 * edges[0]
    axes.yaxis.set_minor_formatter(lambda value, _place: text(value, _unit(panel)) if is_narrow else "")
    _time_axis(axes)


def table(axes: Axes, panel: dict[str, Any], results: list[Drawn]) -> None:
    """Rows of labels, and the value."""
    axes.axis("off")
    (organize,) = (one["options"] for one in panel["transformations"] if one["id"] == "organize")
    names = dict(sorted(organize["renameByName"].items(), key=lambda one: organize["indexByName"][one[0]]))
    units = {one["matcher"]["options"]: one["properties"][0]["value"] for one in panel["fieldConfig"]["overrides"]}
    rows = [
        [
            text(float(one["value"][1]), units.get(title, _unit(panel)))
            if label.startswith("Value")
            else " ".join(one["metric"].get(label, "").split())  # as a browser does
            for label, title in names.items()
        ]
        for one in results[0].result
    ]
    drawn = axes.table(sorted(rows), colLabels=list(names.values()), loc="upper center", cellLoc="left", edges="B")
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(8)
    drawn.scale(1, 1.2)


def nodegraph(axes: Axes, panel: dict[str, Any], results: list[Drawn]) -> None:
    """Nodes in columns from the sources to the sinks; both queries have to give what the panel of Grafana needs."""
    axes.axis("off")
    unit = _unit(panel)
    nodes = {one["metric"]["id"]: one for one in results[0].result}
    edges = [(one["metric"], float(one["value"][1])) for one in results[1].result]
    column = dict.fromkeys(nodes, 0)
    for _ in nodes:
        for edge, _rate in edges:
            column[edge["target"]] = max(column[edge["target"]], column[edge["source"]] + 1)
    columns: dict[int, list[str]] = defaultdict(list)
    for node in sorted(nodes):
        columns[column[node]].append(node)
    place = {
        node: (at, 1 - (row + 1) / (len(members) + 1))
        for at, members in columns.items()
        for row, node in enumerate(members)
    }
    for edge, rate in edges:
        (x1, y1), (x2, y2) = place[edge["source"]], place[edge["target"]]
        axes.annotate("", (x2 - 0.13, y2), (x1 + 0.13, y1), arrowprops={"arrowstyle": "->", "color": "grey"})
        said = text(rate, unit) + (f"\n{edge['secondarystat']} ms" if "secondarystat" in edge else "")
        axes.text((x1 + x2) / 2, (y1 + y2) / 2 + 0.03, said, ha="center", fontsize=8)
    for node, (x, y) in place.items():
        said = f"{nodes[node]['metric']['title']}\n{text(float(nodes[node]['value'][1]), unit)}"
        axes.text(x, y, said, ha="center", va="center", bbox={"boxstyle": "round", "facecolor": "#dfeaf7"}, fontsize=9)
    axes.set_xlim(-0.3, max(columns) + 0.3)
    axes.set_ylim(0, 1)


def _time_axis(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M:%S"))
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
