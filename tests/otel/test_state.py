"""What is kept of one process."""

from __future__ import annotations

import msgspec
import pytest

from ezmsg.core.wire.records import EndpointRecord
from ezmsg.otel import state
from ezmsg.otel.state import REST_EDGE, REST_PUBLISHER, Process, slowest_and_latest
from tests.otel.feeds import ANCHOR, EDGE, PUBLISHER, counters, first, histogram, telemetry


def fed(*records: object) -> Process:
    process = Process("link-1", ANCHOR)
    for record in records:
        process.apply(record)  # type: ignore[arg-type]
    return process


def publisher(index: int, topic: str = "T") -> EndpointRecord:
    return msgspec.structs.replace(PUBLISHER, index=index, topic=topic)


def total(process: Process, name: str) -> int:
    return sum(values.get(name, 0) for values in process.counters.values())


def test_a_delta_replaces_what_it_names_and_keeps_the_rest() -> None:
    process = fed(first(), telemetry(1, counters=[counters(1, sent=12)]))
    assert process.counters[1] == {"sent": 12, "inflight": 3, "num_buffers": 32}
    assert process.counters[2] == {"consumed": 9}


def test_a_message_is_not_held_any_more_when_that_is_not_told() -> None:
    held = telemetry(1, counters=[counters(2, consumed=9, holding_ns=5)])
    process = fed(first(), held, telemetry(2, counters=[counters(2, consumed=10)]))
    assert process.counters[2] == {"consumed": 10}


def test_who_a_process_is_comes_with_its_first_delivery_only() -> None:
    process = fed(first(), telemetry(1, process_id=""))
    assert process.hello is not None
    assert process.process_id == "process-1"


def test_a_closed_endpoint_keeps_its_sums_and_gives_up_its_levels() -> None:
    process = fed(first(), telemetry(1, closed=[1]))
    assert process.counters[1] == {"sent": 10, "inflight": 0, "num_buffers": 0}


@pytest.mark.parametrize("ending", [{"gone": True}, {"final": True}])
def test_a_process_that_ended_keeps_its_sums_and_gives_up_its_levels(ending: dict[str, bool]) -> None:
    process = fed(first(), telemetry(1, counters=[counters(1, sent=11, inflight=5)], **ending))
    assert process.is_gone
    assert process.counters[1] == {"sent": 11, "inflight": 0, "num_buffers": 0}


def test_sums_never_fall_and_memory_is_bounded_while_endpoints_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "MAX_CLOSED", 3)
    process = fed(first(endpoints=[], counters=[]))
    for index in range(1, 200):
        opened = {"endpoints": [publisher(index)], "counters": [counters(index, sent=5)]}
        process.apply(telemetry(index, histograms=[histogram(index, "publish", [5])], **opened))
        process.apply(telemetry(index, closed=[index]))
        assert total(process, "sent") == 5 * index
        assert sum(value.count for value in process.histograms.values()) == 5 * index
    assert len(process.endpoints) == len(process.counters) == len(process.histograms) == 4


def test_closed_endpoints_of_ever_new_topics_end_in_one_of_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "MAX_CLOSED", 2)
    monkeypatch.setattr(state, "MAX_MERGED", 3)
    process = fed(first(endpoints=[], counters=[]))
    for index in range(1, 50):
        edge = msgspec.structs.replace(EDGE, index=index + 1000, topic=f"topic {index}")
        opened = [publisher(index, f"topic {index}"), edge]
        counted = [counters(index, sent=1), counters(index + 1000, consumed=1)]
        process.apply(telemetry(index, endpoints=opened, counters=counted))
        process.apply(telemetry(index, closed=[index, index + 1000]))
    assert len(process.endpoints) <= 2 + 3 + 2
    assert {REST_PUBLISHER, REST_EDGE} <= process.endpoints.keys()
    assert (total(process, "sent"), total(process, "consumed")) == (49, 49)


def test_a_copy_does_not_change_with_the_process() -> None:
    process = fed(first(histograms=[histogram(1, "publish", [1])]))
    copy = process.copy()
    process.apply(telemetry(1, counters=[counters(1, sent=99)], histograms=[histogram(1, "publish", [7])]))
    assert copy.counters[1]["sent"] == 10
    assert copy.histograms[1, "publish", ""].count == 1


def test_of_many_exemplars_the_slowest_and_the_latest_other_remain() -> None:
    exemplars = [(5, 1, "a", "1"), (9, 2, "b", "2"), (1, 3, "c", "3"), (7, 4, "d", "4")]
    assert slowest_and_latest(exemplars) == [(9, 2, "b", "2"), (7, 4, "d", "4")]
    assert slowest_and_latest(exemplars[:1]) == exemplars[:1]


def test_exemplars_of_several_deliveries_are_gathered() -> None:
    slow, quick = (900, 1, "a", "1"), (3, 2, "b", "2")
    process = fed(
        first(histograms=[histogram(1, "publish", [1], exemplars=[slow])]),
        telemetry(1, histograms=[histogram(1, "publish", [2], exemplars=[quick])]),
    )
    assert process.exemplars[1, "publish", ""] == [slow, quick]
