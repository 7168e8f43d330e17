"""What every transport must do alike. A transport joins by a row in `TRANSPORTS`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import mmap
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from ezmsg.core.errors import (
    MessageNotSerializable,
    MessageTooLarge,
    PublisherClosed,
    SubscriberClosed,
)
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.messagemarshal import INLINE_BYTES
from ezmsg.core.profiling import PROFILES
from ezmsg.core.pubclient import Publisher
from ezmsg.core.remotes import JOIN_BYTES, Remotes
from ezmsg.core.subclient import Subscriber
from ezmsg.core.wire.limits import RECEIVE_BUFFER_BYTES
from tests import certificates
from tests.certificates import Authority

# How a publisher is made so that a subscriber of this process is served by the transport.
TRANSPORTS: dict[str, dict[str, Any]] = {
    "local": {},
    "shm": {"allow_local": False},
    "door": {"allow_local": False},
    "tcp": {"force_tcp": True},
    "tls": {"force_tcp": True},
}
KINDS = {
    "local": ProfileChannelType.LOCAL,
    "shm": ProfileChannelType.SHM,
    "door": ProfileChannelType.TCP,
    "tcp": ProfileChannelType.TCP,
    "tls": ProfileChannelType.TCP,
}


@pytest.fixture(params=list(TRANSPORTS))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(autouse=True)
def _encrypted(request: pytest.FixtureRequest, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the server begins."""
    if "name" in request.fixturenames and request.getfixturevalue("name") == "tls":
        certificates.use(authority.issue("localhost"), monkeypatch)


@pytest.fixture
def transport(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    if name == "door":
        # Where there is no memory to share, all goes through the door.
        monkeypatch.setattr(Remotes, "open_memory", lambda self, held, place_bytes: None)
    return TRANSPORTS[name]


@pytest.fixture
def remote(transport: dict[str, Any]) -> bool:
    return bool(transport)


class Body:
    """Makes numbered messages of one size, and reads the numbers."""

    def __init__(self, items: int) -> None:
        self._items = items

    def of(self, number: int) -> np.ndarray:
        return np.full(self._items, number)

    def number(self, message: np.ndarray) -> int:
        assert len(message) == self._items
        assert (message == message[0]).all(), "the message is torn"
        return int(message[0])

    def numbers(self, messages: list[np.ndarray]) -> list[int]:
        return [self.number(message) for message in messages]


@pytest.fixture(params=[8, 20_000], ids=["small", "large"])
def body(request: pytest.FixtureRequest) -> Body:
    return Body(request.param)


async def receive(subscriber: Subscriber, count: int) -> list[Any]:
    return [await subscriber.recv() for _ in range(count)]


async def turns(count: int = 20) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def drained(publisher: Publisher) -> None:
    """Wait until everything that was sent is released, then go on."""
    await asyncio.wait_for(publisher.sync(), 40)
    publisher.resume()


async def test_the_kind_of_the_channel_is_recorded(
    context: GraphContext, transport: dict[str, Any], name: str, body: Body
) -> None:
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A", **transport)
    await publisher.broadcast(body.of(1))
    assert body.number(await subscriber.recv()) == 1
    snapshot = PROFILES.snapshot("kinds")
    [received] = [known for known in snapshot.subscribers.values() if known.endpoint_id.endswith(str(subscriber.id))]
    assert received.channel_kind_last is KINDS[name]


async def test_messages_of_a_publisher_arrive_in_order(
    context: GraphContext, transport: dict[str, Any], body: Body
) -> None:
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A", **transport)
    received = asyncio.create_task(receive(subscriber, 300))
    for number in range(300):
        await publisher.broadcast(body.of(number))
    assert body.numbers(await received) == list(range(300))


async def test_fan_out_gives_every_subscriber_every_message(
    context: GraphContext, transport: dict[str, Any], body: Body
) -> None:
    subscribers = [await context.subscriber("A") for _ in range(4)]
    publisher = await context.publisher("A", **transport)
    received = [asyncio.create_task(receive(subscriber, 100)) for subscriber in subscribers]
    for number in range(100):
        await publisher.broadcast(body.of(number))
    for task in received:
        assert body.numbers(await task) == list(range(100))


async def test_what_recv_gave_stays_as_it_is_whatever_is_sent_next(
    context: GraphContext, transport: dict[str, Any], body: Body
) -> None:
    subscribers = [await context.subscriber("A") for _ in range(2)]
    alone = await context.subscriber("B")
    publisher = await context.publisher("A", num_buffers=2, **transport)
    other = await context.publisher("B", num_buffers=2, **transport)
    received: list[Any] = []
    for number in range(20):
        await publisher.broadcast(body.of(number))
        await other.broadcast({"wrapped": body.of(number)})
        received.append([await subscriber.recv() for subscriber in subscribers] + [(await alone.recv())["wrapped"]])
    for number, messages in enumerate(received):
        assert body.numbers(messages) == [number] * 3
        assert all(message.flags.writeable for message in messages)


@pytest.mark.parametrize("wrap", [lambda array: array, lambda array: {"wrapped": array}], ids=["array", "object"])
async def test_what_recv_gave_can_be_changed_although_it_was_sent_read_only(
    context: GraphContext, transport: dict[str, Any], body: Body, wrap: Any
) -> None:
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A", **transport)
    array = body.of(1)
    array.flags.writeable = False
    for number in range(2):
        await publisher.broadcast(wrap(array))
        message = await subscriber.recv()
        got = message if isinstance(message, np.ndarray) else message["wrapped"]
        got += number
        assert body.number(got) == 1 + number
    assert body.number(array) == 1


async def test_subscribers_of_one_process_share_one_decoded_object(
    context: GraphContext, transport: dict[str, Any], body: Body
) -> None:
    subscribers = [await context.subscriber("A") for _ in range(3)]
    publisher = await context.publisher("A", **transport)
    await publisher.broadcast([body.of(1)])
    async with contextlib.AsyncExitStack() as leases:
        first, *others = [await leases.enter_async_context(each.recv_zero_copy()) for each in subscribers]
        assert body.number(first[0]) == 1
        assert all(other is first for other in others)
    await drained(publisher)


async def test_fan_in_keeps_the_order_of_each_publisher(context: GraphContext, transport: dict[str, Any]) -> None:
    subscriber = await context.subscriber("SINK")
    publishers = [await context.publisher(f"SOURCE{index}", **transport) for index in range(3)]
    for publisher in publishers:
        await context.connect(publisher.topic, "SINK")

    async def send(publisher: Publisher) -> None:
        for number in range(100):
            await publisher.broadcast((publisher.topic, number))

    sending = [asyncio.create_task(send(publisher)) for publisher in publishers]
    received = await receive(subscriber, 300)
    await asyncio.gather(*sending)
    for publisher in publishers:
        assert [number for topic, number in received if topic == publisher.topic] == list(range(100))


async def test_a_message_arrives_once_whatever_the_number_of_paths(
    context: GraphContext, transport: dict[str, Any]
) -> None:
    for edge in [("A", "B"), ("A", "C"), ("B", "D"), ("C", "D")]:
        await context.connect(*edge)
    subscriber = await context.subscriber("D")
    publisher = await context.publisher("A", **transport)
    for number in range(3):
        await publisher.broadcast(number)
    assert await receive(subscriber, 3) == [0, 1, 2]
    await drained(publisher)
    assert "queued=0" in repr(subscriber)


async def test_a_late_subscriber_gets_what_is_sent_after_it_joined(
    context: GraphContext, transport: dict[str, Any]
) -> None:
    publisher = await context.publisher("A", **transport)
    for number in range(10):
        await publisher.broadcast(number)
    subscriber = await context.subscriber("A")
    await publisher.broadcast("now")
    assert await subscriber.recv() == "now"


async def test_an_edge_that_was_made_carries_and_one_that_was_cut_does_not(
    context: GraphContext, transport: dict[str, Any]
) -> None:
    subscriber = await context.subscriber("B")
    publisher = await context.publisher("A", **transport)
    await publisher.broadcast("before")
    await context.connect("A", "B")
    await publisher.broadcast("connected")
    assert await subscriber.recv() == "connected"
    await context.disconnect("A", "B")
    await publisher.broadcast("cut")
    await context.connect("A", "B")
    await publisher.broadcast("again")
    assert await subscriber.recv() == "again"


async def test_disconnecting_in_mid_stream_drops_what_is_queued_and_frees_the_publisher(
    context: GraphContext, transport: dict[str, Any], body: Body
) -> None:
    await context.connect("A", "B")
    subscriber = await context.subscriber("B")
    publisher = await context.publisher("A", num_buffers=4, **transport)
    for number in range(4):
        await publisher.broadcast(body.of(number))
    blocked = asyncio.create_task(publisher.broadcast("blocked"))
    await turns()
    assert not blocked.done()
    await context.disconnect("A", "B")
    await asyncio.wait_for(blocked, 40)
    await drained(publisher)
    assert "queued=0" in repr(subscriber)


async def test_backpressure_blocks_when_every_slot_is_held_and_releases_one_by_one(
    context: GraphContext, transport: dict[str, Any], body: Body
) -> None:
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A", num_buffers=4, **transport)
    for number in range(4):
        await publisher.broadcast(body.of(number))
    blocked = asyncio.create_task(publisher.broadcast(body.of(4)))
    await turns()
    assert not blocked.done()
    assert body.number(await subscriber.recv()) == 0
    await asyncio.wait_for(blocked, 40)
    blocked = asyncio.create_task(publisher.broadcast(body.of(5)))
    await turns()
    assert not blocked.done()
    assert body.numbers(await receive(subscriber, 4)) == [1, 2, 3, 4]
    await asyncio.wait_for(blocked, 40)
    assert body.number(await subscriber.recv()) == 5


async def test_with_one_buffer_the_next_message_waits_until_the_last_was_processed(
    context: GraphContext, transport: dict[str, Any], body: Body
) -> None:
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A", num_buffers=1, **transport)
    await publisher.broadcast(body.of(0))
    async with subscriber.recv_zero_copy() as first:
        assert body.number(first) == 0
        blocked = asyncio.create_task(publisher.broadcast(body.of(1)))
        await turns()
        assert not blocked.done()
        assert body.number(first) == 0
    await asyncio.wait_for(blocked, 40)
    assert body.number(await subscriber.recv()) == 1


async def test_a_publisher_without_subscribers_never_blocks_and_lets_others_run(
    context: GraphContext, transport: dict[str, Any]
) -> None:
    publisher = await context.publisher("A", num_buffers=2, **transport)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    for number in range(100):
        await publisher.broadcast(number)
    ticking.cancel()
    assert ticks >= 10


async def test_pause_holds_messages_back_and_resume_lets_them_go(
    context: GraphContext, transport: dict[str, Any]
) -> None:
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A", **transport)
    await context.pause()
    assert not publisher.running
    blocked = asyncio.create_task(publisher.broadcast("held"))
    await turns()
    assert not blocked.done()
    await context.resume()
    assert await asyncio.wait_for(subscriber.recv(), 40) == "held"
    await blocked


async def test_sync_waits_for_every_release_and_stays_paused(context: GraphContext, transport: dict[str, Any]) -> None:
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A", **transport)
    for number in range(3):
        await publisher.broadcast(number)
    syncing = asyncio.create_task(context.sync(timeout=40))
    assert await receive(subscriber, 2) == [0, 1]
    await turns()
    assert not syncing.done()
    assert await subscriber.recv() == 2
    await syncing
    assert not publisher.running


async def test_sync_that_takes_too_long_raises_timeout_error(context: GraphContext, transport: dict[str, Any]) -> None:
    await context.subscriber("A")
    publisher = await context.publisher("A", **transport)
    await publisher.broadcast(0)
    with pytest.raises(TimeoutError):
        await context.sync(timeout=0.05)


async def test_a_leaky_subscriber_keeps_the_newest_and_releases_what_it_drops(
    context: GraphContext, transport: dict[str, Any], body: Body
) -> None:
    leaky = await context.subscriber("A", leaky=True, max_queue=2)
    other = await context.subscriber("A")
    publisher = await context.publisher("A", num_buffers=8, **transport)
    for number in range(50):
        await publisher.broadcast(body.of(number))
        assert body.number(await other.recv()) == number
    assert body.numbers(await receive(leaky, 2)) == [48, 49]
    await drained(publisher)


async def test_a_leaky_subscriber_alone_never_blocks_the_publisher(
    context: GraphContext, transport: dict[str, Any], body: Body
) -> None:
    leaky = await context.subscriber("A", leaky=True)
    publisher = await context.publisher("A", num_buffers=4, **transport)
    for number in range(100):
        await asyncio.wait_for(publisher.broadcast(body.of(number)), 40)
    while body.number(await asyncio.wait_for(leaky.recv(), 40)) != 99:
        pass


async def test_recv_gives_a_copy_that_is_the_callers_own(context: GraphContext, transport: dict[str, Any]) -> None:
    first, second = await context.subscriber("A"), await context.subscriber("A")
    publisher = await context.publisher("A", **transport)
    sent = {"data": np.arange(4.0)}
    await publisher.broadcast(sent)
    copy = await first.recv()
    copy["data"][:] = -1
    np.testing.assert_array_equal((await second.recv())["data"], np.arange(4.0))
    np.testing.assert_array_equal(sent["data"], np.arange(4.0))


async def test_recv_zero_copy_holds_the_slot_until_the_block_is_left_also_by_an_error(
    context: GraphContext, transport: dict[str, Any]
) -> None:
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A", num_buffers=1, **transport)
    await publisher.broadcast("first")
    with pytest.raises(RuntimeError, match="mine"):
        async with subscriber.recv_zero_copy() as message:
            assert message == "first"
            raise RuntimeError("mine")
    await asyncio.wait_for(publisher.broadcast("second"), 40)
    assert await subscriber.recv() == "second"


async def test_local_delivery_hands_over_the_very_object(context: GraphContext) -> None:
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A")
    sent = object()
    await publisher.broadcast(sent)
    async with subscriber.recv_zero_copy() as message:
        assert message is sent


async def test_cancelling_a_waiting_receive_loses_no_message(context: GraphContext, transport: dict[str, Any]) -> None:
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A", **transport)
    for number in range(20):
        waiting = asyncio.create_task(subscriber.recv())
        await turns(3)
        # The message and the cancellation arrive in the same turn, in both orders.
        if number % 2:
            await publisher.broadcast(number)
            waiting.cancel()
        else:
            waiting.cancel()
            await publisher.broadcast(number)
        result = (await asyncio.gather(waiting, return_exceptions=True))[0]
        if isinstance(result, asyncio.CancelledError):
            result = await asyncio.wait_for(subscriber.recv(), 40)
        assert result == number


async def test_a_cancelled_broadcast_sends_nothing_and_others_go_on(
    context: GraphContext, transport: dict[str, Any]
) -> None:
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A", num_buffers=1, **transport)
    await publisher.broadcast("first")
    cancelled = asyncio.create_task(publisher.broadcast("cancelled"))
    waiting = asyncio.create_task(publisher.broadcast("second"))
    await turns()
    cancelled.cancel()
    assert await subscriber.recv() == "first"
    await asyncio.wait_for(waiting, 40)
    assert await subscriber.recv() == "second"


async def test_two_event_loops_of_one_process_exchange_messages_both_ways(
    server: GraphServer, context: GraphContext, transport: dict[str, Any], body: Body
) -> None:
    echoed = threading.Event()
    ready = threading.Event()

    async def echo() -> None:
        async with GraphContext(server.address) as other:
            subscriber = await other.subscriber("PING", num_buffers=4)
            publisher = await other.publisher("PONG", **transport)
            ready.set()
            for _ in range(100):
                async with subscriber.recv_zero_copy() as message:
                    await publisher.broadcast(message)
            await asyncio.wait_for(publisher.sync(), 40)
        echoed.set()

    thread = threading.Thread(target=lambda: asyncio.run(echo()))
    thread.start()
    await asyncio.to_thread(ready.wait, 10)
    subscriber = await context.subscriber("PONG")
    publisher = await context.publisher("PING", **transport)
    received = asyncio.create_task(receive(subscriber, 100))
    for number in range(100):
        await asyncio.wait_for(publisher.broadcast(body.of(number)), 40)
    assert body.numbers(await asyncio.wait_for(received, 40)) == list(range(100))
    await asyncio.to_thread(thread.join, 10)
    assert echoed.is_set()


@dataclass
class Inner:
    data: np.ndarray
    names: list[str]


@dataclass
class Outer:
    inner: Inner
    extra: dict[str, Any] = field(default_factory=dict)
    note: str | None = None


OBJECTS: dict[str, Any] = {
    "none": None,
    "bytes": b"\x00\xff" * 5000,
    "bytearray": bytearray(b"abc"),
    "text": "Grüße",
    "int": 2**200,
    "c-order": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "f-order": np.asfortranarray(np.arange(24, dtype=np.int16).reshape(4, 6)),
    "strided": np.arange(100)[::3],
    "reversed": np.arange(10)[::-1],
    "zero-d": np.array(3.5),
    "empty": np.empty((0, 3)),
    "structured": np.zeros(3, dtype=[("a", "i4"), ("b", "f8")]),
    "big-endian": np.arange(5, dtype=">i4"),
    "complex": np.array([1 + 2j]),
    "bool": np.array([True, False]),
    "datetime": np.array(["2026-01-01"], dtype="datetime64[D]"),
    "unicode": np.array(["a", "bc"]),
    "objects": np.array([{"a": 1}, None], dtype=object),
    "read-only": np.frombuffer(b"12345678", dtype=np.uint8),
    "large": np.random.default_rng(0).normal(size=(500, 300)),
    "several buffers": [np.arange(10), np.ones((100, 100)), b"tail"],
    "nested dataclass": Outer(Inner(np.ones((3, 2)), ["a"]), {"k": (1, 2)}),
    "deque": deque([1, 2, 3]),
}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and a.tolist() == b.tolist()
    if isinstance(a, Outer):
        return same(a.inner.data, b.inner.data) and a.inner.names == b.inner.names and a.extra == b.extra
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("kind", list(OBJECTS))
async def test_objects_of_every_kind_arrive_equal(context: GraphContext, transport: dict[str, Any], kind: str) -> None:
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A", **transport)
    await publisher.broadcast(OBJECTS[kind])
    assert same(OBJECTS[kind], await subscriber.recv())
    await publisher.broadcast(OBJECTS[kind])
    async with subscriber.recv_zero_copy() as message:
        assert same(OBJECTS[kind], message)


async def test_a_message_that_cannot_be_pickled_is_refused_and_the_publisher_goes_on(
    context: GraphContext, transport: dict[str, Any], remote: bool
) -> None:
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A", **transport)
    if remote:
        with pytest.raises(MessageNotSerializable, match=r"lambda|function.*'A'|'A'"):
            await publisher.broadcast(lambda: None)
    await publisher.broadcast("next")
    assert await subscriber.recv() == "next"


async def test_a_message_over_the_limit_is_refused_and_the_publisher_goes_on(
    context: GraphContext, transport: dict[str, Any], remote: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EZMSG_MAX_MESSAGE_BYTES", "10000")
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A", **transport)
    if remote:
        with pytest.raises(MessageTooLarge, match=r"'A'.*EZMSG_MAX_MESSAGE_BYTES"):
            await publisher.broadcast(bytes(20000))
    await publisher.broadcast("next")
    assert await subscriber.recv() == "next"


def sizes_around(*boundaries: int) -> Iterator[int]:
    """Sizes that, with the heads and paddings of every layout, end just before, at and behind each boundary."""
    for boundary in boundaries:
        for distance in (-256, -192, -161, -129, -128, -127, -96, -80, -65, -64, -63, -48, -41, -40, -33, -32, -25, -24,
                         -17, -16, -9, -8, -7, -1, 0, 1, 7, 8, 9, 16, 63, 64, 65, 128):  # fmt: skip
            yield boundary + distance


def sized_messages() -> Iterator[Any]:
    """Numbered messages of every layout, of sizes around all the limits at which the way of a message changes."""
    boundaries = (INLINE_BYTES, 4 * INLINE_BYTES, RECEIVE_BUFFER_BYTES // 4, JOIN_BYTES, RECEIVE_BUFFER_BYTES, 1 << 17)
    for number, size in enumerate(sizes_around(*sorted(set(boundaries)))):
        fill = number % 251 + 1
        yield np.full(size, fill, np.uint8)
        yield bytes([fill]) * size
        yield (number, np.full(size - 100, fill, np.uint8), np.full(100 + INLINE_BYTES, fill, np.uint8))


async def test_messages_of_every_size_around_every_boundary_arrive_right_and_in_order(
    context: GraphContext, transport: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A", num_buffers=6, **transport)

    async def send() -> None:
        for message in sized_messages():
            await publisher.broadcast(message)

    sending = asyncio.create_task(send())
    held = contextlib.AsyncExitStack()
    # Always so many are held that the publisher waits for a slot, and others are on their way.
    for number, expected in enumerate(sized_messages()):
        if number % 3 == 0:
            await held.aclose()
        async with asyncio.timeout(40):
            message = await held.enter_async_context(subscriber.recv_zero_copy())
        assert alike(message, expected), f"message {number}"
    await held.aclose()
    await sending
    await drained(publisher)
    assert "channels=1" in repr(publisher)
    assert not [
        record for record in caplog.records if record.levelno >= logging.WARNING and "pressure" not in record.msg
    ]


def alike(a: Any, b: Any) -> bool:
    """Whether two of the sized messages are equal."""
    if isinstance(b, tuple):
        return len(a) == len(b) and a[0] == b[0] and all(map(np.array_equal, a[1:], b[1:]))
    return type(a) is type(b) and (a == b if isinstance(b, bytes) else np.array_equal(a, b))


async def test_messages_around_the_size_of_a_place_arrive_while_it_grows(
    context: GraphContext, transport: dict[str, Any]
) -> None:
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A", num_buffers=8, buf_size=INLINE_BYTES, **transport)
    place_bytes = INLINE_BYTES
    for _ in range(6):
        sizes = [place_bytes + distance for distance in (-65, -64, -63, -1, 0, 1)]
        for index, size in enumerate(sizes):
            await publisher.broadcast(np.full(size, index + 1, np.uint8))
        async with contextlib.AsyncExitStack() as held:
            messages = [await held.enter_async_context(subscriber.recv_zero_copy()) for _ in sizes]
            for index, (message, size) in enumerate(zip(messages, sizes, strict=True)):
                assert message.shape == (size,)
                assert (message == index + 1).all()
        # What had no room makes room for twice itself.
        place_bytes = -(-2 * (place_bytes + 64) // mmap.PAGESIZE) * mmap.PAGESIZE
    await drained(publisher)


@pytest.mark.parametrize("end", ["unsubscribe", "subscriber", "publisher"])
async def test_views_kept_past_the_end_of_either_side_stay_readable(
    context: GraphContext, transport: dict[str, Any], body: Body, end: str
) -> None:
    await context.connect("A", "B")
    subscriber = await context.subscriber("B")
    publisher = await context.publisher("A", num_buffers=4, **transport)
    kept: list[np.ndarray] = []
    for number in range(4):
        await publisher.broadcast(body.of(number))
        async with subscriber.recv_zero_copy() as message:
            kept.append(message[1:])
    if end == "unsubscribe":
        await context.disconnect("A", "B")
    else:
        ended = subscriber if end == "subscriber" else publisher
        ended.close()
        await ended.wait_closed()
    # In shared memory they may show a later message by now, or nothing any more; they never are no memory.
    assert all(view[0] in range(4) and (view == view[0]).all() for view in kept)
    kept[0] = kept[0].copy()
    gc.collect()
    assert (kept[3] == kept[3][0]).all()


@pytest.mark.parametrize("end", ["disconnect", "close"])
async def test_a_message_that_is_held_stays_as_it_is_although_its_subscriber_leaves(
    context: GraphContext, transport: dict[str, Any], body: Body, end: str
) -> None:
    await context.connect("A", "B")
    subscriber = await context.subscriber("B")
    publisher = await context.publisher("A", num_buffers=5, **transport)
    await publisher.broadcast(body.of(0))
    async with subscriber.recv_zero_copy() as held:
        assert body.number(held) == 0
        if end == "disconnect":
            await context.disconnect("A", "B")
        else:
            subscriber.close()
            # Whoever holds a message may wait, too.
            await asyncio.wait_for(subscriber.wait_closed(), 40)
        other = await context.subscriber("A")
        for number in range(1, 5):
            await asyncio.wait_for(publisher.broadcast(body.of(number)), 40)
            assert body.number(await other.recv()) == number
            assert body.number(held) == 0
    for number in range(5, 10):
        await asyncio.wait_for(publisher.broadcast(body.of(number)), 40)
        assert body.number(await other.recv()) == number
    await drained(publisher)
    async with asyncio.timeout(40):
        while "channels=1" not in repr(publisher):
            await asyncio.sleep(0)


async def test_a_publisher_that_ends_while_its_leaving_subscriber_holds_a_message_waits_for_nobody(
    context: GraphContext, transport: dict[str, Any], body: Body
) -> None:
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A", num_buffers=3, **transport)
    await publisher.broadcast(body.of(7))
    async with subscriber.recv_zero_copy() as held:
        subscriber.close()
        publisher.close()
        await asyncio.wait_for(publisher.wait_closed(), 40)
        assert body.number(held) == 7
    await asyncio.wait_for(subscriber.wait_closed(), 40)


async def test_a_view_kept_past_its_lease_harms_nobody(context: GraphContext, transport: dict[str, Any]) -> None:
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A", num_buffers=2, **transport)
    kept: list[Any] = []
    for number in range(20):
        await publisher.broadcast(np.full(1000, number))
        async with subscriber.recv_zero_copy() as message:
            kept.append(message[10:20])
    await drained(publisher)
    publisher.close()
    subscriber.close()
    await publisher.wait_closed()
    await subscriber.wait_closed()
    assert len(kept) == 20
    kept.clear()
    gc.collect()


async def test_closing_a_subscriber_frees_what_it_held(context: GraphContext, transport: dict[str, Any]) -> None:
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A", num_buffers=2, **transport)
    await publisher.broadcast(0)
    await publisher.broadcast(1)
    subscriber.close()
    await subscriber.wait_closed()
    await asyncio.wait_for(publisher.broadcast(2), 40)
    with pytest.raises(SubscriberClosed):
        await subscriber.recv()


async def test_what_was_sent_arrives_although_the_publisher_is_closed_at_once(
    context: GraphContext, transport: dict[str, Any]
) -> None:
    subscriber = await context.subscriber("A")
    for number in range(10):
        publisher = await context.publisher("A", **transport)
        await publisher.broadcast((number, bytes(100_000)))
        publisher.close()
        await publisher.wait_closed()
        assert (await asyncio.wait_for(subscriber.recv(), 40))[0] == number
        with pytest.raises(PublisherClosed):
            await publisher.broadcast("late")


async def test_closing_wakes_whoever_waits(context: GraphContext, transport: dict[str, Any]) -> None:
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A", num_buffers=1, **transport)
    await publisher.broadcast(0)
    blocked = asyncio.create_task(publisher.broadcast(1))
    other = await context.subscriber("B")
    waiting = asyncio.create_task(other.recv())
    await turns()
    publisher.close()
    other.close()
    with pytest.raises(PublisherClosed):
        await blocked
    with pytest.raises(SubscriberClosed):
        await waiting
    assert await subscriber.recv() == 0


async def test_a_subscriber_that_leaves_and_comes_back_hears_again(
    context: GraphContext, transport: dict[str, Any], body: Body
) -> None:
    publisher = await context.publisher("A", num_buffers=4, **transport)
    for number in range(10):
        subscriber = await context.subscriber("A")
        await publisher.broadcast(body.of(number))
        assert body.number(await subscriber.recv()) == number
        subscriber.close()
        await subscriber.wait_closed()


@pytest.fixture
async def many(context: GraphContext, transport: dict[str, Any]) -> AsyncIterator[list[Publisher]]:
    return [await context.publisher(f"T{index}", **transport) for index in range(10)]


async def test_many_publishers_reach_one_subscriber(context: GraphContext, many: list[Publisher]) -> None:
    for publisher in many:
        await context.connect(publisher.topic, "ALL")
    subscriber = await context.subscriber("ALL")
    for publisher in many:
        await publisher.broadcast(publisher.topic)
    assert sorted(await receive(subscriber, 10)) == sorted(publisher.topic for publisher in many)


async def test_a_loop_that_never_rests_loses_no_row(context: GraphContext) -> None:
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A")
    before = PROFILES.snapshot("before")
    received = asyncio.create_task(receive(subscriber, 150_000))
    for number in range(150_000):
        await publisher.broadcast(number)
    await received
    after = PROFILES.snapshot("after")
    assert after.recorded["row"] - before.recorded["row"] == 300_000
    assert after.dropped.get("row:ring_overrun", 0) == before.dropped.get("row:ring_overrun", 0)
