import socket
import threading
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest

from ezmsg.core.profiling import ProfileRegistry
from ezmsg.core.telemetry.link import Listener
from ezmsg.core.telemetry.pump import CALM_INTERVAL_S, CALM_S, INTERVAL_S, SHORTEST_S, Pace, TelemetryPump, say_hello
from ezmsg.core.wire.records import Goodbye, ProcessTelemetry
from tests.core.forked import in_child
from tests.core.profiling.recording import begin_trace, publish
from tests.core.telemetry.serving import GRAPH, PATIENCE_S, FakeServer

OTHER_GRAPH = "127.0.0.1:25979"


@pytest.fixture
def server() -> Iterator[FakeServer]:
    made = FakeServer()
    yield made
    made.close()


@pytest.fixture
def pump(registry: ProfileRegistry, server: FakeServer) -> Iterator[TelemetryPump]:
    made = TelemetryPump(registry, server.dial)
    made.install()
    yield made
    made.shutdown(PATIENCE_S)


def telemetry_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ezmsg telemetry"]


def register(registry: ProfileRegistry, topic: str = "OUT", graph: str = GRAPH):
    return registry.register_publisher(uuid4(), topic, 8, graph_address=graph)


def test_the_first_endpoint_starts_a_daemon_and_the_last_ends_it(registry, server, pump):
    assert telemetry_threads() == []
    publisher = register(registry)
    [thread] = telemetry_threads()
    assert thread.daemon
    server.hello()
    publish(publisher, 0)
    registry.unregister_publisher(publisher.id)
    batches = server.batches_to_the_end()
    assert batches[-1].final
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    again = register(registry)
    [second] = telemetry_threads()
    assert second is not thread
    assert server.hello()
    registry.unregister_publisher(again.id)
    second.join(PATIENCE_S)


def test_an_extension_is_asked_with_the_first_endpoint_and_hears_its_links(registry, server):
    heard: list[ProcessTelemetry] = []
    asked: list[threading.Thread] = []

    def extend() -> Listener:
        asked.append(threading.current_thread())
        return heard.append

    pump = TelemetryPump(registry, server.dial, extend)
    pump.install()
    assert asked == []
    register(registry)
    register(registry)
    assert asked == [threading.current_thread()]
    pump.shutdown(PATIENCE_S)
    assert heard[-1].batch.final


def test_a_graph_is_being_linked_until_its_server_has_answered(registry, server, pump):
    assert not pump.is_linking(GRAPH)
    publisher = register(registry)
    assert pump.is_linking(GRAPH)
    server.hello()
    assert pump.flush(PATIENCE_S)
    assert not pump.is_linking(GRAPH)
    registry.unregister_publisher(publisher.id)


def test_an_endpoint_without_a_graph_starts_nothing(registry, server, pump):
    registry.register_publisher(uuid4(), "OUT", 8)
    assert telemetry_threads() == []


def test_flush_sends_what_was_recorded(registry, server, pump):
    publisher = register(registry)
    server.hello()
    for number in range(10):
        publish(publisher, number, number, trace=(1, number + 1, 0))
    assert pump.flush(PATIENCE_S)
    taken = 0
    while taken < 10:
        taken += len(server.batch().spans) // 128
    assert taken == 10


def test_flush_without_endpoints_has_nothing_to_do(pump):
    assert pump.flush(0.0)


def test_a_trace_wakes_the_pump(registry, server, pump):
    publisher = register(registry)
    server.hello()
    server.batch()
    begin_trace(registry)
    publish(publisher, 0)
    while not server.batch().selected:
        pass


def test_shutdown_says_goodbye_for_endpoints_that_are_still_open(registry, server, pump):
    publisher = register(registry)
    server.hello()
    publish(publisher, 0, inflight=3)
    pump.shutdown(PATIENCE_S)
    last = server.batches_to_the_end()[-1]
    assert (last.final, last.counters[0].values["inflight"], last.counters[0].values["sent"]) == (True, 0, 1)
    assert telemetry_threads() == []
    register(registry)
    assert telemetry_threads() == []


def test_an_abandoned_graph_hears_of_endpoints_that_are_there_and_of_their_end_nothing(registry, server, pump):
    publisher = register(registry)
    server.hello()
    pump.abandon(GRAPH)
    publish(publisher, 0)
    assert pump.flush(PATIENCE_S)
    assert 1 in [counters.values.get("sent") for batch in server.batches_so_far() for counters in batch.counters]
    [thread] = telemetry_threads()
    registry.unregister_publisher(publisher.id)
    thread.join(PATIENCE_S)
    assert server.batches_to_the_end() == []
    # One that comes later is in another graph at the same address.
    register(registry)
    assert server.hello()
    pump.shutdown(PATIENCE_S)
    assert server.batches_to_the_end()[-1].final


def test_a_graph_is_told_of_the_end_of_endpoints_that_came_after_one_at_its_address_was_abandoned(registry, server):
    told, may_go_on = threading.Event(), threading.Event()

    def listen(telemetry: ProcessTelemetry) -> None:
        told.set()
        may_go_on.wait(PATIENCE_S)

    pump = TelemetryPump(registry, server.dial, lambda: listen)
    pump.install()
    first = register(registry)
    server.hello()
    assert told.wait(PATIENCE_S)
    # It has no time to look at this before there is another.
    pump.abandon(GRAPH)
    registry.unregister_publisher(first.id)
    second = register(registry)
    may_go_on.set()
    assert pump.flush(PATIENCE_S)
    registry.unregister_publisher(second.id)
    assert server.batches_to_the_end()[-1].final
    pump.shutdown(PATIENCE_S)


def test_shutdown_tells_all_graphs_the_rest_but_an_abandoned_one(registry, server):
    other = FakeServer()
    pump = TelemetryPump(
        registry, lambda graph, timeout_s: (server if graph == GRAPH else other).dial(graph, timeout_s)
    )
    pump.install()
    for graph in (GRAPH, OTHER_GRAPH):
        register(registry, graph=graph)
    server.hello()
    other.hello()
    pump.abandon(GRAPH)
    pump.shutdown(PATIENCE_S)
    assert telemetry_threads() == []
    assert other.batches_to_the_end()[-1].final
    assert not any(batch.final for batch in server.batches_to_the_end())
    other.close()


def test_nobody_hears_of_a_shutdown_where_the_only_graph_is_abandoned(registry, server, pump):
    publisher = register(registry)
    [thread] = telemetry_threads()
    server.hello()
    pump.abandon(GRAPH)
    pump.shutdown(PATIENCE_S)
    registry.unregister_publisher(publisher.id)
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert not any(batch.final for batch in server.batches_to_the_end())


def test_shutdown_does_not_wait_for_a_server_that_is_not_there(registry, server, pump):
    server.is_up = False
    register(registry)
    pump.shutdown(PATIENCE_S)
    assert telemetry_threads() == []


def test_after_a_goodbye_the_thread_ends_and_a_new_endpoint_begins_again(registry, server, pump):
    register(registry, "OLD")
    [thread] = telemetry_threads()
    server.hello()
    server.say(Goodbye())
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    register(registry, "NEW")
    server.hello()
    assert [endpoint.topic for endpoint in server.batch().endpoints] == ["NEW"]


def test_a_registry_that_begins_anew_is_linked_anew(registry, server, pump):
    register(registry, "OLD")
    first = server.hello()
    server.batch()
    registry.set_process_id(uuid4(), reset=True)
    new = register(registry, "NEW")
    assert server.batches_to_the_end()[-1].final
    assert server.hello().link_id != first.link_id
    batch = server.batch()
    assert [endpoint.topic for endpoint in batch.endpoints] == ["NEW"]
    registry.unregister_publisher(new.id)


def test_each_graph_has_a_link(registry, pump, server):
    others = {GRAPH: server, "127.0.0.1:1": FakeServer()}

    def dial(graph: str, timeout_s: float) -> socket.socket:
        return others[graph].dial(graph, timeout_s)

    pump._dial = dial
    one, two = register(registry, "ONE"), register(registry, "TWO", "127.0.0.1:1")
    for graph, topic in ((GRAPH, "ONE"), ("127.0.0.1:1", "TWO")):
        others[graph].hello()
        assert [endpoint.topic for endpoint in others[graph].batch().endpoints] == [topic]
    assert len(telemetry_threads()) == 1
    registry.unregister_publisher(two.id)
    assert others["127.0.0.1:1"].batches_to_the_end()[-1].final
    assert len(telemetry_threads()) == 1
    publish(one, 0)
    assert pump.flush(PATIENCE_S)
    others["127.0.0.1:1"].close()


def test_rings_are_read_although_no_server_listens(registry, server, pump):
    server.is_up = False
    publisher = register(registry)
    publish(publisher, 0)
    assert pump.flush(PATIENCE_S)
    assert registry.recorder.unread() == 0.0


def test_a_link_that_fails_in_a_way_nobody_foresaw_is_given_up_and_logged(registry, server, pump, caplog):
    def dial(graph: str, timeout_s: float) -> socket.socket:
        raise LookupError("unforeseen")

    pump._dial = dial
    publisher = register(registry)
    while telemetry_threads() and not caplog.records:
        pump.flush(PATIENCE_S)
    assert "unforeseen" in caplog.text
    registry.unregister_publisher(publisher.id)


def test_the_pace_is_slow_without_a_trace_and_fast_with_one():
    pace = Pace(0.02)
    pace.turn(0.0, 0.0, is_forced=False)
    assert pace.wait_s(is_tracing=False) == INTERVAL_S
    assert pace.wait_s(is_tracing=True) == 0.02


def test_the_pace_is_slower_where_nobody_has_asked_for_anything_for_long():
    pace = Pace(0.02)
    pace.turn(0.0, 0.0, is_forced=True)
    pace.turn(CALM_S - 0.1, 0.0, is_forced=False)
    assert pace.wait_s(is_tracing=False) == INTERVAL_S
    pace.turn(CALM_S, 0.0, is_forced=False)
    assert pace.wait_s(is_tracing=False) == CALM_INTERVAL_S
    assert pace.wait_s(is_tracing=True) == 0.02
    pace.turn(CALM_S + 0.1, 0.0, is_forced=True)
    assert pace.wait_s(is_tracing=False) == INTERVAL_S


def test_the_pace_keeps_rings_half_empty():
    pace = Pace(0.02)
    pace.turn(0.0, 0.0, is_forced=False)
    pace.turn(0.25, 1.0, is_forced=False)
    assert pace.wait_s(is_tracing=False) == pytest.approx(0.125)
    pace.turn(0.375, 1.5, is_forced=False)
    assert pace.wait_s(is_tracing=False) == pytest.approx(0.125 / 3)
    pace.turn(0.376, 50.0, is_forced=False)
    assert pace.wait_s(is_tracing=False) == SHORTEST_S


def test_between_full_turns_only_rows_are_read():
    pace = Pace(0.02)
    found: list[bool] = []
    for turns, forced in ((0.0, False), (0.1, False), (0.2, True), (0.9, False), (1.3, False)):
        pace.turn(turns * INTERVAL_S, 0.0, is_forced=forced)
        found.append(pace.is_rows_only)
    assert found == [False, True, False, True, False]


def test_a_forked_child_began_when_it_was_forked():
    begun_ns = time.time_ns()
    assert say_hello("link").started_unix_ns < begun_ns
    assert in_child(lambda: begun_ns <= say_hello("link").started_unix_ns <= time.time_ns())
