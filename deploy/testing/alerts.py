"""The alerts as they are shipped, and how to ask for one within seconds."""

from __future__ import annotations

from typing import Any

import yaml

from deploy.testing.promql import Prometheus
from deploy.testing.stack import DEPLOY, wait_until

RULES = DEPLOY / "prometheus/rules/ezmsg.yml"


def alerts() -> dict[str, dict[str, Any]]:
    """The rules by the name of their alert."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def condition(alert: str) -> str:
    """What has to be so, with shorter windows: rates over minutes are small after seconds."""
    return alerts()[alert]["expr"].replace("[2m]", "[10s]")


def has(found: list[dict[str, Any]], labels: str) -> bool:
    """Whether there is a series with these labels, given as `a=b c=d`, in the result of a query."""
    wanted = dict(one.split("=", 1) for one in labels.split())
    return any(wanted.items() <= series["metric"].items() for series in found)


def await_alert(prometheus: Prometheus, alert: str, labels: str = "") -> None:
    """Wait until the condition of an alert holds, of series with these labels."""
    wait_until(lambda: has(prometheus.query(condition(alert)), labels), f"{alert} {labels}")
