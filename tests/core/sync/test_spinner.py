"""Callbacks: who is called, in which thread, with what, and what becomes of what they raise."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from ezmsg.core import sync
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.profiling import PROFILES
from ezmsg.core.sync import SyncContext
from tests.core.sync.conftest import Background, press_ctrl_c, somebody_spins, wait_until


def test_a_turn_handles_one_message_of_every_subscription_that_has_one(context: SyncContext) -> None:
    called: list[tuple[str, int]] = []
    for topic in ("A", "B", "C"):
        context.create_subscription(topic, lambda message, topic=topic: called.append((topic, message)))
    a, b = context.publisher("A"), context.publisher("B")
    for number in range(2):
        a.publish(number)
    b.publish(7)
    assert context.spin_once()
    assert called == [("A", 0), ("B", 7)]
    assert sync.spin_once(context)
    assert called[2:] == [("A", 1)]
    assert not context.spin_once()
    assert not context.spin_once(timeout=0.01)


def test_a_waiting_turn_ends_with_the_first_message(context: SyncContext, background: Background) -> None:
    called: list[int] = []
    context.create_subscription("QUIET", called.append)
    context.create_subscription("A", called.append)
    publisher = context.publisher("A")

    def publish() -> None:
        wait_until(lambda: somebody_spins(context))
        publisher.publish(1)

    background.run(publish)
    assert context.spin_once(timeout=None)
    assert called == [1]
    background.run(publish)
    assert context.spin_once(timeout=40)
    assert called == [1, 1]


def test_a_waiting_turn_sees_a_subscription_that_is_made_meanwhile(
    context: SyncContext, background: Background
) -> None:
    called: list[int] = []

    def subscribe() -> None:
        wait_until(lambda: somebody_spins(context))
        context.create_subscription("A", called.append)
        context.publisher("A").publish(1)

    background.run(subscribe)
    assert context.spin_once(timeout=40)
    assert called == [1]


def test_callbacks_run_in_the_thread_that_spins_with_a_copy_or_the_message_itself(context: SyncContext) -> None:
    message = ["x"]
    got: list[tuple[object, threading.Thread]] = []
    context.create_subscription("A", lambda obj: got.append((obj, threading.current_thread())))
    context.create_subscription(
        "A", lambda obj: got.append((obj, threading.current_thread())), zero_copy=True
    )  # fmt: skip
    context.publisher("A").publish(message)
    assert context.spin_once(timeout=40)
    [(copied, first), (itself, second)] = got
    assert copied == message
    assert copied is not message
    assert itself is message
    assert first is second is threading.current_thread()


@pytest.mark.parametrize("zero_copy", [False, True])
def test_a_slot_is_held_until_the_callback_returned(
    context: SyncContext, background: Background, zero_copy: bool
) -> None:
    publisher = context.publisher("A", num_buffers=1)
    returned_s: list[float] = []

    def slow(_message: int) -> None:
        with pytest.raises(TimeoutError):
            publisher.publish("too early", timeout=0.05)
        returned_s.append(time.monotonic())

    context.create_subscription("A", slow, zero_copy=zero_copy)
    sent_s: list[float] = []

    def publish() -> None:
        for number in range(3):
            publisher.publish(number)
            sent_s.append(time.monotonic())

    background.run(publish)
    while len(returned_s) < 3:
        context.spin_once(timeout=40)
    background.join()
    assert sent_s[1] > returned_s[0]
    assert sent_s[2] > returned_s[1]


def test_what_a_callback_raises_is_logged_and_the_next_message_comes(
    context: SyncContext, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(message: int) -> None:
        raise ValueError(f"no {message}")

    context.create_subscription("A", fail)
    publisher = context.publisher("A", num_buffers=1)
    with caplog.at_level(logging.ERROR, "ezmsg"):
        for number in range(3):
            publisher.publish(number, timeout=40)
            assert context.spin_once(timeout=40)
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["no 0", "no 1", "no 2"]


class Unreadable:
    """Cannot be made again from its bytes."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return int, ("no number",)


def test_a_message_that_cannot_be_read_is_logged_and_the_next_one_comes(
    context: SyncContext, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[object] = []
    context.create_subscription("A", called.append)
    publisher = context.publisher("A", allow_local=False, num_buffers=1)
    with caplog.at_level(logging.ERROR, "ezmsg"):
        publisher.publish(Unreadable())
        context.spin_once(timeout=40)
        publisher.publish("readable", timeout=40)
        while not called:
            context.spin_once(timeout=40)
    assert called == ["readable"]
    assert "cannot be read here" in caplog.text


def test_what_cannot_be_called_and_a_coroutine_function_are_no_callbacks(context: SyncContext) -> None:
    async def wrong(_message: object) -> None: ...

    with pytest.raises(TypeError, match="coroutine function"):
        context.create_subscription("A", wrong)
    with pytest.raises(TypeError, match="cannot be called"):
        context.create_subscription("A", "print")  # type: ignore[arg-type]


def test_a_subscription_without_callback_is_left_alone(context: SyncContext) -> None:
    subscriber = context.create_subscription("A")
    context.publisher("A").publish(1)
    assert not context.spin_once(timeout=0.01)
    assert subscriber.recv(timeout=40) == 1


def test_a_closed_subscription_is_spun_no_more_also_when_its_own_callback_closes_it(context: SyncContext) -> None:
    called: list[int] = []

    def once(message: int) -> None:
        called.append(message)
        subscription.close()

    subscription = context.create_subscription("A", once)
    publisher = context.publisher("A")
    for number in range(3):
        publisher.publish(number)
    assert context.spin_once(timeout=40)
    assert not context.spin_once(timeout=0.01)
    assert called == [0]
    publisher.sync(timeout=40)


def test_receiving_by_hand_and_spinning_share_the_messages_of_a_subscription(
    context: SyncContext, background: Background
) -> None:
    got: list[int] = []
    subscription = context.create_subscription("A", got.append)
    background.run(lambda: got.extend(subscription.recv() for _ in range(100)))
    publisher = context.publisher("A")

    def publish() -> None:
        for number in range(200):
            publisher.publish(number)

    background.run(publish)
    for _ in range(100):
        while not context.spin_once(timeout=40):
            pass
    background.join()
    assert sorted(got) == list(range(200))


def test_several_threads_spin_and_each_message_is_handled_once(server: GraphServer, background: Background) -> None:
    handled: list[int] = []
    with SyncContext(server.address) as context:
        for topic in ("A", "B"):
            context.create_subscription(topic, handled.append)
        a, b = context.publisher("A"), context.publisher("B")
        for _ in range(3):
            background.run(context.spin)
        for number in range(0, 400, 2):
            a.publish(number)
            b.publish(number + 1)
        wait_until(lambda: len(handled) >= 400)
    assert sorted(handled) == list(range(400))


# -- the end of spin --------------------------------------------------------------------------------------------------


def test_spin_ends_when_a_callback_shuts_the_context_down(server: GraphServer) -> None:
    called: list[int] = []
    with sync.init(server.address) as context:

        def last(message: int) -> None:
            called.append(message)
            context.shutdown()

        context.create_subscription("A", last)
        publisher = context.publisher("A")
        for number in range(3):
            publisher.publish(number)
        sync.spin(context, poll_interval=30)
    assert called == [0]
    # The message that was handled meanwhile was let go of after the end of its loop: nothing is measured any more.
    assert not PROFILES.snapshot().subscribers


def test_shutdown_ends_a_waiting_turn_at_once(server: GraphServer, background: Background) -> None:
    answers: list[bool] = []
    with sync.init(server.address) as context:
        context.create_subscription("A", print)
        background.run(lambda: answers.append(context.spin_once(timeout=None)))
        wait_until(lambda: somebody_spins(context))
        context.shutdown()
    background.join()
    assert answers == [False]


def test_ctrl_c_ends_spin_and_no_message_is_lost(context: SyncContext, background: Background) -> None:
    called: list[int] = []
    context.create_subscription("A", called.append)

    def interrupt() -> None:
        wait_until(lambda: somebody_spins(context))
        press_ctrl_c()

    background.run(interrupt)
    context.spin()
    background.join()
    publisher = context.publisher("A")
    for number in range(3):
        publisher.publish(number)
    while len(called) < 3:
        context.spin_once(timeout=40)
    assert called == [0, 1, 2]


def test_ctrl_c_in_a_callback_ends_the_turn_and_releases_its_message(context: SyncContext) -> None:
    def interrupted(_message: int) -> None:
        raise KeyboardInterrupt

    context.create_subscription("A", interrupted)
    publisher = context.publisher("A", num_buffers=1)
    publisher.publish(0)
    with pytest.raises(KeyboardInterrupt):
        context.spin_once(timeout=40)
    publisher.publish(1, timeout=40)
    context.spin()
    publisher.sync(timeout=40)
