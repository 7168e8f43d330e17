"""Alerts fire when they should: by their unit tests, and for the faults that were planted."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.testing.binaries import Binaries
from deploy.testing.scenario import Played
from tests.stack.names import known_metrics, metrics_in

PROMETHEUS = Path(__file__).parents[2] / "deploy/prometheus"
TESTS = PROMETHEUS / "tests/ezmsg.yml"
PLANTED = {"EzmsgBackpressure", "EzmsgBuffersExhausted", "EzmsgMessagesDropped", "EzmsgTaskErrors"}


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "rules/ezmsg.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def each_alert() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])


def test_rules_pass_their_unit_tests(binaries: Binaries) -> None:
    done = subprocess.run(
        [binaries.promtool, "test", "rules", TESTS.name], cwd=TESTS.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_unit_test() -> None:
    tested = set(re.findall(r'alertname(?:: |=")(\w+)', TESTS.read_text(encoding="utf-8")))
    assert tested == {rule["alert"] for rule in alerts()}


@each_alert()
def test_an_alert_says_what_is_wrong_and_where_to_look(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert rule["annotations"].keys() == {"summary", "description"}
    assert metrics_in(rule["expr"]) - {"ezmsg:message_age:limit_seconds"} <= known_metrics()


@each_alert()
def test_an_alert_can_be_asked_and_sees_the_fault_that_was_planted(played: Played, rule: dict[str, Any]) -> None:
    assert played.stack.prometheus.query_range(rule["expr"], played.start_s, played.quiet_s, 2) is not None
    # Rates over minutes are small after seconds.
    soon = rule["expr"].replace("[2m]", "[10s]")
    found = played.stack.prometheus.query_range(soon, played.start_s, played.quiet_s, 2)
    if rule["alert"] in PLANTED:
        assert found


def test_prometheus_evaluates_all_rules(played: Played) -> None:
    rules = played.stack.prometheus.rules()
    assert {rule["name"] for rule in rules} >= {rule["alert"] for rule in alerts()}
    assert not [rule for rule in rules if rule.get("lastError")]
