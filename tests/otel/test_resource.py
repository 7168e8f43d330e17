"""Who sends."""

from __future__ import annotations

import os

import pytest

from ezmsg.otel.resource import ProcessResource, ResourceFactory, root_name
from ezmsg.otel.semconv import SCHEMA_URL
from ezmsg.otel.state import Process
from tests.otel.feeds import ANCHOR, first, telemetry


def resource_of_process(units: tuple[str, ...] = ("ROOT/SOURCE",), **what: object) -> ProcessResource:
    process = Process("link-1", ANCHOR)
    process.apply(first(**what))
    factory = ResourceFactory()
    factory.name_service(units)
    return factory.of_process(process)


def test_a_process_tells_who_and_where_it_is_but_not_its_command_line() -> None:
    resource = resource_of_process()
    assert resource.schema_url == SCHEMA_URL
    told = dict(resource.attributes)
    assert told.pop("telemetry.sdk.version")
    assert told == {
        "service.name": "ROOT",
        "service.instance.id": "process-1",
        "host.name": "lab",
        "process.pid": 4711,
        "process.runtime.name": "cpython",
        "process.runtime.version": "3.11.7",
        "ezmsg.process.name": "proc_0",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.language": "python",
    }


def test_a_process_without_a_client_is_known_by_its_link() -> None:
    assert resource_of_process(process_id="").attributes["service.instance.id"] == "link-1"


def test_a_process_that_never_said_hello_still_has_a_name() -> None:
    process = Process("link-1", ANCHOR)
    process.apply(telemetry(1))
    assert ResourceFactory().of_process(process).attributes["service.name"] == "ezmsg"


def test_the_environment_describes_the_service_and_cannot_hide_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "bench")
    monkeypatch.setenv(
        "OTEL_RESOURCE_ATTRIBUTES",
        "service.name=ignored,service.namespace=lab%20one,service.version=1.2,"
        "deployment.environment.name=test,service.instance.id=not-this,process.pid=1",
    )
    told = resource_of_process().attributes
    assert told["service.name"] == "bench"
    assert told["service.namespace"] == "lab one"
    assert told["service.version"] == "1.2"
    assert told["deployment.environment.name"] == "test"
    assert (told["service.instance.id"], told["process.pid"]) == ("process-1", 4711)


def test_the_service_can_be_named_by_resource_attributes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=bench")
    assert resource_of_process().attributes["service.name"] == "bench"


@pytest.mark.parametrize(
    ("units", "name"),
    [
        (["ROOT/A", "ROOT/B/C"], "ROOT"),
        (["ROOT/A", "", "ROOT/B"], "ROOT"),
        (["ONE/A", "OTHER/B"], "ezmsg"),
        (["A"], "ezmsg"),
        ([""], "ezmsg"),
        ([], "ezmsg"),
    ],
)
def test_a_graph_is_named_after_the_root_of_its_units(units: list[str], name: str) -> None:
    assert root_name(units) == name


def test_the_agent_is_a_resource_of_its_own() -> None:
    told = ResourceFactory().of_agent().attributes
    assert told["service.name"] == "ezmsg"
    assert told["process.pid"] == os.getpid()
    assert told["ezmsg.process.name"] == "ezmsg.otel"


def test_equal_resources_are_not_the_same_resource() -> None:
    """An encoder that merged two processes into one would lose the metrics of the first."""
    one, other = resource_of_process(), resource_of_process()
    assert dict(one.attributes) == dict(other.attributes)
    assert len({one: 1, other: 2}) == 2
