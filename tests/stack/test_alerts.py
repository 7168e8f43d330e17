"""Alerts fire when they should: by their unit tests, and for the faults that were planted."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest

from deploy.testing.alerts import RULES, alerts, condition, has
from deploy.testing.binaries import Binaries
from deploy.testing.programs import STEP_S
from deploy.testing.scenario import HEALTHY, PLANTED, SERVICE, Played
from deploy.testing.troubles import LIMITS, STALE_S, Troubled
from tests.stack.names import known_metrics, metrics_in

TESTS = RULES.parents[1] / "tests/ezmsg.yml"
MOMENT_S = 15
"""As long a machine may be busy with something else: an alert that waits says nothing of it, with windows as short."""
TROUBLES = {
    "EzmsgBackpressure": ("messaging_destination_name=STUCK/OUTPUT",),
    "EzmsgPublisherStalled": ("messaging_destination_name=STUCK/OUTPUT",),
    "EzmsgMessageTooOld": ("messaging_destination_subscription_name=LATE/INPUT",),
    "EzmsgEventLoopLag": ("",),
    "EzmsgControlFailures": ("by=process error_type=PROCESS_DISCONNECTED",),
    "EzmsgTelemetryDropping": ("ezmsg_telemetry_reason=queue_full", "ezmsg_telemetry_reason=no_goodbye"),
    "EzmsgTelemetryStale": ("",),
    "EzmsgCollectorDown": ("",),
    "EzmsgCollectorExportFailing": ("exporter=otlp_http/prometheus", "exporter=otlp_grpc/tempo"),
}
"""Those that something does not survive."""


def each_alert() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("rule", alerts().values(), ids=alerts())


def test_rules_pass_their_unit_tests(binaries: Binaries) -> None:
    done = subprocess.run(
        [binaries.promtool, "test", "rules", TESTS.name], cwd=TESTS.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_unit_test() -> None:
    tested = set(re.findall(r'alertname(?:: |=")(\w+)', TESTS.read_text(encoding="utf-8")))
    assert tested == alerts().keys()


@each_alert()
def test_an_alert_says_what_is_wrong_and_where_to_look(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert rule["annotations"].keys() == {"summary", "description"}
    assert metrics_in(rule["expr"]) - {"ezmsg:message_age:limit_seconds"} <= known_metrics()


def test_a_fault_is_planted_for_every_alert() -> None:
    assert {*PLANTED, *TROUBLES} == alerts().keys()


@pytest.mark.parametrize(("alert", "labels"), PLANTED.items(), ids=PLANTED)
def test_an_alert_sees_the_fault_of_a_graph_that_goes_on(played: Played, alert: str, labels: str) -> None:
    found = played.stack.prometheus.query_range(condition(alert), played.start_s, played.quiet_s, STEP_S)
    assert has(found, f"job={SERVICE} {labels}")


@pytest.mark.parametrize(("alert", "labels"), [(alert, labels) for alert, each in TROUBLES.items() for labels in each])
def test_an_alert_sees_what_does_not_survive(troubled: Troubled, alert: str, labels: str) -> None:
    found = troubled.stack.prometheus.query_range(condition(alert), troubled.start_s, troubled.end_s + STALE_S, STEP_S)
    assert has(found, labels)


def test_a_topic_may_have_a_limit_of_its_own_for_the_age_of_data(troubled: Troubled) -> None:
    """ARCHIVE is as late as LATE, and may be."""
    once_known = f"({condition('EzmsgMessageTooOld')}) and on () {LIMITS}"
    found = troubled.stack.prometheus.query_range(once_known, troubled.start_s, troubled.killed_s, STEP_S)
    assert has(found, "messaging_destination_subscription_name=LATE/INPUT")
    assert not has(found, "messaging_destination_subscription_name=ARCHIVE/INPUT")


@each_alert()
def test_an_alert_says_nothing_of_a_healthy_graph(played: Played, rule: dict[str, Any]) -> None:
    said = condition(rule["alert"])
    if "for" in rule:
        said = f"count_over_time(({said})[{MOMENT_S}s:1s]) >= {MOMENT_S}"
    found = played.stack.prometheus.query_range(said, played.start_s, played.quiet_s, STEP_S)
    assert not has(found, f"job={HEALTHY}")


def test_prometheus_evaluates_all_rules(played: Played) -> None:
    rules = played.stack.prometheus.rules()
    assert {rule["name"] for rule in rules} >= alerts().keys()
    assert not [rule for rule in rules if rule.get("lastError")]
