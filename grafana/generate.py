"""Writes the dashboards: `python -m grafana.generate`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana import control, edge, health, overview, process, unit

DIRECTORY = Path(__file__).parent / "dashboards"
DASHBOARDS: dict[str, Callable[[], Dashboard]] = {
    "overview": overview.dashboard,
    "edge": edge.dashboard,
    "unit": unit.dashboard,
    "process": process.dashboard,
    "control": control.dashboard,
    "health": health.dashboard,
}


def finished(built: Any) -> dict[str, Any]:
    """A dashboard with the numbers of its panels, and without what the SDK adds of its own accord."""
    dashboard = json.loads(json.dumps(built, cls=JSONEncoder))
    for place, panel in enumerate(dashboard["panels"]):
        panel["id"] = place + 1
    # Links and annotations stand above the panels, not in a menu.
    for one in (*dashboard["links"], *dashboard["annotations"]["list"], *dashboard["panels"]):
        for link in (one, *one.get("links", ())):
            link.pop("placement", None)
    for panel in dashboard["panels"]:
        if links := panel["fieldConfig"]["defaults"].get("links"):
            # The SDK has one type for links of dashboards and of values; these know less.
            panel["fieldConfig"]["defaults"]["links"] = [
                {key: link[key] for key in ("title", "url", "targetBlank")} for link in links
            ]
    return dashboard


def generated() -> dict[str, str]:
    """The text of each file, by its name."""
    return {
        f"{name}.json": json.dumps(finished(build().build()), indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        for name, build in DASHBOARDS.items()
    }


def main() -> None:
    """Write them."""
    DIRECTORY.mkdir(exist_ok=True)
    for name, text in generated().items():
        (DIRECTORY / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
