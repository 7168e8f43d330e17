"""When bytes go out, and where they come in."""

import asyncio
import socket

import pytest

from ezmsg.core.net.framestream import COALESCED_BYTES, FrameStream
from ezmsg.core.wire.frames import Frame, encode_frame


class Collector(FrameStream):
    """Keeps what it receives."""

    def __init__(self, **options) -> None:
        super().__init__("the other", **options)
        self.bodies: asyncio.Queue[bytes] = asyncio.Queue()
        self.error: Exception | None = None

    def frame_received(self, frame: Frame) -> None:
        self.bodies.put_nowait(bytes(frame.body))

    def stream_ended(self, error: Exception | None) -> None:
        self.error = error


class CountingSocket(socket.socket):
    """Counts what the transport writes."""

    sizes: list[int]

    def send(self, data, *args) -> int:
        self.sizes.append(len(data))
        return super().send(data, *args)


@pytest.fixture
async def streams():
    ours, theirs = socket.socketpair()
    counting = CountingSocket(ours.family, ours.type, ours.proto, fileno=ours.detach())
    counting.sizes = []
    sender, receiver = Collector(), Collector()
    await sender.attach(counting)
    await receiver.attach(theirs)
    async with sender, receiver:
        yield sender, receiver, counting.sizes


async def test_the_first_frame_of_a_turn_goes_out_at_once_and_the_others_in_one_write(streams) -> None:
    sender, receiver, sizes = streams
    frame = encode_frame(1, b"body")
    for _ in range(3):
        sizes.clear()
        sender.write(frame)
        assert sizes == [20]
        for _ in range(9):
            sender.write(frame)
        assert sizes == [20]
        assert sender.write_buffer_size == 180
        for _ in range(10):
            assert await receiver.bodies.get() == b"body"
        assert sizes == [20, 180]
        assert sender.write_buffer_size == 0


async def test_many_followers_do_not_pile_up_until_the_end_of_the_turn(streams) -> None:
    sender, receiver, sizes = streams
    frame = encode_frame(1, bytes(COALESCED_BYTES // 4))
    for _ in range(6):
        sender.write(frame)
    assert len(sizes) == 2
    for _ in range(6):
        assert len(await receiver.bodies.get()) == COALESCED_BYTES // 4


async def test_parts_go_out_in_order_with_frames(streams) -> None:
    sender, receiver, _ = streams
    large = encode_frame(1, b"large" * 100_000)
    sender.write(encode_frame(1, b"first"))
    sender.write(encode_frame(1, b"second"))
    sender.write_parts([large[:10], memoryview(large)[10:300_000], large[300_000:]])
    sender.write(encode_frame(1, b"last"))
    assert [await receiver.bodies.get() for _ in range(4)] == [b"first", b"second", b"large" * 100_000, b"last"]


async def test_nothing_is_written_or_received_after_the_end(streams) -> None:
    sender, receiver, sizes = streams
    sender.write(encode_frame(1, b"before"))
    receiver.abort()
    await sender.wait_closed()
    sizes.clear()
    sender.write(encode_frame(1, b"after"))
    sender.write_parts([encode_frame(1, b"after")])
    assert sizes == []
    assert receiver.bodies.empty()


async def test_a_stream_that_does_not_read_closes_at_once_all_the_same(streams) -> None:
    sender, receiver, _ = streams
    receiver.pause_reading()
    sender.write(encode_frame(1, b"never taken"))
    await receiver.close(60.0)
    await sender.wait_closed()
    assert (sender.error, receiver.error) == (None, None)


async def test_a_receiver_that_fails_is_logged_and_ends_alone(caplog) -> None:
    class Failing(Collector):
        def frame_received(self, frame: Frame) -> None:
            raise KeyError("oops")

    ours, theirs = socket.socketpair()
    sender, receiver = Collector(), Failing()
    await sender.attach(ours)
    await receiver.attach(theirs)
    sender.write(encode_frame(1, b""))
    await sender.wait_closed()
    await receiver.wait_closed()
    assert isinstance(receiver.error, KeyError)
    assert "failed on a frame" in caplog.text
