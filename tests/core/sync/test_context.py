"""A context's life: entered once, shut down from anywhere, leaving nothing."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from ezmsg.core import sync
from ezmsg.core.dag import CyclicException
from ezmsg.core.errors import ServerUnreachable, SyncContextClosed
from ezmsg.core.graphserver import GraphServer, GraphService
from ezmsg.core.sync import SyncContext
from tests.core.forked import in_child
from tests.core.sync.conftest import Background, somebody_spins, wait_until


def test_it_cannot_be_used_before_it_is_entered(server: GraphServer) -> None:
    context = sync.init(server.address)
    calls: list[Any] = [lambda: context.publisher("A"), lambda: context.spin(), lambda: context.spin_once()]
    for call in calls:
        with pytest.raises(RuntimeError, match="SyncContext must be entered with 'with' before use"):
            call()


def test_it_cannot_be_entered_twice_nor_used_after_its_end(server: GraphServer) -> None:
    with SyncContext(server.address) as context:
        publisher = context.publisher("A")
        subscriber = context.subscriber("A")
        with pytest.raises(RuntimeError), context:
            pass
    with pytest.raises(RuntimeError), context:
        pass
    calls: list[Any] = [context.resume, context.spin_once, lambda: publisher.publish(1), lambda: subscriber.recv()]
    for call in calls:
        with pytest.raises(RuntimeError):
            call()
    context.spin()  # it has ended, as spin() waits for


def test_it_starts_a_server_of_its_own_and_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EZMSG_GRAPHSERVER_ADDR", "127.0.0.1:1")
    with pytest.raises(ServerUnreachable), sync.init():
        pass
    with sync.init("127.0.0.1:0", auto_start=True) as context:
        assert context.graph_address is not None
        context.publisher("A").publish(1)
    assert not [thread for thread in threading.enumerate() if isinstance(thread, GraphServer)]


def test_what_entering_raises_leaves_no_thread() -> None:
    with pytest.raises(OSError, match=r"127\.0\.0\.1:1 "), SyncContext("127.0.0.1:1", auto_start=False):
        pass


def test_shutdown_can_be_repeated_and_leaving_afterwards_is_fine(server: GraphServer) -> None:
    with SyncContext(server.address) as context:
        context.publisher("A")
        context.shutdown()
        context.shutdown()


def test_shutdown_before_entering_is_the_end(server: GraphServer) -> None:
    context = SyncContext(server.address)
    context.shutdown()
    with pytest.raises(RuntimeError), context:
        pass


def test_shutdown_from_several_threads_at_once_ends_it_once(server: GraphServer, background: Background) -> None:
    with SyncContext(server.address) as context:
        publisher = context.publisher("A")
        for _ in range(4):
            background.run(context.shutdown)
        background.join()
        with pytest.raises(SyncContextClosed):
            publisher.publish(1)


def test_leaving_while_other_threads_spin_receive_and_publish_ends_them_all(
    server: GraphServer, background: Background
) -> None:
    ended: list[str] = []
    with SyncContext(server.address) as context:
        context.create_subscription("A", print)
        idle = context.subscriber("B")
        paused = context.publisher("C", start_paused=True)

        def refused(call: Any) -> None:
            with pytest.raises(RuntimeError):
                call()
            ended.append("refused")

        def spin() -> None:
            context.spin()
            ended.append("spin")

        background.run(spin)
        background.run(lambda: refused(idle.recv))
        background.run(lambda: refused(lambda: paused.publish(1)))
        wait_until(lambda: somebody_spins(context))
        wait_until(lambda: bool(idle.subscriber._inbox._waiters) and paused._publisher._waiting == 1)
    background.join()
    assert sorted(ended) == ["refused", "refused", "spin"]


def test_edges_are_the_contexts_own_and_go_with_it(server: GraphServer) -> None:
    def topics() -> set[str]:
        return asyncio.run(GraphService(server.address).dag()).nodes

    with SyncContext(server.address) as context:
        context.connect("A", "B", timeout=40)
        context.connect("B", "C")
        with pytest.raises(CyclicException):
            context.connect("C", "A")
        context.disconnect("B", "C", timeout=40)
        assert topics() == {"A", "B"}
    assert topics() == set()


def test_pause_resume_and_sync_reach_the_publishers_of_the_graph(context: SyncContext) -> None:
    publisher = context.publisher("A")
    context.pause()
    assert not publisher.running
    with pytest.raises(TimeoutError, match=r"publishing on 'A' took longer than 0\.01 s"):
        publisher.publish(1, timeout=0.01)
    context.resume(timeout=40)
    publisher.publish(2)
    context.sync()
    assert not publisher.running


def test_a_sync_that_takes_longer_is_a_timeout_error(context: SyncContext) -> None:
    subscriber = context.subscriber("A")
    publisher = context.publisher("A")
    publisher.publish(1)
    with pytest.raises(TimeoutError):
        context.sync(timeout=0.05)
    with pytest.raises(TimeoutError):
        publisher.sync(timeout=0.05)
    assert subscriber.recv() == 1
    context.sync(timeout=40)
    publisher.sync(timeout=40)


def test_a_forked_child_is_told_instead_of_waiting_for_a_thread_it_has_not(context: SyncContext) -> None:
    publisher, subscriber = context.publisher("A"), context.subscriber("A")

    def is_refused() -> bool:
        for call in (lambda: publisher.publish(1), lambda: subscriber.recv(), lambda: context.spin_once(5)):
            with pytest.raises(SyncContextClosed):
                call()
        context.shutdown()
        return True

    assert in_child(is_refused)
    publisher.publish(2)
    assert subscriber.recv(timeout=40) == 2


def test_many_contexts_live_side_by_side(server: GraphServer, background: Background) -> None:
    received: list[int] = []

    def visit(number: int) -> None:
        with SyncContext(server.address) as context:
            subscriber = context.subscriber(f"T{number}")
            context.publisher(f"T{number}").publish(number)
            received.append(subscriber.recv(timeout=40))

    for number in range(8):
        background.run(lambda number=number: visit(number))
    background.join()
    assert sorted(received) == list(range(8))
