"""Memory that is used again, and both ends of a channel over a socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

from ezmsg.core.errors import ConnectionLost, EzmsgError, FrameTooLarge, ProtocolError, Refused
from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.messagecache import CachedMessage
from ezmsg.core.messagemarshal import INLINE_BYTES, Encoded, encode
from ezmsg.core.profiling import TraceIds
from ezmsg.core.transport import Inlet, Outlet, Source
from ezmsg.core.transport.stream import MESSAGE_OVERHEAD_BYTES, BufferPool, ChannelInlet, ChannelOutlet
from ezmsg.core.wire.frames import HEADER, REPLY, REQUEST, encode_frame
from ezmsg.core.wire.messages import (
    BUFFERS_MAX,
    Placed,
    Trace,
    encode_ack,
    encode_in_parts,
    encode_in_segment,
    encode_plain,
)
from ezmsg.core.wire.records import (
    MESSAGE_OPCODE,
    ChannelOpened,
    Done,
    OpenChannel,
    Record,
    Refusal,
    SlotHolder,
    encode_record,
)
from tests import hostile

TRACE = (bytes(range(1, 17)), 0x1112131415161718)
OPENING = OpenChannel("channel", "publisher", 1, "boot", "T")


def test_a_message_at_the_limit_is_accepted_however_many_buffers_it_has() -> None:
    buffer = memoryview(bytes(INLINE_BYTES + 1))
    parts = encode_in_parts(0, 0.0, 0.0, 0, b"head", [buffer] * BUFFERS_MAX, TRACE)
    message_bytes = len(b"head") + BUFFERS_MAX * len(buffer)
    assert sum(len(part) for part in parts) <= message_bytes + MESSAGE_OVERHEAD_BYTES


# -- memory -----------------------------------------------------------------------------------------------------------


def memory_of(view: memoryview) -> int:
    return id(view.obj)


def test_memory_is_used_again_once_nobody_has_a_view_of_it() -> None:
    pool = BufferPool()
    view = pool.take(0, 1000)
    assert (len(view), view.readonly) == (1000, False)
    memory = memory_of(view)
    del view
    assert memory_of(pool.take(0, 1000)) == memory


@pytest.mark.parametrize(
    "keep",
    [
        lambda view: view,
        lambda view: view[10:20],
        lambda view: view[10:20][3:],
        lambda view: view.cast("d"),
        lambda view: view.toreadonly(),
        lambda view: np.frombuffer(view, np.uint8),
        lambda view: np.frombuffer(view, np.uint8)[::7][1:].reshape(-1, 1),
        lambda view: np.ndarray((5,), "f8", view, 80),
        lambda view: np.ndarray((5,), "f8", view, 80).view("i4")[2:],
        lambda view: {"deep": [view.obj]},
    ],
    ids=[
        "view",
        "slice",
        "slice of a slice",
        "cast",
        "read-only",
        "array",
        "array of it",
        "ndarray",
        "its view",
        "obj",
    ],
)
def test_memory_is_not_used_again_while_somebody_has_a_view_of_it(keep: Callable[[memoryview], Any]) -> None:
    pool = BufferPool()
    view = pool.take(0, 1000)
    memory = memory_of(view)
    kept = keep(view)
    del view
    assert memory_of(pool.take(0, 1000)) != memory
    del kept
    seen = [pool.take(0, 1000) for _ in range(2)]
    assert memory in map(memory_of, seen)


def test_memory_that_was_used_last_is_used_first() -> None:
    pool = BufferPool()
    views = [pool.take(0, 1000) for _ in range(3)]
    memories = [memory_of(view) for view in views]
    views.clear()
    again = pool.take(0, 1000)
    assert memory_of(again) == memories[2]
    assert memory_of(pool.take(0, 1000)) == memories[1]
    assert memory_of(pool.take(0, 1000)) == memories[1]
    del again
    assert memory_of(pool.take(0, 1000)) == memories[1]


@pytest.mark.parametrize(("size", "is_used"), [(999, True), (500, True), (499, False), (1001, False)])
def test_memory_is_used_again_for_sizes_that_fit(size: int, is_used: bool) -> None:
    pool = BufferPool()
    memory = memory_of(pool.take(0, 1000))
    view = pool.take(0, size)
    assert len(view) == size
    assert (memory_of(view) == memory) is is_used


def test_a_pool_is_bounded() -> None:
    pool = BufferPool(limit=10_000)
    held = [pool.take(0, 1000 + number) for number in range(30)]
    assert sum(map(len, pool._buffers)) == pool._size <= 10_000
    memories = [memory_of(view) for view in held]
    held.clear()
    assert memory_of(pool.take(0, 1029)) == memories[-1]
    large = pool.take(0, 10_001)
    assert len(large) == 10_001
    assert all(buffer is not large.obj for buffer in pool._buffers)
    exact = pool.take(0, 10_000)
    assert pool._buffers == [exact.obj]
    assert pool._size == 10_000


# -- a channel and its publisher --------------------------------------------------------------------------------------


class Receiver:
    """A channel that notes what it is told."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[tuple[int, Any, float, float, tuple[int, int] | None]] = asyncio.Queue()
        self.ends: list[Exception | None] = []

    def opened(self, inlet: Inlet, kind: ProfileChannelType) -> None:
        pass

    def receive(
        self,
        message_id: int,
        obj: Any,
        origin_s: float,
        publish_s: float,
        channel_s: float,
        size: int,
        trace: Trace | None,
    ) -> None:
        self.messages.put_nowait((message_id, obj, origin_s, publish_s, trace))

    def ended(self, error: Exception | None) -> None:
        self.ends.append(error)


class Door:
    """A publisher that notes what is done to it."""

    publisher_id, topic, num_buffers = "publisher", "T", 4
    trace_ids = TraceIds((1, 2, 3))

    def __init__(self, error: EzmsgError | None = None) -> None:
        self.released: list[int] = []
        self.outlets: list[Outlet] = []
        self.has_released = asyncio.Event()
        self.error = error

    def attach(self, outlet: Outlet) -> tuple[int, int]:
        if self.error is not None:
            raise self.error
        self.outlets.append(outlet)
        return 1, 7

    def detach(self, outlet: Outlet) -> None:
        self.outlets.remove(outlet)

    def releaser(self, bit: int) -> Callable[[int], None]:
        def release(message_id: int) -> None:
            self.released.append(message_id)
            self.has_released.set()

        return release

    def rerouted(self) -> None:
        pass

    def record_publish(self, message: CachedMessage) -> None:
        pass


def record(record: Record, flags: int) -> bytes:
    opcode, body = encode_record(record)
    return encode_frame(opcode, body, 0, flags)


ANSWER = record(ChannelOpened("T", 4, 7, (1, 2, 3)), REPLY)


def message(message_id: int, obj: Any, trace: Trace | None = None) -> bytes:
    encoded: Encoded = encode(obj)
    start = (message_id, 2.0, 1.0, encoded.codec, encoded.head)
    if encoded.buffers:
        return b"".join(encode_in_parts(*start, encoded.buffers, trace))
    return encode_plain(*start, encoded.data, trace)


@pytest.fixture
async def channel() -> AsyncIterator[tuple[ChannelInlet, Receiver, socket.socket]]:
    """A channel, and what a publisher might do to it."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    receiver = Receiver()
    inlet = ChannelInlet(receiver, OPENING, Source())
    with theirs:
        await inlet.attach(ours)
        opening = record(OPENING, REQUEST)
        assert await asyncio.get_running_loop().sock_recv(theirs, len(opening)) == opening
        yield inlet, receiver, theirs
        inlet.abort()
        await inlet.wait_closed()
    assert len(receiver.ends) == 1


async def received(receiver: Receiver) -> tuple[int, Any, float, float, tuple[int, int] | None]:
    message_id, undecoded, *others = await receiver.messages.get()
    return (message_id, undecoded.decode(), *others)


@pytest.mark.parametrize("trace", [None, TRACE])
@pytest.mark.parametrize("size", [1, 1000, 3000, 100_000])
async def test_messages_right_behind_the_answer_arrive(channel, trace, size) -> None:
    inlet, receiver, theirs = channel
    objects = [np.arange(size, dtype="f4"), "x" * size, b"x" * size, {"data": np.arange(size)}, None]
    stream = ANSWER + b"".join(message(number, obj, trace) for number, obj in enumerate(objects))
    sending = asyncio.create_task(hostile.send(theirs, stream))
    assert await inlet.opened() == ChannelOpened("T", 4, 7, (1, 2, 3))
    for number, obj in enumerate(objects):
        message_id, got, origin_s, publish_s, got_trace = await received(receiver)
        assert (message_id, origin_s, publish_s, got_trace) == (number, 1.0, 2.0, trace)
        np.testing.assert_equal(got, obj)
    await sending


async def test_messages_arrive_byte_by_byte(channel) -> None:
    _, receiver, theirs = channel
    stream = ANSWER + message(1, np.arange(3.0), TRACE) + message(2, [1, "two"])
    for number in range(len(stream)):
        theirs.sendall(stream[number : number + 1])
        await asyncio.sleep(0)
    _, array, *_, trace = await received(receiver)
    np.testing.assert_array_equal(array, np.arange(3.0))
    assert trace == TRACE
    assert (await received(receiver))[1] == [1, "two"]


async def test_arrays_of_several_kinds_in_turn_are_not_confused(channel) -> None:
    _, receiver, theirs = channel
    arrays = [np.arange(6.0), np.arange(6), np.arange(6.0).reshape(2, 3), np.float32([1, 2]), np.arange(5000.0)] * 3
    sending = asyncio.create_task(hostile.send(theirs, ANSWER + b"".join(message(1, array) for array in arrays)))
    for array in arrays:
        got = (await received(receiver))[1]
        assert (got.dtype, got.flags.aligned) == (array.dtype, True)
        np.testing.assert_array_equal(got, array)
    await sending


async def test_an_array_that_is_kept_does_not_change_when_more_arrive(channel) -> None:
    _, receiver, theirs = channel
    count = 8
    stream = ANSWER + b"".join(message(number, np.full(20_000, number)) for number in range(count))
    sending = asyncio.create_task(hostile.send(theirs, stream))
    kept = [(await received(receiver))[1] for _ in range(count)]
    await sending
    for number, array in enumerate(kept):
        assert (array == number).all()


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (encode_in_segment(1, 2.0, 3.0, 0, b"head", Placed(0, 128, 0, [100]), None), ProtocolError),
        (encode_in_segment(1, 2.0, 3.0, 0, b"head", Placed(0, 128, 0, [100]), TRACE), ProtocolError),
        (HEADER.pack(64, 30, 0, 0) + bytes(64), ProtocolError),
        (HEADER.pack(24, MESSAGE_OPCODE, 0, 1 << 8) + bytes(24), ProtocolError),
        (b"\xff" * 100, ProtocolError),
        (b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n" * 9, ProtocolError),
        (HEADER.pack(1 << 62, MESSAGE_OPCODE, 0, 0) + bytes(64), FrameTooLarge),
        (ANSWER + bytes(16), ProtocolError),
    ],
    ids=["segment", "sampled segment", "opcode", "no trace", "garbage", "http", "large", "another answer"],
)
@pytest.mark.parametrize("is_at_once", [True, False])
async def test_a_publisher_that_breaks_the_rules_is_dropped_with_the_reason(
    channel, said, error, is_at_once, caplog
) -> None:
    inlet, receiver, theirs = channel
    if is_at_once:
        await hostile.send(theirs, ANSWER + said)
    else:
        await hostile.send(theirs, ANSWER)
        await inlet.opened()
        await hostile.send(theirs, said)
    await inlet.wait_closed()
    (reason,) = receiver.ends
    assert isinstance(reason, error)
    assert not [line for line in caplog.records if line.exc_info]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (record(Refusal("NO", "go away"), REPLY), Refused),
        (record(Done(), REPLY), ConnectionLost),
        (b"\xff" * 100, ConnectionLost),
        (message(1, "too early"), ConnectionLost),
        (HEADER.pack(50_000, MESSAGE_OPCODE, 0, 0) + bytes(50_000), ConnectionLost),
        (record(ChannelOpened("T", 4, 7, (-1, 2, 3)), REPLY), ConnectionLost),
        (b"", ConnectionLost),
        (ANSWER[:-1], ConnectionLost),
    ],
    ids=["refusal", "other record", "garbage", "message", "large message", "no ids", "nothing", "half"],
)
async def test_a_channel_that_is_not_opened_says_why(channel, said, error) -> None:
    inlet, receiver, theirs = channel
    await hostile.send(theirs, said)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(error):
        await inlet.opened()
    await inlet.wait_closed()
    assert receiver.messages.empty()


async def test_a_publisher_that_hangs_up_in_a_message_is_lost(channel) -> None:
    inlet, receiver, theirs = channel
    await hostile.send(theirs, ANSWER + message(1, np.arange(10_000))[:-1])
    theirs.shutdown(socket.SHUT_WR)
    await inlet.opened()
    await inlet.wait_closed()
    assert isinstance(receiver.ends[0], ConnectionLost)


async def test_acknowledgements_go_together_and_half_of_the_slots_at_once(channel) -> None:
    inlet, _, theirs = channel
    await hostile.send(theirs, ANSWER)
    await inlet.opened()
    for number in range(3):
        inlet.acknowledge(number)
    loop = asyncio.get_running_loop()
    expected = encode_ack([0, 1]) + encode_ack([2])
    got = b""
    while len(got) < len(expected):
        got += await loop.sock_recv(theirs, 1000)
    assert got == expected


async def test_the_message_that_came_last_is_acknowledged_at_once_and_others_soon(channel) -> None:
    inlet, receiver, theirs = channel
    await hostile.send(theirs, ANSWER + message(7, 0) + message(8, 0))
    for _ in range(2):
        await received(receiver)
    inlet.acknowledge(8)
    assert theirs.recv(1000) == encode_ack([8])
    inlet.acknowledge(7)
    with pytest.raises(BlockingIOError):
        theirs.recv(1000)
    assert await asyncio.get_running_loop().sock_recv(theirs, 1000) == encode_ack([7])


async def test_who_held_a_message_is_told_before_it_is_acknowledged(channel) -> None:
    inlet, receiver, theirs = channel
    await hostile.send(theirs, ANSWER + message(7, 0))
    await received(receiver)
    inlet.acknowledge_for(7, "SLOW")
    expected = record(SlotHolder("SLOW"), 0) + encode_ack([7])
    got = b""
    while len(got) < len(expected):
        got += await asyncio.get_running_loop().sock_recv(theirs, 1000)
    assert got == expected


@pytest.fixture
async def outlet() -> AsyncIterator[tuple[ChannelOutlet, Door, socket.socket]]:
    """A publisher's end, and what a channel might do to it."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    door = Door()
    outlet = ChannelOutlet(door, "a channel")
    with theirs:
        await outlet.attach(ours)
        yield outlet, door, theirs
        outlet.abort()
        await outlet.wait_closed()
    assert door.outlets == []


async def test_a_channel_is_let_in_and_releases_messages(outlet) -> None:
    end, door, theirs = outlet
    await hostile.send(theirs, record(OPENING, REQUEST) + encode_ack([1]) + encode_ack([2, 3]))
    assert await asyncio.get_running_loop().sock_recv(theirs, 1000) == ANSWER
    assert door.outlets == [end]
    while door.released != [1, 2, 3]:
        door.has_released.clear()
        await door.has_released.wait()


@pytest.mark.parametrize(
    "said",
    [record(Done(), REQUEST), record(OPENING, 0), b"\xff" * 100, record(OPENING, REQUEST) + message(1, "x")],
    ids=["record", "notice", "garbage", "message"],
)
async def test_a_channel_that_breaks_the_rules_is_dropped(outlet, said) -> None:
    end, door, theirs = outlet
    await hostile.send(theirs, said)
    await end.wait_closed()
    assert door.outlets == []
    assert isinstance(end._error, ProtocolError)


async def test_a_channel_of_another_publisher_is_refused() -> None:
    ours, theirs = socket.socketpair()
    end = ChannelOutlet(Door(), "a channel")
    await end.attach(ours)
    inlet = ChannelInlet(Receiver(), OpenChannel("channel", "somebody else", 1, "boot", "T"), Source())
    await inlet.attach(theirs)
    with pytest.raises(EzmsgError, match="publisher somebody else is not here"):
        await inlet.opened()
    inlet.abort()
    await end.wait_closed()
    await inlet.wait_closed()


@pytest.mark.parametrize("is_settled", [True, False])
async def test_messages_in_parts_pass_between_both_ends(is_settled) -> None:
    ours, theirs = socket.socketpair()
    door, receiver = Door(), Receiver()
    end, inlet = ChannelOutlet(door, "a channel"), ChannelInlet(receiver, OPENING, Source())
    await end.attach(ours)
    await inlet.attach(theirs)
    await inlet.opened()
    array = np.arange(500_000)
    encoded = encode(array)
    sent = [encode_in_parts(number, 2.0, 1.0, encoded.codec, encoded.head, encoded.buffers, None) for number in (0, 1)]
    end.write(message(5, "before"))
    lent = [end.write_parts(parts) for parts in sent]
    assert any(lent)
    end.write(message(6, "behind"))
    if is_settled:
        await end.settled()
    else:
        end.own()
    array[:] = -1
    got = [await received(receiver) for _ in range(4)]
    assert [message_id for message_id, *_ in got] == [5, 0, 1, 6]
    for _, one, *_ in got[1:3]:
        np.testing.assert_array_equal(one, np.arange(500_000))
    await asyncio.gather(end.close(), inlet.close())
    assert receiver.ends == [None]
