"""What telemetry adds to a hop and takes of a rate, and what is said of it; `make overhead` measures it."""

from __future__ import annotations

import pytest

from benchmarks.costs import Spread, costs, verdicts

BASES = {
    "off": "off", "trace-all": "off", "by-hand": "off", "upstream": "upstream", "upstream-trace": "upstream"
}  # fmt: skip


def test_what_is_added_and_lost_is_told_against_the_base_of_the_same_round() -> None:
    # In the second round the machine was half as fast; in the third, one failed.
    rates = {"off": {0: 1e6, 1: 0.5e6, 2: 1e6}, "trace-all": {0: 0.8e6, 1: 0.4e6}}
    cpu_ns = {"off": {0: 900.0, 1: 1700.0}, "trace-all": {0: 1200.0, 1: 2200.0}}
    off, traced, *others = costs("local", rates, cpu_ns, BASES)
    assert (off.added_ns, off.lost) == (None, None)
    assert traced.lost == Spread(pytest.approx(0.2), pytest.approx(0.2), pytest.approx(0.2))
    assert traced.added_ns == Spread(pytest.approx(375), pytest.approx(250), pytest.approx(500))
    assert traced.added_cpu_ns == Spread(400, 300, 500)
    assert {(other.rate, other.lost) for other in others} == {(None, None)}


def test_what_is_wanted_is_judged() -> None:
    rates = {
        "off": {0: 1e6}, "trace-all": {0: 0.8e6}, "by-hand": {0: 1e4}, "upstream": {0: 1e5}, "upstream-trace": {0: 9e4}
    }  # fmt: skip
    cpu_ns = {
        "off": {0: 900.0}, "trace-all": {0: 1000.0}, "by-hand": {0: 9000.0}, "upstream": {0: 9000.0},
        "upstream-trace": {0: 9900.0},
    }  # fmt: skip
    late = {"quiet": {0: 100.0, 1: 300.0}, "agent": {0: 105.0, 1: 315.0}, "thread": {0: 500.0}}
    said = verdicts(costs("local", rates, cpu_ns, BASES), late)
    assert [line.split()[-1] for line in said] == ["MISSED", "met", "met", "met"]
    assert "1.05" in said[-1]


def test_what_was_not_measured_is_not_judged() -> None:
    assert verdicts(costs("local", {"off": {0: 1.0}}, {}, BASES), {}) == []
