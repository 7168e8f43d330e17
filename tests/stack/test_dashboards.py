"""Dashboards are generated, well formed, and each of their queries has an answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.testing.programs import STEP_S
from deploy.testing.promql import Prometheus
from deploy.testing.scenario import HEALTHY, SERVICE, Played
from deploy.testing.troubles import SERVICE as TROUBLED
from deploy.testing.troubles import STALE_S, Troubled
from grafana.generate import DIRECTORY, generated
from grafana.panels import TITLES, uid
from grafana.queries import LABEL_VALUES, Asked, dashboards, of_panel, queries
from tests.stack.names import NOT_YET, known_metrics, metrics_in
from tests.stack.pending import EMPTY_WHEN_HEALTHY, NEVER_SEEN_BAD

PROVISIONING = Path(__file__).parents[2] / "grafana/provisioning"
VALUES = dict.fromkeys(("destination", "subscription", "unit", "process"), ".*") | {
    "graph": SERVICE,
    "__rate_interval": "40s",
    "__interval": "10s",
}
# Units that Grafana knows.
UNITS = {"none", "s", "percentunit", "mps", "cps", "ops", "bytes", "Bps"}


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, dashboard in dashboards().items():
        for panel in dashboard["panels"]:
            yield name, panel


def each_panel() -> pytest.MarkDecorator:
    found = list(panels())
    return pytest.mark.parametrize(("name", "panel"), found, ids=[f"{name}: {panel['title']}" for name, panel in found])


def each_query() -> pytest.MarkDecorator:
    found = list(queries())
    return pytest.mark.parametrize("asked", found, ids=[f"{asked.dashboard}: {asked.place}" for asked in found])


def test_what_is_committed_is_what_is_generated() -> None:
    assert {path.name: path.read_text(encoding="utf-8") for path in DIRECTORY.glob("*.json")} == generated()


def test_data_sources_and_dashboards_have_the_uids_that_are_referred_to() -> None:
    sources = yaml.safe_load((PROVISIONING / "datasources/datasources.yaml").read_text(encoding="utf-8"))["datasources"]
    uids = {source["uid"]: source["type"] for source in sources}
    assert uids == {"ezmsg-prometheus": "prometheus", "ezmsg-tempo": "tempo"}
    (prometheus,) = (source for source in sources if source["type"] == "prometheus")
    assert prometheus["jsonData"]["exemplarTraceIdDestinations"][0]["datasourceUid"] in uids
    assert {name: dashboard["uid"] for name, dashboard in dashboards().items()} == {name: uid(name) for name in TITLES}
    for _, panel in panels():
        for at in (panel, *panel["targets"]):
            assert uids[at["datasource"]["uid"]] == at["datasource"]["type"]


def test_what_a_trace_leads_to_has_an_answer(played: Played) -> None:
    sources = yaml.safe_load((PROVISIONING / "datasources/datasources.yaml").read_text(encoding="utf-8"))["datasources"]
    (tempo,) = (source for source in sources if source["type"] == "tempo")
    link = tempo["jsonData"]["tracesToMetrics"]
    (tag,) = link["tags"]
    assert tag["value"] == tag["key"].replace(".", "_")
    (query,) = link["queries"]
    # A dollar is doubled in provisioning.
    asked = query["query"].replace("$$__tags", f'{tag["value"]}="SOURCE/OUTPUT"').replace("$$__rate_interval", "40s")
    assert metrics_in(asked) <= known_metrics()
    assert played.stack.prometheus.query(asked, played.quiet_s)


def test_every_dashboard_leads_to_all_others_with_its_time_and_variables() -> None:
    for name, dashboard in dashboards().items():
        assert [link["url"] for link in dashboard["links"]] == [f"/d/{uid(other)}" for other in TITLES if other != name]
        assert all(link["keepTime"] and link["includeVars"] for link in dashboard["links"])


def test_panels_of_a_dashboard_have_different_numbers_and_do_not_overlap() -> None:
    for name, dashboard in dashboards().items():
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(ids)) == len(ids), name
        taken: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            at = panel["gridPos"]
            cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
            assert not cells & taken, (name, panel["title"])
            assert at["x"] + at["w"] <= 24
            taken |= cells


@each_panel()
def test_a_panel_says_its_unit_what_to_conclude_what_is_bad_and_where_to_look_next(
    name: str, panel: dict[str, Any]
) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"] in UNITS
    assert len(panel["description"]) > 30
    assert panel["description"].endswith(".")
    steps = defaults["thresholds"]["steps"]
    assert steps[0] == {"color": "green", "value": None}
    values = [step["value"] for step in steps[1:]]
    assert values == sorted(values)
    assert all(value > 0 for value in values)
    (link,) = panel["links"]
    known = {
        uid(other): {"graph", *(one["name"] for one in board["templating"]["list"])}
        for other, board in dashboards().items()
    }
    for target in (link["url"], *(one["url"] for one in defaults.get("links", ()))):
        found = re.match(r"/d/([\w-]+)\?", target)
        assert found
        assert found[1] != uid(name)
        assert set(re.findall(r"var-(\w+)=", target)) <= known[found[1]]


@each_query()
def test_a_query_names_only_metrics_that_exist(asked: Asked) -> None:
    found = LABEL_VALUES.fullmatch(asked.expr)
    assert metrics_in(found["selector"] if found else asked.expr) <= known_metrics()


@each_query()
def test_a_query_has_an_answer_once_the_faults_are_planted(played: Played, asked: Asked) -> None:
    if not metrics_in(asked.expr) & NOT_YET:
        assert has_answer(played, asked, SERVICE)


@each_query()
def test_a_query_has_an_answer_in_a_healthy_graph_unless_it_asks_for_what_went_wrong(
    played: Played, asked: Asked
) -> None:
    if not metrics_in(asked.expr) & NOT_YET:
        assert has_answer(played, asked, HEALTHY) != (asked.place in EMPTY_WHEN_HEALTHY)


def test_what_is_empty_in_a_healthy_graph_is_asked() -> None:
    assert {asked.place for asked in queries()} >= EMPTY_WHEN_HEALTHY.keys()


def has_answer(played: Played, asked: Asked, graph: str) -> bool:
    """Whether Prometheus has data, other than NaN, for a query about a graph."""
    prometheus, expr = played.stack.prometheus, asked.filled(VALUES | {"graph": graph})
    if asked.kind == "label_values":
        found = LABEL_VALUES.fullmatch(expr)
        assert found
        return bool(prometheus.label_values(found["label"], found["selector"] or ""))
    if asked.kind == "instant":
        # What is pending may be a machine that is busy for a moment.
        found = prometheus.query(expr, played.quiet_s)
        return any(one["metric"].get("alertstate") != "pending" for one in found)
    answer = prometheus.query_range(expr, played.start_s, played.quiet_s, STEP_S)
    return any("histograms" in one or any(value != "NaN" for _, value in one["values"]) for one in answer)


@each_panel()
def test_a_panel_that_says_what_is_bad_has_been_seen_so(
    played: Played, troubled: Troubled, name: str, panel: dict[str, Any]
) -> None:
    values = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]]
    if not values or panel["title"] in NEVER_SEEN_BAD:
        return
    worst = max(
        highest(played.stack.prometheus, panel, name, SERVICE, played.start_s, played.quiet_s),
        highest(troubled.stack.prometheus, panel, name, TROUBLED, troubled.start_s, troubled.end_s + STALE_S),
    )
    assert worst >= values[0]


def highest(
    prometheus: Prometheus, panel: dict[str, Any], name: str, graph: str, start_s: float, end_s: float
) -> float:
    """The highest value that a panel shows of a graph, with rates of less than a minute."""
    values = VALUES | {"graph": graph, "__rate_interval": "10s"}
    found = [
        float(value)
        for asked in of_panel(name, panel)
        for one in prometheus.query_range(asked.filled(values), start_s, end_s, STEP_S)
        for _, value in one.get("values", ())
    ]
    return max((value for value in found if value == value), default=0.0)
