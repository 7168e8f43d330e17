"""Blocking publishers and subscribers."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

import numpy as np
import pytest

from ezmsg.core.errors import MessageNotSerializable, PublisherClosed, SubscriberClosed
from ezmsg.core.sync import SyncContext
from tests.core.sync.conftest import Background, press_ctrl_c, wait_until

# -- receiving --------------------------------------------------------------------------------------------------------


def test_a_message_is_received_as_a_copy_and_zero_copy_as_itself(context: SyncContext) -> None:
    publisher, subscriber = context.create_publisher("A"), context.subscriber("A")
    message = [1, 2]
    publisher.publish(message)
    publisher.broadcast(message)
    copied = subscriber.recv()
    assert copied == message
    assert copied is not message
    with subscriber.recv_zero_copy() as itself:
        assert itself is message


def test_arrays_from_shared_memory_are_the_receivers_own_after_recv(context: SyncContext) -> None:
    subscriber = context.subscriber("A")
    publisher = context.publisher("A", allow_local=False, num_buffers=1)
    publisher.publish(np.arange(100_000))
    first = subscriber.recv()
    publisher.publish(np.zeros(100_000, dtype=int))
    with subscriber.recv_zero_copy() as second:
        assert not second.any()
    first += 1
    assert first[0] == 1
    assert first[-1] == 100_000


def test_a_receive_that_times_out_loses_no_message(context: SyncContext) -> None:
    publisher, subscriber = context.publisher("A"), context.subscriber("A")
    for timeout in (0, 0.01):
        with pytest.raises(TimeoutError, match=f"waiting for a message on 'A' took longer than {timeout} s"):
            subscriber.recv(timeout)
        with pytest.raises(TimeoutError), subscriber.recv_zero_copy(timeout):
            pass
    for number in range(3):
        publisher.publish(number)
    assert [subscriber.recv(timeout=0) for _ in range(3)] == [0, 1, 2]


def test_whoever_only_looked_for_a_message_is_not_woken_in_place_of_who_waits(
    context: SyncContext, background: Background
) -> None:
    publisher, subscriber = context.publisher("A"), context.subscriber("A")
    looked = []
    for _ in range(20):
        with pytest.raises(TimeoutError) as error:
            subscriber.recv(timeout=0)
        looked.append(error)
    received: list[str] = []
    background.run(lambda: received.append(subscriber.recv(timeout=40)))
    publisher.publish("news")
    background.join()
    assert received == ["news"]


def test_messages_arrive_in_order_while_receives_time_out(context: SyncContext, background: Background) -> None:
    publisher, subscriber = context.publisher("A"), context.subscriber("A")
    background.run(lambda: [publisher.publish(number) for number in range(500)])
    received: list[int] = []
    while len(received) < 500:
        with contextlib.suppress(TimeoutError):
            received.append(subscriber.recv(timeout=0.0001))
    assert received == list(range(500))


def test_a_slot_is_free_when_the_block_is_left_also_by_an_exception(context: SyncContext) -> None:
    subscriber = context.subscriber("A")
    publisher = context.publisher("A", num_buffers=1)
    for number in range(3):
        publisher.publish(number, timeout=40)
        with pytest.raises(ZeroDivisionError), subscriber.recv_zero_copy() as held:
            with pytest.raises(TimeoutError):
                publisher.publish("too early", timeout=0.01)
            held / 0


def test_a_leaky_subscriber_keeps_the_newest(context: SyncContext) -> None:
    publisher, subscriber = context.publisher("A"), context.subscriber("A", leaky=True, max_queue=2)
    assert subscriber.leaky
    for number in range(5):
        publisher.publish(number)
    assert [subscriber.recv(), subscriber.recv()] == [3, 4]


def test_several_threads_receive_each_message_once(context: SyncContext, background: Background) -> None:
    publisher, subscriber = context.publisher("A"), context.subscriber("A")
    received: list[int] = []
    for _ in range(4):
        background.run(lambda: received.extend(subscriber.recv() for _ in range(50)))
    for number in range(200):
        publisher.publish(number)
    background.join()
    assert sorted(received) == list(range(200))


# -- publishing -------------------------------------------------------------------------------------------------------


def test_what_publishing_raises_arrives_and_the_publisher_stays_usable(context: SyncContext) -> None:
    subscriber = context.subscriber("A")
    publisher = context.publisher("A", allow_local=False)
    with pytest.raises(MessageNotSerializable, match="'A'"):
        publisher.publish(lambda: None)
    publisher.publish(1)
    assert subscriber.recv(timeout=40) == 1


def test_a_publish_that_times_out_sent_nothing(context: SyncContext) -> None:
    subscriber = context.subscriber("A")
    publisher = context.publisher("A", num_buffers=1)
    publisher.publish(1)
    with pytest.raises(TimeoutError):
        publisher.publish(2, timeout=0.01)
    assert subscriber.recv() == 1
    publisher.publish(3)
    assert subscriber.recv() == 3


def test_a_paused_publisher_waits_until_it_is_resumed(context: SyncContext, background: Background) -> None:
    publisher, subscriber = context.publisher("A", start_paused=True), context.subscriber("A")
    assert not publisher.running
    background.run(lambda: publisher.publish(1))
    with pytest.raises(TimeoutError):
        subscriber.recv(timeout=0.01)
    publisher.resume()
    assert subscriber.recv(timeout=40) == 1
    publisher.pause()
    assert not publisher.running


def test_several_threads_publish_on_one_publisher(context: SyncContext, background: Background) -> None:
    subscriber = context.subscriber("A")
    publisher = context.publisher("A", num_buffers=4)
    for first in range(0, 400, 100):
        background.run(lambda first=first: [publisher.publish(first + number) for number in range(100)])
    received = [subscriber.recv(timeout=40) for _ in range(400)]
    assert sorted(received) == list(range(400))
    for first in range(0, 400, 100):
        assert [number for number in received if first <= number < first + 100] == list(range(first, first + 100))


# -- the end ----------------------------------------------------------------------------------------------------------


def test_closed_endpoints_say_so_and_wake_who_waits(context: SyncContext, background: Background) -> None:
    publisher, subscriber = context.publisher("A", start_paused=True), context.subscriber("A")

    def refused(call: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match="'A' is closed"):
            call()

    background.run(lambda: refused(subscriber.recv, SubscriberClosed))
    background.run(lambda: refused(lambda: publisher.publish(1), PublisherClosed))
    wait_until(lambda: bool(subscriber.subscriber._inbox._waiters) and publisher._publisher._waiting == 1)
    for endpoint in (publisher, subscriber):
        endpoint.close()
        endpoint.close()
        endpoint.wait_closed(timeout=40)
    background.join()
    refused(subscriber.recv, SubscriberClosed)
    refused(lambda: publisher.publish(1), PublisherClosed)
    context.shutdown()
    publisher.close()
    subscriber.wait_closed()


def test_closing_a_publisher_delivers_what_was_sent(context: SyncContext) -> None:
    subscriber = context.subscriber("A")
    publisher = context.publisher("A", allow_local=False)
    for number in range(10):
        publisher.publish(number)
    publisher.close()
    publisher.wait_closed()
    assert [subscriber.recv(timeout=40) for _ in range(10)] == list(range(10))


# -- Ctrl-C -----------------------------------------------------------------------------------------------------------


def test_an_interrupted_receive_loses_no_message(context: SyncContext, background: Background) -> None:
    publisher, subscriber = context.publisher("A"), context.subscriber("A")

    def interrupt() -> None:
        wait_until(lambda: bool(subscriber.subscriber._inbox._waiters))
        press_ctrl_c()

    background.run(interrupt)
    with pytest.raises(KeyboardInterrupt):
        subscriber.recv()
    background.join()
    for number in range(3):
        publisher.publish(number)
    assert [subscriber.recv(timeout=40) for _ in range(3)] == [0, 1, 2]


def test_an_interrupted_publish_sends_nothing_and_leaves_the_publisher_usable(
    context: SyncContext, background: Background
) -> None:
    publisher, subscriber = context.publisher("A", start_paused=True), context.subscriber("A")

    def interrupt() -> None:
        wait_until(lambda: publisher._publisher._waiting == 1)
        press_ctrl_c()

    background.run(interrupt)
    with pytest.raises(KeyboardInterrupt):
        publisher.publish("never")
    background.join()
    publisher.resume()
    publisher.publish("after")
    assert subscriber.recv(timeout=40) == "after"


def test_an_interrupt_at_any_moment_leaves_no_slot_held(context: SyncContext, background: Background) -> None:
    """Ctrl-C strikes wherever it may, many times; each message is received once at most, and none is kept for ever."""
    publisher, subscriber = context.publisher("A", num_buffers=2), context.subscriber("A")
    seen: list[int] = []
    interrupts, number = 0, 0
    is_over = False

    def has_moved_since(before: int) -> bool:
        return number > before or is_over

    def strike() -> None:
        while not is_over:
            wait_until(partial(has_moved_since, number))
            if not is_over:
                press_ctrl_c()

    background.run(strike)
    while interrupts < 50:
        try:
            while True:
                number += 1
                publisher.publish(number, timeout=40)
                with subscriber.recv_zero_copy(timeout=40) as message:
                    seen.append(message)
        except KeyboardInterrupt:
            interrupts += 1
            with contextlib.suppress(TimeoutError):
                while True:
                    seen.append(subscriber.recv(timeout=0))
    is_over = True
    with contextlib.suppress(KeyboardInterrupt):
        background.join()
    with contextlib.suppress(TimeoutError):
        while True:
            seen.append(subscriber.recv(timeout=0))
    assert len(seen) == len(set(seen))
    publisher.sync(timeout=40)
