"""What telemetry costs, and how it keeps to its budget."""

from __future__ import annotations

import logging
from uuid import uuid4

import pytest

from ezmsg.core.errors import ConfigError
from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.profiling import ProfileRegistry
from ezmsg.core.telemetry.overhead import MOST, Overhead, Reading, row_cost_s, shares
from tests.core.profiling.recording import publish, receive

ROW_S = 1e-6


class Machine:
    """A second passes, and the reading thread works as much of it as it is told."""

    def __init__(self, registry: ProfileRegistry, budget: float | None = None) -> None:
        self.registry = registry
        registry.recorder.cost_budget = budget
        self.now_s = self.worked_s = 0.0
        self.overhead = Overhead(lambda: self.worked_s, lambda: self.now_s, ROW_S)
        self.overhead.turn(registry.recorder)

    def second(self, worked_s: float = 0.0) -> None:
        self.now_s += 1.0
        self.worked_s += worked_s
        self.overhead.turn(self.registry.recorder)

    @property
    def told(self) -> dict[str, float]:
        return self.registry.snapshot().process.overhead


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("ezmsg"), "propagate", True)
    caplog.set_level(logging.WARNING)
    return caplog


def test_reading_and_writing_are_shares_of_a_core_by_signal() -> None:
    before, now = Reading(0, 0, 0, 0), Reading(10, 0.5, 60_000, 10_000)
    found = shares(before, now, ROW_S)
    # 50,000 plain rows, and 10,000 sampled ones that take five times as long each.
    assert found["metrics"] == pytest.approx(found["traces"]) == pytest.approx((0.1 + 0.5) / 10 / 2)
    assert shares(before, Reading(10, 1.0, 0, 0), ROW_S) == {"metrics": pytest.approx(0.1), "traces": 0.0}


def test_what_a_row_costs_is_measured() -> None:
    assert row_cost_s() > 0


def test_a_process_tells_what_its_telemetry_costs(registry: ProfileRegistry) -> None:
    machine = Machine(registry)
    publisher = registry.register_publisher(uuid4(), "OUT", 8)
    for number in range(1000):
        publish(publisher, number)
    registry.snapshot()
    machine.second(worked_s=0.02)
    assert machine.told == {"metrics": pytest.approx(0.021), "traces": 0.0}


def test_without_a_budget_nothing_is_thinned(registry: ProfileRegistry) -> None:
    machine = Machine(registry)
    machine.second(worked_s=1.0)
    assert registry.recorder.throttle == 0


def test_over_its_budget_rows_and_traces_are_thinned_and_that_is_said(
    registry: ProfileRegistry, warnings: pytest.LogCaptureFixture
) -> None:
    machine = Machine(registry, budget=0.05)
    publisher = registry.register_publisher(uuid4(), "OUT", 8)
    edge = registry.register_subscriber(uuid4(), "IN").edge(uuid4(), "OUT", ProfileChannelType.LOCAL)
    registry.set_trace_sampling(0.0, 1.0)
    machine.second(worked_s=0.06)
    assert registry.recorder.throttle == 1
    for number in range(100):
        receive(edge, number)
        publish(publisher, number, trace=(1, number + 1, 0) if publisher.begin_root(0.0) else None)
    later = registry.register_publisher(uuid4(), "LATER", 8)
    assert [later.begin_root(0.0) for _ in range(4)] == [False, True, False, True]
    snapshot = registry.snapshot()
    assert snapshot.dropped["row:thinned"] == 50 + 50
    assert snapshot.dropped["trace:thinned"] == snapshot.recorded["trace"] == 52
    assert snapshot.recorded["span"] == 50
    # Counters are exact all the same.
    assert [total.messages_published_total for total in snapshot.publishers.values()] == [100, 0]
    assert [total.messages_received_total for total in snapshot.subscribers.values()] == [100]
    assert [record.getMessage() for record in warnings.records] == [
        "telemetry takes 6.0 % of a core, more than its budget of 5.0 % (EZMSG_OTEL_BUDGET): "
        "one in 2 messages, and one in as many traces, is recorded; counters stay exact"
    ]


def test_a_native_trace_and_what_is_sampled_are_not_thinned(registry: ProfileRegistry) -> None:
    machine = Machine(registry, budget=0.05)
    machine.second(worked_s=0.06)
    publisher = registry.register_publisher(uuid4(), "OUT", 8)
    for number in range(10):
        publish(publisher, number, trace=(1, number + 1, 0))
    assert registry.snapshot().recorded["span"] == 10


def test_with_room_again_everything_is_recorded(registry: ProfileRegistry, warnings: pytest.LogCaptureFixture) -> None:
    machine = Machine(registry, budget=0.05)
    for _ in range(3):
        machine.second(worked_s=0.06)
    assert registry.recorder.throttle == 3
    machine.second(worked_s=0.04)  # twice as much is too much
    assert registry.recorder.throttle == 3
    for _ in range(4):
        machine.second(worked_s=0.01)
    assert registry.recorder.throttle == 0
    assert [record.getMessage()[:40] for record in warnings.records] == [
        "telemetry takes 6.0 % of a core, more th",
        "telemetry is within its budget again: ev",
    ]


def test_a_budget_that_cannot_be_held_is_said_once(
    registry: ProfileRegistry, warnings: pytest.LogCaptureFixture
) -> None:
    machine = Machine(registry, budget=0.01)
    for _ in range(MOST + 5):
        machine.second(worked_s=0.5)
    assert registry.recorder.throttle == MOST
    assert len(warnings.records) == 2
    assert "however little is recorded" in warnings.records[-1].getMessage()


def test_the_budget_is_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ProfileRegistry().recorder.cost_budget is None
    monkeypatch.setenv("EZMSG_OTEL_BUDGET", "0.02")
    assert ProfileRegistry().recorder.cost_budget == 0.02
    for wrong in ("0", "-1", "much"):
        monkeypatch.setenv("EZMSG_OTEL_BUDGET", wrong)
        with pytest.raises(ConfigError, match="EZMSG_OTEL_BUDGET"):
            assert ProfileRegistry().recorder
