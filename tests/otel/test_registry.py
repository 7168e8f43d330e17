"""All processes together: who they are, when they are forgotten."""

from __future__ import annotations

import pytest

from ezmsg.core.wire.records import GraphState
from ezmsg.otel import registry as module
from ezmsg.otel.registry import Registry
from ezmsg.otel.resource import ResourceFactory
from tests.otel.feeds import first, hello, histogram, telemetry


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
