"""The frame of a message: golden bytes, whole and in order through any pieces, and no trust in sizes."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ezmsg.core.errors import FrameTooLarge, ProtocolError
from ezmsg.core.wire.frames import HEADER, FrameDecoder
from ezmsg.core.wire.limits import RECEIVE_BUFFER_BYTES
from ezmsg.core.wire.messages import (
    ALIGNMENT,
    BUFFERS_MAX,
    FIELDS_BYTES,
    FLAGS_SHIFT,
    FRAME_BYTES,
    NDARRAY_CODEC,
    NUMBER_SHIFT,
    PARTS,
    SAMPLED,
    SEGMENT,
    TRACE_BYTES,
    Content,
    MessageDecoder,
    Placed,
    Trace,
    decode_ack,
    decode_content,
    decode_placed,
    decode_trace,
    encode_ack,
    encode_in_parts,
    encode_in_segment,
    encode_plain,
    placed,
)
from ezmsg.core.wire.records import ACK_OPCODE, MESSAGE_OPCODE

TRACE = (bytes(range(1, 17)), 0x1112131415161718)
TRACE_HEX = "0102030405060708090a0b0c0d0e0f10" + "1817161514131211" + "00" * 8
TIMES_HEX = "0201000000000000" + "000000000000f83f" + "00000000000000c0"  # id, time of publishing, time of origin

ids = st.integers(-(2**63), 2**63 - 1)
span_ids = st.integers(0, 2**64 - 1)
times = st.floats(allow_nan=False)
traces = st.none() | st.tuples(st.binary(min_size=16, max_size=16), span_ids)


class Sent(NamedTuple):
    message_id: int
    publish_s: float
    origin_s: float
    codec: int
    head: bytes
    buffers: list[bytes]
    trace: Trace | None
    at: Placed | None = None
    is_plain: bool = False

    def __repr__(self) -> str:
        return f"<{len(self.head)} + {[len(part) for part in self.buffers]} bytes, codec {self.codec}, {self.trace}>"

    def frame(self) -> bytes:
        start = self[:4]
        if self.is_plain:
            return encode_plain(*start, self.head, b"".join(self.buffers), self.trace)
        if self.at is not None:
            return encode_in_segment(*start, self.head, self.at, self.trace)
        return b"".join(encode_in_parts(*start, self.head, [memoryview(part) for part in self.buffers], self.trace))


def read(chunk: bytearray | memoryview, found: tuple[int, float, float, int, int, int]) -> tuple[Trace | None, Content]:
    """Take a message apart as a connection does."""
    *_, layout, start, stop = found
    trace = None
    if layout & SAMPLED << FLAGS_SHIFT:
        trace = decode_trace(chunk, start, stop)
    return trace, decode_content(chunk, layout, start, stop)


def feed(decoder: MessageDecoder, data: bytes, sizes: list[int]) -> list[tuple[bytearray | memoryview, tuple]]:
    """Receive in pieces of these sizes, over and over."""
    got = []
    turn = 0
    rest = memoryview(data)
    while rest:
        buffer = decoder.get_buffer()
        assert len(buffer)
        size = min(len(buffer), len(rest), sizes[turn % len(sizes)])
        turn += 1
        buffer[:size] = rest[:size]
        rest = rest[size:]
        chunk, found = decoder.messages(size)
        got += [(chunk, one) for one in found]
    return got


def one_of(frame: bytes) -> tuple[Trace | None, Content]:
    ((chunk, found),) = feed(MessageDecoder(), frame, [len(frame)])
    return read(chunk, found)


def address_of(data: memoryview | bytes) -> int:
    return np.frombuffer(data, np.uint8).ctypes.data


# -- golden bytes -----------------------------------------------------------------------------------------------------


def test_a_plain_message_is_these_bytes() -> None:
    assert encode_plain(0x0102, 1.5, -2.0, 0, b"pickle", b"", None).hex() == (
        "20000000000000006400" + "0000" + "00000200"  # 32 bytes, opcode 100, no flags, codec 0, 2 bytes of padding
        + TIMES_HEX + "7069636b6c65" + "0000"
    )  # fmt: skip


def test_a_plain_array_is_these_bytes() -> None:
    assert encode_plain(0x0102, 1.5, -2.0, 1, b"the head", b"data", None).hex() == (
        "30000000000000006400" + "0000" + "01c00800"  # 48 bytes, codec 1, 12 bytes of padding, a head of 8
        + TIMES_HEX + b"the headdata".hex() + "00" * 12
    )  # fmt: skip


def test_a_sampled_message_is_these_bytes() -> None:
    assert encode_plain(0x0102, 1.5, -2.0, 3, b"", b"str", TRACE).hex() == (
        "40000000000000006400" + "0000" + "03010500"  # 64 bytes, codec 3, sampled, 5 bytes of padding
        + TIMES_HEX + TRACE_HEX + "737472" + "00" * 5
    )  # fmt: skip


@pytest.mark.parametrize("trace", [None, TRACE])
def test_a_message_in_parts_is_these_bytes(trace: Trace | None) -> None:
    parts = encode_in_parts(0x0102, 1.5, -2.0, 0, b"pickle", [memoryview(b"buffer"), memoryview(b"more")], trace)
    assert b"".join(parts).hex() == (
        ("b0" if trace else "90") + "000000000000006400" + "0000" + ("00030200" if trace else "00020200")  # two buffers
        + TIMES_HEX + (TRACE_HEX if trace else "")
        + "0600000000000000" + "0600000000000000" + "0400000000000000"
        + "7069636b6c65" + "00" * 10  # up to 64
        + "627566666572" + "00" * 58  # up to 128
        + "6d6f7265" + "00" * 12
    )  # fmt: skip


@pytest.mark.parametrize("trace", [None, TRACE])
def test_a_message_in_a_segment_is_these_bytes(trace: Trace | None) -> None:
    at = Placed(4096, 8192, 5120, [6, 4])
    assert encode_in_segment(0x0102, 1.5, -2.0, 0, b"pickle", at, trace).hex() == (
        ("70" if trace else "50") + "000000000000006400" + "0000" + ("00050200" if trace else "00040200")
        + TIMES_HEX + (TRACE_HEX if trace else "")
        + "0010000000000000" + "0020000000000000" + "0014000000000000"
        + "0600000000000000" + "0600000000000000" + "0400000000000000"
        + "7069636b6c65" + "0000"
    )  # fmt: skip


def test_an_acknowledgement_is_these_bytes() -> None:
    assert encode_ack([0x0102]).hex() == "08000000000000006500000000000000" + "0201000000000000"
    assert encode_ack([1, 2]).hex() == "10000000000000006500000000000000" + "0100000000000000" + "0200000000000000"


# -- there and back ---------------------------------------------------------------------------------------------------

OWN_FROM = RECEIVE_BUFFER_BYTES // 4
EDGES = [OWN_FROM, RECEIVE_BUFFER_BYTES]
sizes_of_data = (
    st.integers(0, 200)
    | st.sampled_from(EDGES).flatmap(lambda edge: st.integers(edge - 150, edge + 50))
    | st.just(3 * RECEIVE_BUFFER_BYTES + 7)
)


def filling(size: int, seed: int) -> bytes:
    return bytes([seed]) * size


data_bytes = st.builds(filling, sizes_of_data, st.integers(0, 255))
heads = st.integers(0, 8).map(lambda count: b"h" * (8 + 16 * count))


@st.composite
def messages(draw: st.DrawFn) -> Sent:
    message_id, publish_s, origin_s, trace = draw(ids), draw(times), draw(times), draw(traces)
    kind = draw(st.sampled_from(["array", "pickle", "flat", "parts", "segment"]))
    start = (message_id, publish_s, origin_s)
    if kind == "array":
        return Sent(*start, NDARRAY_CODEC, draw(heads), [draw(data_bytes)], trace, is_plain=True)
    if kind == "pickle":
        return Sent(*start, 0, draw(data_bytes), [], trace, is_plain=True)
    if kind == "flat":
        return Sent(*start, draw(st.integers(2, 255)), b"", [draw(data_bytes)], trace, is_plain=True)
    codec, head = draw(st.integers(0, 255)), draw(st.binary(max_size=100))
    if kind == "parts":
        return Sent(*start, codec, head, draw(st.lists(data_bytes, max_size=4)), trace)
    sizes = draw(st.lists(st.integers(0, 10**9), max_size=5))
    before = draw(st.integers(0, 10**6))
    at = Placed(10**6, before + placed(sizes)[1], 10**6 + before, sizes)
    return Sent(*start, codec, head, [], trace, at)


def assert_is(sent: Sent, chunk: bytearray | memoryview, found: tuple) -> None:
    assert found[:3] == sent[:3]
    trace, content = read(chunk, found)
    assert trace == sent.trace
    assert content.codec == sent.codec
    assert content.placed == sent.at
    if sent.is_plain and sent.codec == NDARRAY_CODEC:
        # Whoever reads the array knows its size; what is behind its data is padding.
        (data,) = content.buffers
        assert content.head == sent.head
        assert data[: len(sent.buffers[0])] == sent.buffers[0]
        assert not any(data[len(sent.buffers[0]) :])
        assert len(data) - len(sent.buffers[0]) < 16
        assert not data or address_of(data) % 16 == 0
        return
    if not (sent.is_plain and sent.codec):
        assert content.head == sent.head
    assert content.buffers == sent.buffers
    if not sent.is_plain:
        body = address_of(chunk) + found[4] - FIELDS_BYTES + (TRACE_BYTES if sent.trace else 0)
        for buffer in content.buffers:
            assert not buffer or address_of(buffer) % 16 == 0
            assert not buffer or (address_of(buffer) - body) % ALIGNMENT == 0


@settings(max_examples=200)
@given(
    st.lists(messages(), max_size=8),
    st.lists(
        st.integers(100, 900) | st.sampled_from([1, 5000, OWN_FROM, RECEIVE_BUFFER_BYTES, 10**6]),
        min_size=2,
        unique=True,
    ),
)
def test_messages_come_out_whole_and_in_order_in_whatever_pieces_they_come(sent: list[Sent], sizes: list[int]) -> None:
    frames = [message.frame() for message in sent]
    assert all(len(frame) % 16 == 0 for frame in frames)
    decoder = MessageDecoder()
    got = feed(decoder, b"".join(frames), sizes)
    assert decoder.is_empty
    assert len(got) == len(sent)
    for message, (chunk, found) in zip(sent, got, strict=True):
        assert_is(message, chunk, found)


@settings(max_examples=100)
@given(
    st.lists(messages(), max_size=6),
    # Byte by byte only in between: that takes long, and brings nothing new.
    st.lists(st.integers(50, 400) | st.integers(1, 10), min_size=1).filter(lambda sizes: max(sizes) >= 50),
    st.integers(64, 1000),
)
def test_a_receive_buffer_of_any_size_will_do(sent: list[Sent], sizes: list[int], capacity: int) -> None:
    got = feed(MessageDecoder(capacity=capacity), b"".join(message.frame() for message in sent), sizes)
    for message, (chunk, found) in zip(sent, got, strict=True):
        assert_is(message, chunk, found)


def test_what_one_read_brings_shares_one_chunk_that_stays() -> None:
    frames = [
        Sent(number, 1.0, 2.0, 2, b"", [bytes([number]) * 50], None, is_plain=True).frame() for number in range(5)
    ]
    decoder = MessageDecoder()
    got = feed(decoder, b"".join(frames), [10**6])
    assert len({id(chunk) for chunk, _ in got}) == 1
    feed(decoder, b"".join(frames[::-1]), [10**6])
    assert [read(*one)[1].buffers for one in got] == [[bytes([number]) * 50] for number in range(5)]


def test_large_messages_are_received_straight_into_memory_that_was_allocated() -> None:
    asked: list[tuple[int, int]] = []
    memory: list[bytearray] = []

    def allocate(opcode: int, size: int) -> memoryview:
        asked.append((opcode, size))
        memory.append(bytearray(size))
        return memoryview(memory[-1])

    small = Sent(1, 1.0, 2.0, 2, b"", [b"small"], None, is_plain=True)
    large = Sent(2, 1.0, 2.0, 0, b"head", [b"x" * 100_000], TRACE)
    stream = small.frame() + large.frame() + small.frame()
    got = feed(MessageDecoder(allocate=allocate), stream, [1000])
    assert asked == [(MESSAGE_OPCODE, len(large.frame()) - HEADER.size)]
    assert isinstance(got[1][0], memoryview)
    assert got[1][0].obj is memory[0]
    for sent, (chunk, found) in zip([small, large, small], got, strict=True):
        assert_is(sent, chunk, found)


def test_decoding_copies_nothing() -> None:
    chunk = bytearray(Sent(1, 2.0, 3.0, 0, b"head", [b"buffer"], None).frame())
    content = decode_content(chunk, (PARTS << FLAGS_SHIFT) | 1 << NUMBER_SHIFT, FRAME_BYTES, len(chunk))
    assert isinstance(content.head, memoryview)
    assert content.head.obj is content.buffers[0].obj is chunk


def test_too_many_buffers_are_refused_before_they_are_sent() -> None:
    many = [memoryview(b"")] * BUFFERS_MAX
    assert len(one_of(b"".join(encode_in_parts(1, 2.0, 3.0, 0, b"", many, None)))[1].buffers) == BUFFERS_MAX
    with pytest.raises(ProtocolError, match="the limit is"):
        encode_in_parts(1, 2.0, 3.0, 0, b"", [*many, memoryview(b"")], None)
    with pytest.raises(ProtocolError, match="the limit is"):
        encode_in_segment(1, 2.0, 3.0, 0, b"", Placed(0, 0, 0, [0] * (BUFFERS_MAX + 1)), None)


# -- peers that lie ---------------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(st.binary(max_size=400), st.lists(st.integers(1, 100), min_size=1))
def test_a_stream_of_garbage_is_a_protocol_error_or_waits_for_more(garbage: bytes, sizes: list[int]) -> None:
    try:
        feed(MessageDecoder(1 << 20), garbage, sizes)
    except (ProtocolError, FrameTooLarge):
        return


@pytest.mark.parametrize(
    ("header", "error"),
    [
        (HEADER.pack(64, ACK_OPCODE, 0, 0), ProtocolError),
        (HEADER.pack(64, MESSAGE_OPCODE, 1, 0), ProtocolError),
        (HEADER.pack(FIELDS_BYTES - 1, MESSAGE_OPCODE, 0, 0), ProtocolError),
        (HEADER.pack((1 << 20) + 1, MESSAGE_OPCODE, 0, 0), FrameTooLarge),
        (HEADER.pack(2**64 - 1, MESSAGE_OPCODE, 0, 0), FrameTooLarge),
    ],
    ids=["opcode", "flags", "short", "large", "very large"],
)
def test_what_is_no_message_is_named(header: bytes, error: type[Exception]) -> None:
    before = Sent(1, 2.0, 3.0, 2, b"", [b"x"], None, is_plain=True).frame()
    for data in (header + bytes(64), before + header + bytes(64)):
        with pytest.raises(error):
            feed(MessageDecoder(1 << 20), data, [10**6])


layouts = st.builds(
    lambda codec, flags, number: codec | flags << FLAGS_SHIFT | number << NUMBER_SHIFT,
    st.integers(0, 5) | st.integers(0, 255),
    st.integers(0, 7) | st.integers(0, 255),
    st.integers(0, 6) | st.integers(0, 0xFFFF),
)
# Sizes that fit, and sizes that do not.
words = st.integers(0, 40) | st.sampled_from([2**31, 2**63 - 1, 2**63, 2**64 - 1]) | span_ids
bodies = st.binary(max_size=300) | st.lists(words, max_size=20).map(
    lambda table: struct.pack(f"<{len(table)}Q", *table)
)


@settings(max_examples=400)
@given(layouts, bodies, st.integers(0, 64), st.integers(0, 64))
def test_a_lie_about_the_layout_is_a_protocol_error_or_harmless(
    layout: int, body: bytes, before: int, behind: int
) -> None:
    chunk = bytearray(bytes(FIELDS_BYTES + before) + body + b"\xff" * behind)
    start = FIELDS_BYTES + before
    stop = start + len(body)
    try:
        trace, content = read(chunk, (1, 2.0, 3.0, layout, start, stop))
    except ProtocolError:
        return
    assert (trace is None) == (not layout & SAMPLED << FLAGS_SHIFT)
    for part in [content.head, *content.buffers]:
        assert not part or address_of(chunk) + start <= address_of(part) <= address_of(chunk) + stop - len(part)
    if content.placed is not None:
        end = content.placed.offset + placed(content.placed.sizes)[1]
        assert content.placed.window <= content.placed.offset
        assert end <= content.placed.window + content.placed.window_bytes


@settings(max_examples=200)
@given(layouts, bodies)
def test_a_lie_about_shared_memory_is_a_protocol_error_or_harmless(layout: int, body: bytes) -> None:
    try:
        at = decode_placed(bytearray(body), 0, len(body), layout)
    except ProtocolError:
        return
    assert len(at.sizes) == layout >> NUMBER_SHIFT
    assert at.window <= at.offset <= at.offset + sum(at.sizes) <= at.window + at.window_bytes


@settings(max_examples=300)
@given(messages(), st.data())
def test_a_damaged_message_is_a_protocol_error_or_harmless(sent: Sent, data: st.DataObject) -> None:
    frame = bytearray(sent.frame())
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, min(len(frame), 200) - 1))] = data.draw(st.integers(0, 255))
    try:
        for chunk, found in feed(MessageDecoder(1 << 20), bytes(frame), [10**6]):
            read(chunk, found)
    except (ProtocolError, FrameTooLarge):
        return


@pytest.mark.parametrize("flags", [PARTS, SEGMENT])
@pytest.mark.parametrize("trace", [None, TRACE])
def test_a_table_that_was_cut_off_is_a_protocol_error(flags: int, trace: Trace | None) -> None:
    at = Placed(0, 128, 0, [3, 3]) if flags & SEGMENT else None
    sent = Sent(1, 2.0, 3.0, 0, b"head", [] if at else [b"one", b"two"], trace, at)
    frame = bytearray(sent.frame())
    layout = HEADER.unpack_from(frame)[3]
    needed = len(frame) - 61 - 16 if at is None else len(frame) - 16
    for stop in range(FRAME_BYTES, needed):
        with pytest.raises(ProtocolError):
            read(frame, (1, 2.0, 3.0, layout, FRAME_BYTES, stop))


@pytest.mark.parametrize("flags", [16, 0x80, PARTS | SEGMENT])
def test_unknown_message_flags_are_a_protocol_error(flags: int) -> None:
    with pytest.raises(ProtocolError, match="unknown flags"):
        decode_content(bytearray(200), flags << FLAGS_SHIFT, FRAME_BYTES, 200)


# -- acknowledgements -------------------------------------------------------------------------------------------------


@given(st.lists(ids, max_size=50))
def test_an_acknowledgement_survives(message_ids: list[int]) -> None:
    (frame,) = FrameDecoder().feed(encode_ack(message_ids))
    assert frame.opcode == ACK_OPCODE
    assert list(decode_ack(frame.body)) == message_ids


@pytest.mark.parametrize("size", [1, 7, 9, 23])
def test_a_broken_acknowledgement_is_a_protocol_error(size: int) -> None:
    with pytest.raises(ProtocolError, match=f"{size} bytes"):
        decode_ack(bytes(size))
