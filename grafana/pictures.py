"""Draws dashboards from a Prometheus, as far as that can be done without Grafana.

    python -m grafana.pictures DIRECTORY

A tool for whoever changes a dashboard: does each panel say what it should, can a person read it. It plays the scenario
of the tests, for STACK_SECONDS, and draws what came of it; then what does not survive, into DIRECTORY/troubled. With
`--prometheus URL` it draws the last minutes of that one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes

from deploy.testing import scenario, troubles
from deploy.testing.binaries import ensure
from deploy.testing.promql import Prometheus
from grafana import drawing
from grafana.drawing import Drawn
from grafana.queries import dashboards, of_panel

COLUMN_INCHES, ROW_INCHES = 0.75, 0.36
GAP = 0.4


@dataclass(frozen=True)
class Shown:
    """What is shown: of which Prometheus, when, and with which values of the variables."""

    prometheus: Prometheus
    start_s: float
    end_s: float
    values: dict[str, str]

    @property
    def step_s(self) -> float:
        """About as many points as a panel of Grafana has."""
        return max(1.0, (self.end_s - self.start_s) / 300)

    def ask(self, name: str, panel: dict[str, Any]) -> list[Drawn]:
        """The results of the queries of a panel."""
        made: list[Drawn] = []
        for asked in of_panel(name, panel):
            expr = asked.filled(self.values)
            if asked.kind == "instant":
                result = self.prometheus.query(expr, self.end_s)
            else:
                result = self.prometheus.query_range(expr, self.start_s, self.end_s, self.step_s)
            made.append(Drawn(asked.legend, result))
        return made


def draw(shown: Shown, directory: Path) -> list[Path]:
    """A picture of each dashboard."""
    directory.mkdir(parents=True, exist_ok=True)
    drawn: list[Path] = []
    for name, dashboard in dashboards().items():
        panels = dashboard["panels"]
        rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
        figure = pyplot.figure(figsize=(24 * COLUMN_INCHES, rows * ROW_INCHES + 0.6))
        figure.suptitle(dashboard["title"], x=0.01, ha="left", fontsize=15)
        top = rows * ROW_INCHES / (rows * ROW_INCHES + 0.6)
        for panel in panels:
            axes = figure.add_axes(_place(panel["gridPos"], rows, top))
            axes.set_title(panel["title"], loc="left", fontsize=10, fontweight="bold")
            _draw_panel(axes, panel, shown.ask(name, panel))
        drawn.append(directory / f"{name}.png")
        figure.savefig(drawn[-1], dpi=75)
        pyplot.close(figure)
    return drawn


def _place(at: dict[str, int], rows: int, top: float) -> tuple[float, float, float, float]:
    """Left, bottom, width and height of the axes, as shares of the picture, with space for labels and a legend."""
    legend = 2.2 if at["h"] > 4 else 0.2
    left, width = (at["x"] + 1.6) / 24, (at["w"] - 2.0) / 24
    bottom = 1 - (at["y"] + at["h"] - GAP - legend) / rows
    height = (at["h"] - 1.2 - legend - GAP) / rows
    return left, bottom * top, width, height * top


def _draw_panel(axes: Axes, panel: dict[str, Any], results: list[Drawn]) -> None:
    if not any(drawn.result for drawn in results):
        drawing.nothing(axes)
        return
    getattr(drawing, panel["type"].lower())(axes, panel, results)


def _shown(options: argparse.Namespace) -> Iterator[tuple[Path, Shown]]:
    """What to draw, and where; it can be asked until the next one is."""
    if options.prometheus:
        now_s = time.time()
        prometheus = Prometheus(options.prometheus)
        yield options.directory, Shown(prometheus, now_s - 60 * options.minutes, now_s, _values(options.graph, "40s"))
        return
    with tempfile.TemporaryDirectory() as scratch, scenario.play(ensure(), Path(scratch)) as played:
        values = _values(scenario.SERVICE, "15s")
        yield options.directory, Shown(played.stack.prometheus, played.start_s, played.quiet_s - 8, values)
    with tempfile.TemporaryDirectory() as scratch, troubles.play(ensure(), Path(scratch)) as troubled:
        values, end_s = _values(troubles.SERVICE, "15s"), troubled.end_s + 5
        yield options.directory / "troubled", Shown(troubled.stack.prometheus, troubled.start_s, end_s, values)


def _values(graph: str, rate_interval: str) -> dict[str, str]:
    everything = dict.fromkeys(("destination", "subscription", "unit", "process"), ".*")
    return everything | {"graph": graph, "__rate_interval": rate_interval, "__interval": "10s"}


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--prometheus", metavar="URL")
    parser.add_argument("--graph", default=scenario.SERVICE, help="the service.name")
    parser.add_argument("--minutes", type=float, default=5)
    options = parser.parse_args()
    for directory, shown in _shown(options):
        for path in draw(shown, directory):
            print(path)


if __name__ == "__main__":
    main()
