import subprocess
import sys
import threading
from collections.abc import Iterator
from uuid import uuid4

import pytest

from ezmsg.core.currentmessage import current_message
from ezmsg.core.errors import ConfigError
from ezmsg.core.profiling import ProfileRegistry
from tests.core.profiling import forking
from tests.core.profiling.recording import begin_trace, publish


def test_each_thread_has_a_ring_that_goes_with_it(registry):
    def work() -> None:
        metrics = registry.register_publisher(uuid4(), "OUT", 8)
        for number in range(10):
            publish(metrics, number)
        registry.unregister_publisher(metrics.id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    registry.snapshot()
    assert registry.snapshot().recorded["row"] == 40
    assert registry.recorder.unread() == 0.0
    assert not registry.recorder._rings


def test_a_forked_child_begins_anew():
    # In an interpreter of its own: forking this one would involve whatever other tests have loaded.
    subprocess.run([sys.executable, forking.__file__], check=True, timeout=120)


@pytest.fixture
def calls(registry: ProfileRegistry) -> Iterator[list[tuple[str, bool]]]:
    made: list[tuple[str, bool]] = []
    registry.set_first_endpoint_hook(lambda graph, active: made.append((graph, active)))
    yield made
    registry.set_first_endpoint_hook(None)


def test_the_hook_hears_of_the_first_and_last_endpoint_of_a_graph(registry, calls):
    one, two, other = uuid4(), uuid4(), uuid4()
    registry.register_publisher(one, "A", 1, graph_address="g:1")
    registry.register_subscriber(two, "A", graph_address="g:1")
    registry.register_publisher(other, "B", 1, graph_address="h:2")
    registry.register_publisher(uuid4(), "C", 1)
    assert calls == [("g:1", True), ("h:2", True)]
    registry.unregister_publisher(one)
    registry.unregister_subscriber(two)
    registry.unregister_subscriber(two)
    assert calls[2:] == [("g:1", False)]
    registry.register_publisher(one, "A", 1, graph_address="g:1")
    assert calls[3:] == [("g:1", True)]


def test_a_hook_set_late_hears_of_graphs_known_already(registry):
    registry.register_publisher(uuid4(), "A", 1, graph_address="g:1")
    heard: list[tuple[str, bool]] = []
    registry.set_first_endpoint_hook(lambda graph, active: heard.append((graph, active)))
    assert heard == [("g:1", True)]


def test_endpoints_that_a_server_left_behind_are_not_its_successors(registry, calls):
    old = uuid4()
    registry.register_publisher(old, "A", 1, graph_address="g:1")
    registry.forget_graph("g:1")
    registry.register_publisher(uuid4(), "A", 1, graph_address="g:1")
    registry.unregister_publisher(old)
    assert calls == [("g:1", True), ("g:1", True)]
    assert registry.has_endpoints("g:1")


def test_the_latest_client_still_open_names_the_rows_of_its_graph(registry):
    first, second, elsewhere = uuid4(), uuid4(), uuid4()
    assert registry.client_of("g:1") is None
    registry.client_opened("g:1", first)
    registry.client_opened("g:1", second)
    registry.client_opened("h:2", elsewhere)
    assert registry.process_id == elsewhere
    assert registry.client_of("g:1") == second
    registry.client_closed("g:1", second)
    assert registry.client_of("g:1") == first
    registry.client_closed("g:1", first)
    assert registry.client_of("g:1") is None


def test_who_carries_telemetry_is_woken_by_traces_and_clients(registry):
    woken: list[None] = []
    registry.set_wake(lambda: woken.append(None))
    begin_trace(registry)
    client = uuid4()
    registry.client_opened("g:1", client)
    registry.client_closed("g:1", client)
    assert len(woken) == 3


def test_the_current_message_is_nobodys_by_default():
    assert current_message.get() is None


def test_the_environment_is_read_when_something_is_recorded_first(monkeypatch):
    registry = ProfileRegistry()
    monkeypatch.setenv("EZMSG_OTEL_LEVEL", "off")
    assert registry.level == "off"
    monkeypatch.setenv("EZMSG_OTEL_LEVEL", "loud")
    with pytest.raises(ConfigError, match="EZMSG_OTEL_LEVEL"):
        ProfileRegistry().register_publisher(uuid4(), "T", 1)
