"""Every query of the dashboards, as Prometheus is asked it: with values for the variables of Grafana."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

DIRECTORY = Path(__file__).parent / "dashboards"
VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)\}?")  # $1 is a group of label_replace
LABEL_VALUES = re.compile(r"label_values\((?:(?P<selector>.+), *)?(?P<label>\w+)\)")


@dataclass(frozen=True)
class Asked:
    """One query: where it stands, what it asks, and how."""

    dashboard: str
    place: str
    expr: str
    kind: Literal["range", "instant", "label_values"]
    legend: str = ""

    def filled(self, values: Mapping[str, str]) -> str:
        """The query with values in place of variables; an unknown one is a KeyError."""
        return VARIABLE.sub(lambda found: values[found[1]], self.expr)


def dashboards() -> dict[str, dict[str, Any]]:
    """The committed dashboards by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(DIRECTORY.glob("*.json"))}


def of_panel(name: str, panel: Mapping[str, Any]) -> Iterator[Asked]:
    """The queries of one panel."""
    for target in panel["targets"]:
        kind = "instant" if target.get("instant") else "range"
        yield Asked(name, f"{panel['title']} {target['refId']}", target["expr"], kind, target["legendFormat"])


def queries() -> Iterator[Asked]:
    """All of them: of panels, annotations and variables."""
    for name, dashboard in dashboards().items():
        for panel in dashboard["panels"]:
            yield from of_panel(name, panel)
        for annotation in dashboard["annotations"]["list"]:
            yield Asked(name, f"annotation {annotation['name']}", annotation["expr"], "range")
        for variable in dashboard["templating"]["list"]:
            yield Asked(name, f"variable {variable['name']}", variable["query"]["query"], "label_values")
