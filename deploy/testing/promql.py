"""Questions to a Prometheus over its HTTP interface."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any


class PromQLError(ValueError):
    """Prometheus refused a query; the text says why."""


class Prometheus:
    """One Prometheus, at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, promql: str, at_s: float | None = None) -> list[dict[str, Any]]:
        """The result of an instant query: elements with `metric` and `value` or `histogram`."""
        result = self._get("query", query=promql, **({} if at_s is None else {"time": at_s}))
        if result["resultType"] == "scalar":
            return [{"metric": {}, "value": result["result"]}]
        return result["result"]

    def number(self, promql: str, at_s: float | None = None) -> float | None:
        """The one value of an instant query, None where there is none."""
        found = self.query(promql, at_s)
        return float(found[0]["value"][1]) if found else None

    def query_range(self, promql: str, start_s: float, end_s: float, step_s: float) -> list[dict[str, Any]]:
        """The result of a range query: elements with `metric` and `values` or `histograms`."""
        return self._get("query_range", query=promql, start=start_s, end=end_s, step=step_s)["result"]

    def exemplars(self, promql: str, start_s: float, end_s: float) -> list[dict[str, Any]]:
        """Exemplars of the series of a query, by series."""
        return self._get("query_exemplars", query=promql, start=start_s, end=end_s)

    def series(self, selector: str) -> list[dict[str, str]]:
        """Label sets of everything that matches, whenever it was."""
        return self._get("series", **{"match[]": selector})

    def label_values(self, label: str, selector: str) -> list[str]:
        """Values of a label."""
        return self._get(f"label/{label}/values", **{"match[]": selector})

    def metadata(self) -> dict[str, list[dict[str, str]]]:
        """Type, unit and help of metrics, by name."""
        return self._get("metadata")

    def rules(self) -> list[dict[str, Any]]:
        """All rules with their state."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, what: str, **parameters: Any) -> Any:
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{what}?{query}", timeout=60) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise PromQLError(f"{parameters.get('query', what)}: {error.read().decode(errors='replace')}") from None
