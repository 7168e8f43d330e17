"""Writes the dashboards: `python -m grafana.generate`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

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


def generated() -> dict[str, str]:
    """The text of each file, by its name."""
    return {
        f"{name}.json": json.dumps(build().build(), cls=JSONEncoder, indent=2, ensure_ascii=False, sort_keys=True)
        + "\n"
        for name, build in DASHBOARDS.items()
    }


def main() -> None:
    """Write them."""
    DIRECTORY.mkdir(exist_ok=True)
    for name, text in generated().items():
        (DIRECTORY / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
