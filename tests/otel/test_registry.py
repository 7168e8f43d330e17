"""All processes together: who they are, when they are forgotten."""

from __future__ import annotations

import pytest

from ezmsg.core.wire.records import EndpointRecord, GraphState
from ezmsg.otel import registry as module
from ezmsg.otel.registry import Registry
from ezmsg.otel.resource import ResourceFactory
from tests.otel.feeds import PUBLISHER, counters, first, hello, histogram, telemetry


@pytest.fixture
def registry() -> Registry:
    return Registry(ResourceFactory())


def links(registry: Registry) -> dict[str, bool]:
    """Link ids, and whether they have ended."""
    return {process.link_id: process.is_gone for process in registry.look()[0]}


def test_processes_are_told_apart_by_their_links(registry: Registry) -> None:
    registry.apply(first("a"))
    registry.apply(first("b"))
    registry.apply(telemetry(1, "a"))
    assert links(registry) == {"a": False, "b": False}


def test_the_graph_is_the_last_one_told(registry: Registry) -> None:
    registry.tell(GraphState(["A"], [], ["h:1"]))
    registry.tell(GraphState(["A", "B"], [("A", "B")], ["h:1", "h:2"]))
    assert registry.look()[1] == GraphState(["A", "B"], [("A", "B")], ["h:1", "h:2"])


def test_an_ended_process_stays_until_its_last_values_were_taken(registry: Registry) -> None:
    registry.apply(first("a"))
    registry.apply(telemetry(1, "a", gone=True))
    assert links(registry) == {"a": True}
    registry.forget(["a"])
    assert links(registry) == {}


def test_the_oldest_ended_processes_go_when_no_receiver_takes_them(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_GONE", 3)
    registry.apply(first("alive"))
    for number in range(10):
        registry.apply(first(f"ended {number}", gone=True))
    assert links(registry) == {"alive": False, "ended 7": True, "ended 8": True, "ended 9": True}


def test_a_process_that_does_not_show_up_after_a_reconnection_has_ended(registry: Registry) -> None:
    registry.apply(first("stays"))
    registry.apply(first("dies"))
    registry.doubt_all()
    registry.apply(first("stays"))
    registry.end_unconfirmed()
    assert links(registry) == {"stays": False, "dies": True}


def test_a_resource_is_decided_once(registry: Registry) -> None:
    process = registry.apply(first("a", process_id=""))
    before = registry.resource(process)
    registry.apply(telemetry(1, "a", process_id="a late client"))
    assert registry.resource(process) is before
    assert before.attributes["service.instance.id"] == "a"


def test_all_resources_of_a_graph_have_one_service_name(registry: Registry) -> None:
    process = registry.apply(first("a"))
    other = registry.apply(telemetry(0, "b", hello=hello("b", process_name="plain")))
    resources = [registry.resource(process), registry.resource(other), registry.agent_resource()]
    assert {resource.attributes["service.name"] for resource in resources} == {"ROOT"}


def test_exemplars_are_handed_out_once(registry: Registry) -> None:
    registry.apply(first("a", histograms=[histogram(1, "publish", [1], exemplars=[(1, 2, "a", "b")])]))
    assert [bool(process.exemplars) for process in registry.look()[0]] == [True]
    assert [bool(process.exemplars) for process in registry.look()[0]] == [False]


@pytest.mark.parametrize("is_forgotten", [False, True])
def test_a_process_that_is_back_after_its_goodbye_is_the_same_and_tells_all_it_counted_itself(
    registry: Registry, is_forgotten: bool
) -> None:
    resource = registry.resource(registry.apply(first("a", server_dropped={"span:server_ring": 3})))
    registry.apply(telemetry(1, "a", gone=True))
    if is_forgotten:
        registry.forget(["a"])
    registry.apply(first("a", counters=[counters(1, sent=12)]))
    registry.apply(telemetry(1, "a", server_dropped={"span:server_ring": 1}))
    [process] = registry.look()[0]
    assert not process.is_gone
    assert (process.resource, process.server_dropped) == (resource, {"span:server_ring": 4})
    assert process.counters[1]["sent"] == 12
    assert 2 not in process.counters
    # Its last values of before were exported only now.
    registry.forget(["a"])
    assert links(registry) == {"a": False}


def test_under_another_client_it_is_another_one(registry: Registry) -> None:
    before = registry.resource(registry.apply(first("a", gone=True)))
    after = registry.resource(registry.apply(first("a", process_id="process-2")))
    assert before.attributes["service.instance.id"] == "process-1"
    assert after.attributes["service.instance.id"] == "process-2"


def test_what_closed_is_known_apart_and_not_taken_again_from_a_server_that_was_not_told_so(registry: Registry) -> None:
    past = EndpointRecord(9, "T", "", "", "", 3)
    registry.apply(first("a", endpoints=[past], counters=[counters(9, sent=5)]))
    registry.server_replaced()
    states = [histogram(9, "publish", [7])]
    registry.apply(first("a", endpoints=[past, PUBLISHER], counters=[counters(9, sent=7)], histograms=states))
    [process] = registry.look()[0]
    assert process.counters[9]["sent"] == 5
    assert process.endpoints.keys() == {1, 9}
    assert not process.histograms
