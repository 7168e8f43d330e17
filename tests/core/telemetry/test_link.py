import logging
import pickle
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from ezmsg.core.errors import SessionClosed
from ezmsg.core.graphmeta import ProcessControlOperation, ProfilingTraceControl
from ezmsg.core.profiling import ProfileRegistry, PublisherMetrics
from ezmsg.core.telemetry.collect import Collector
from ezmsg.core.telemetry.link import BACKOFF_S, LONGEST_BACKOFF_S, TelemetryLink
from ezmsg.core.telemetry.operations import answer
from ezmsg.core.telemetry.pump import say_hello
from ezmsg.core.wire.frames import refusal_of
from ezmsg.core.wire.records import (
    CancelRequest,
    Done,
    DrainTelemetry,
    Goodbye,
    ProcessRequest,
    ProcessResponse,
    ProcessTelemetry,
    TelemetryOpened,
    decode_record,
    encode_record,
)
from tests.certificates import Authority
from tests.core.net.securing import secure
from tests.core.profiling.recording import publish
from tests.core.telemetry.serving import ANCHOR, GRAPH, FakeServer


@pytest.fixture(params=["plain", "tls"])
def server(request: pytest.FixtureRequest, authority: Authority) -> Iterator[FakeServer]:
    files = authority.issue("localhost")
    made = FakeServer(secure=(lambda *ends: secure(*ends, files)) if request.param == "tls" else None)
    yield made
    made.close()


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def link_of(registry: ProfileRegistry, *args: Any) -> TelemetryLink:
    collector = Collector(registry, GRAPH)
    return TelemetryLink(GRAPH, collector, say_hello, registry.set_anchor, partial(answer, registry, GRAPH), *args)


@pytest.fixture
def link(registry: ProfileRegistry, server: FakeServer, clock: Clock) -> Iterator[TelemetryLink]:
    made = link_of(registry, server.dial, clock)
    yield made
    made.close()


@pytest.fixture
def publisher(registry: ProfileRegistry, link: TelemetryLink) -> PublisherMetrics:
    return registry.register_publisher(uuid4(), "OUT", 8, graph_address=GRAPH)


def step(link: TelemetryLink, *, is_wanted: bool = True) -> float:
    return link.step(rows_only=False, is_wanted=is_wanted)


def test_a_link_says_hello_and_then_what_there_is(registry, server, link, publisher):
    publish(publisher, 0, trace=(1, 2, 0))
    assert step(link) == float("inf")
    hello = server.hello()
    assert hello.link_id
    assert hello.process_name
    assert hello.mono_ns > 0
    assert [endpoint.topic for endpoint in server.batch().endpoints] == ["OUT"]
    assert registry.anchor == ANCHOR
    step(link)
    assert not server.has_more()


def test_the_name_of_a_process_can_be_set(monkeypatch):
    monkeypatch.setenv("EZMSG_PROCESS_NAME", "decoder")
    assert say_hello("l").process_name == "decoder"


def test_a_process_whose_script_has_a_name_that_is_no_text_says_who_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("EZMSG_PROCESS_NAME", raising=False)
    monkeypatch.setattr("sys.argv", ["/srv/of\udcff.py"])
    assert decode_record(*encode_record(say_hello("l"))).process_name == "of?.py"


def test_when_nobody_wants_it_a_link_says_goodbye_and_is_over(registry, server, link, publisher):
    step(link)
    publish(publisher, 0)
    registry.unregister_publisher(publisher.id)
    step(link, is_wanted=False)
    assert link.is_over
    server.hello()
    batches = server.batches_to_the_end()
    assert batches[-1].final
    assert batches[-2].closed == [publisher.index]
    assert batches[-2].counters[0].values["sent"] == 1


def test_what_ended_before_the_first_connection_is_told_all_the_same(registry, server, link, publisher):
    publish(publisher, 0)
    registry.unregister_publisher(publisher.id)
    step(link, is_wanted=False)
    server.hello()
    first, *_, last = server.batches_to_the_end()
    assert (first.counters[0].values["sent"], last.final) == (1, True)


@pytest.fixture
def heard() -> list[ProcessTelemetry]:
    return []


@pytest.fixture
def heard_link(registry, server, clock, heard) -> Iterator[TelemetryLink]:
    """A link with a listener."""
    made = link_of(registry, server.dial, clock, heard.append)
    yield made
    made.close()


def test_a_listener_hears_everything_the_server_is_told(registry, server, heard_link, heard):
    publisher = registry.register_publisher(uuid4(), "OUT", 8, graph_address=GRAPH)
    publish(publisher, 0, trace=(1, 2, 0))
    step(heard_link)
    registry.unregister_publisher(publisher.id)
    step(heard_link, is_wanted=False)
    link_id = server.hello().link_id
    assert [telemetry.batch for telemetry in heard] == server.batches_to_the_end()
    assert {(telemetry.link_id, telemetry.anchor) for telemetry in heard} == {(link_id, ANCHOR)}
    assert heard[-1].batch.final


@pytest.mark.parametrize("is_up", [False, True], ids=["gone", "says goodbye"])
def test_a_listener_hears_everything_although_the_server_ended_before_the_link_was_there(
    registry, server, heard_link, heard, is_up
):
    server.is_up, server.answer = is_up, Goodbye("over")
    publisher = registry.register_publisher(uuid4(), "OUT", 8, graph_address=GRAPH)
    for number in range(10_001):  # of which a batch takes 5,000
        publish(publisher, number, number, trace=(1, number + 1, 0))
    registry.unregister_publisher(publisher.id)
    step(heard_link, is_wanted=False)
    assert heard_link.is_over
    assert sum(len(telemetry.batch.spans) // 128 for telemetry in heard) == 10_001
    assert heard[0].batch.counters[0].values["sent"] == 10_001
    assert [telemetry.batch.final for telemetry in heard] == [False, False, False, True]
    assert {telemetry.anchor for telemetry in heard} == {registry.anchor}


def test_a_listener_hears_the_rest_although_the_server_is_not_back_when_the_process_ends(
    registry, server, heard_link, heard, clock
):
    publisher = registry.register_publisher(uuid4(), "OUT", 8, graph_address=GRAPH)
    step(heard_link)
    server.hello()
    server.hang_up()
    step(heard_link)
    heard.clear()
    publish(publisher, 0, trace=(1, 2, 0))
    heard_link.finish(clock.now_s)
    assert [len(telemetry.batch.spans) // 128 for telemetry in heard] == [1, 0]
    assert heard[-1].batch.final


def test_a_goodbye_ends_a_link_for_good(registry, server, link, publisher):
    step(link)
    server.hello()
    server.say_goodbye()
    assert step(link) == 0.0
    assert link.is_over
    assert not registry.has_endpoints(GRAPH)
    assert server.dialled == 1


def test_after_a_goodbye_the_server_is_told_what_it_has_not_heard(registry, server, link, publisher):
    step(link)
    server.hello()
    server.batch()
    publish(publisher, 0, inflight=2)
    server.say_goodbye()
    step(link)
    *_, before, last = server.batches_to_the_end()
    assert before.counters[0].values["sent"] == 1
    assert (last.final, last.counters[0].values["inflight"]) == (True, 0)


def test_a_server_that_drains_is_answered_when_everything_was_sent(server, link, publisher):
    step(link)
    server.hello()
    server.batch()
    for number in range(3):
        publish(publisher, number, number, trace=(1, number + 1, 0))
    server.ask(DrainTelemetry(), 7)
    link.step(rows_only=True, is_wanted=True)
    batch = server.batch()
    assert (len(batch.spans) // 128, batch.counters[0].values["sent"]) == (3, 3)
    assert server.read() == Done()
    assert not link.is_over


def test_what_is_asked_of_a_process_is_done_and_answered_and_cannot_be_taken_back(registry, server, link, publisher):
    step(link)
    link_id = server.hello().link_id
    server.batches_so_far()
    control = pickle.dumps(ProfilingTraceControl(True, level="off"))
    server.ask(ProcessRequest("", ProcessControlOperation.SET_PROFILING_TRACE.value, control, process_id=link_id), 7)
    server.say(CancelRequest(7))
    step(link)
    publish(publisher, 0)
    assert publisher.timed is False
    answers = [record for record in server.records_so_far() if isinstance(record, ProcessResponse)]
    assert [(answer.ok, answer.process_id) for answer in answers] == [(True, link_id)]


def test_a_registry_that_begins_anew_makes_its_links_stale(registry, server, link, publisher):
    step(link)
    server.hello()
    server.batch()
    registry.set_process_id(uuid4(), reset=True)
    assert link.is_stale
    publish(publisher, 0)  # still writes where it always did
    step(link, is_wanted=False)
    assert link.is_over
    assert server.batches_to_the_end()[-1].final


def test_a_lost_connection_is_opened_again_and_everything_told_again(registry, server, link, publisher, clock):
    publish(publisher, 0)
    step(link)
    first = server.hello()
    server.hang_up()
    assert step(link) == pytest.approx(BACKOFF_S)
    assert step(link) > 0  # not yet
    assert server.dialled == 1
    clock.now_s += BACKOFF_S + 1e-6
    step(link)
    assert server.hello().link_id == first.link_id
    assert [endpoint.topic for endpoint in server.batch().endpoints] == ["OUT"]


def test_rows_the_server_did_not_get_are_sent_again(server, link, publisher, clock):
    for number in range(3):
        publish(publisher, number, number, trace=(1, number + 1, 0))
        step(link)
    server.hello()
    server.hang_up()
    step(link)
    server.answer = TelemetryOpened(ANCHOR, last_seq=0)
    clock.now_s += BACKOFF_S + 1e-6
    step(link)
    server.hello()
    assert len(server.batch().spans) == 2 * 128


@pytest.mark.parametrize(("epoch", "expected"), [("here", 1), ("another", 2)])
def test_rows_that_an_earlier_link_told_are_told_again_to_another_server_only(
    registry, server, link, publisher, clock, epoch, expected
):
    publish(publisher, 0, 0, trace=(1, 1, 0))
    Collector(registry, GRAPH).collect()
    server.answer = TelemetryOpened(ANCHOR, epoch="here")
    step(link)
    server.hello()
    server.hang_up()
    step(link)
    server.answer = TelemetryOpened(ANCHOR, epoch=epoch)
    publish(publisher, 1, 1, trace=(1, 2, 0))
    clock.now_s += BACKOFF_S + 1e-6
    step(link)
    server.hello()
    assert len(server.batch().spans) == expected * 128


def test_a_server_that_is_down_is_tried_ever_less_often(server, link, publisher, clock, caplog):
    server.is_up = False
    waits: list[float] = []
    for _ in range(8):
        waits.append(step(link))
        clock.now_s += waits[-1] + 1e-6
    assert waits == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, LONGEST_BACKOFF_S, LONGEST_BACKOFF_S])
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_one_failure_to_connect_is_no_news(server, link, publisher, clock, caplog):
    for _ in range(2):
        server.is_up = False
        clock.now_s += step(link) + 1e-6
        server.is_up = True
        step(link)
        server.hello()
        server.hang_up()
        clock.now_s += step(link) + 1e-6
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_server_that_refuses_is_tried_again(server, link, publisher, clock):
    server.answer = refusal_of(SessionClosed())
    assert step(link) > 0
    assert not link.is_over
    server.hello()
    server.answer = TelemetryOpened(ANCHOR)
    clock.now_s += 1.0
    step(link)
    server.hello()
    server.batch()


def test_a_server_that_hangs_up_instead_of_answering_is_tried_again(server, link, publisher, clock):
    def dial(graph: str, timeout_s: float) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.close()
        return theirs

    link._dial = dial
    assert step(link) > 0
    link._dial = server.dial
    clock.now_s += 1.0
    step(link)
    server.hello()


def test_without_a_server_a_link_that_nobody_wants_gives_up(registry, server, link, publisher):
    server.is_up = False
    registry.unregister_publisher(publisher.id)
    assert step(link, is_wanted=False) == 0.0
    assert link.is_over
    registry.snapshot()
    assert registry.recorder.endpoints.closed == {}


def test_a_server_that_does_not_read_holds_up_one_batch_and_no_row_is_lost(registry, server, link, publisher):
    step(link)
    number = 0
    while not link.is_stuck:
        for _ in range(2000):
            number += 1
            publish(publisher, number, number, trace=(1, number, 0))
        step(link)
    assert not link.is_over
    server.hello()
    taken = 0
    while link.is_stuck or server.has_more():
        taken += sum(len(batch.spans) // 128 for batch in server.batches_so_far())
        step(link)
    assert taken == number


def test_a_record_that_does_not_belong_there_breaks_the_connection(server, link, publisher):
    step(link)
    server.hello()
    server.say(Done())
    assert step(link) == pytest.approx(BACKOFF_S)
    assert not link.is_over


def test_finishing_waits_for_a_slow_server_only_so_long(server, link, publisher, clock):
    step(link)
    number = 0
    while not link.is_stuck:
        for _ in range(2000):
            number += 1
            publish(publisher, number, number, trace=(1, number, 0))
        step(link)
    link.finish(clock.now_s)
    assert not link.is_over


def test_finishing_before_the_first_connection_still_tells_everything(server, link, publisher, clock):
    publish(publisher, 0)
    link.finish(clock.now_s + 5.0)
    assert link.is_over
    server.hello()
    first, *_, last = server.batches_to_the_end()
    assert (first.counters[0].values["sent"], last.final) == (1, True)


def test_who_was_abandoned_is_not_followed_by_the_next_graph_at_its_address(registry, server, link, publisher):
    step(link)
    before = server.hello().link_id
    publish(publisher, 0)
    step(link)
    registry.unregister_publisher(publisher.id)
    link.abandon()
    collector = Collector(registry, GRAPH)
    assert collector.link_id != before
    collector.begin(-1, is_new_server=False)
    batch = collector.collect()
    assert batch is None or not batch.endpoints
