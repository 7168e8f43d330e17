"""The frame of a message: golden bytes, any buffers, and no trust in sizes."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ezmsg.core.errors import ProtocolError
from ezmsg.core.wire.frames import HEADER, FrameDecoder
from ezmsg.core.wire.messages import (
    ALIGNMENT,
    BUFFERS_MAX,
    MessageHeader,
    Trace,
    decode_ack,
    decode_message,
    encode_ack,
    encode_message_header,
    message_parts,
)
from ezmsg.core.wire.records import ACK_OPCODE, MESSAGE_OPCODE

TRACE = (0x0102030405060708090A0B0C0D0E0F10, 0x1112131415161718)

ids = st.integers(0, 2**64 - 1)
times = st.floats(allow_nan=False)
traces = st.none() | st.tuples(st.integers(0, 2**128 - 1), ids)


def frame_of(header: MessageHeader, head: bytes, buffers: list[bytes]) -> bytes:
    encoded = encode_message_header(
        header.message_id,
        header.publish_s,
        header.origin_s,
        header.codec,
        len(head),
        [len(buffer) for buffer in buffers],
        header.trace,
    )
    return b"".join(message_parts(encoded, head, [memoryview(buffer) for buffer in buffers]))


def test_a_plain_message_is_these_bytes() -> None:
    frame = frame_of(MessageHeader(0x0102, 1.5, -2.0, 5, None), b"pickle", [])
    assert frame.hex() == (
        "2e000000000000006400000000000000"  # 46 bytes, opcode 100
        "0201000000000000000000000000f83f00000000000000c0"  # id, time of publishing, time of origin
        "05000000000000000600000000000000"  # codec 5, no flags, no buffers, 6 bytes of pickle
        "7069636b6c65"
    )


def test_a_sampled_message_with_a_buffer_is_these_bytes() -> None:
    frame = frame_of(MessageHeader(1, 2.5, 3.0, 0, TRACE), b"pickle", [b"buffer"])
    assert frame.hex() == (
        "86000000000000006400000000000000"  # 134 bytes, opcode 100
        "010000000000000000000000000004400000000000000840"
        "00010000010000000600000000000000"  # codec 0, sampled, one buffer, 6 bytes of pickle
        "0102030405060708090a0b0c0d0e0f101112131415161718"  # trace id and span id, as W3C writes them
        "0600000000000000"  # 6 bytes in the buffer
        "7069636b6c65" + "00" * 50 + "627566666572"  # the buffer begins at 128
    )


@settings(deadline=None)
@given(ids, times, times, st.integers(0, 255), traces, st.binary(), st.lists(st.binary(max_size=200), max_size=5))
def test_a_message_survives(
    message_id: int, publish: float, origin: float, codec: int, trace: Trace | None, head: bytes, buffers: list[bytes]
) -> None:
    header = MessageHeader(message_id, publish, origin, codec, trace)
    (frame,) = FrameDecoder().feed(frame_of(header, head, buffers))
    assert (frame.opcode, frame.flags, frame.request_id) == (MESSAGE_OPCODE, 0, 0)
    decoded, decoded_head, decoded_buffers = decode_message(frame.body)
    assert decoded == header
    assert decoded_head == head
    assert decoded_buffers == buffers


@pytest.mark.parametrize("trace", [None, TRACE])
def test_buffers_are_aligned_relative_to_the_body(trace: Trace | None) -> None:
    arrays = [np.arange(size, dtype=np.float64) for size in (3, 0, 1000, 1)]
    header = MessageHeader(1, 2, 3, 0, trace)
    body = memoryview(frame_of(header, b"x" * 13, [array.tobytes() for array in arrays]))[HEADER.size :]
    start = np.frombuffer(body, np.uint8).ctypes.data
    for array, buffer in zip(arrays, decode_message(body)[2], strict=True):
        assert np.array_equal(np.frombuffer(buffer, np.float64), array)
        if buffer:
            assert (np.frombuffer(buffer, np.uint8).ctypes.data - start) % ALIGNMENT == 0


def test_decoding_copies_nothing() -> None:
    body = bytearray(frame_of(MessageHeader(1, 2, 3, 0, None), b"head", [b"buffer"])[HEADER.size :])
    _, head, (buffer,) = decode_message(memoryview(body))
    assert head.obj is body
    assert buffer.obj is body


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_garbage_is_a_message_or_a_protocol_error(garbage: bytes) -> None:
    try:
        _, head, buffers = decode_message(memoryview(garbage))
    except ProtocolError:
        return
    assert len(head) + sum(map(len, buffers)) <= len(garbage)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 200), st.binary(min_size=1, max_size=8), st.booleans())
def test_a_damaged_header_is_noticed_or_harmless(position: int, damage: bytes, is_sampled: bool) -> None:
    body = bytearray(frame_of(MessageHeader(1, 2, 3, 0, TRACE if is_sampled else None), b"head", [b"x" * 10] * 3))
    del body[: HEADER.size]
    position %= len(body)
    body[position : position + len(damage)] = damage
    try:
        _, head, buffers = decode_message(memoryview(body))
    except ProtocolError:
        return
    assert len(head) + sum(map(len, buffers)) <= len(body)


@pytest.mark.parametrize("change", [-1, 1])
def test_sizes_that_do_not_add_up_are_a_protocol_error(change: int) -> None:
    for buffers in ([], [b"buffer"], [b"a", b""]):
        body = frame_of(MessageHeader(1, 2, 3, 0, None), b"head", buffers)[HEADER.size :]
        changed = body + b"x" if change > 0 else body[:-1]
        with pytest.raises(ProtocolError, match="message 1 has"):
            decode_message(memoryview(changed))


def test_a_claim_of_billions_of_buffers_costs_nothing() -> None:
    body = struct.pack("<QqqBBxxIQ", 1, 2, 3, 0, 0, 0xFFFFFFFF, 0)
    with pytest.raises(ProtocolError, match="claims 4294967295 buffers"):
        decode_message(memoryview(body))


def test_too_many_buffers_are_refused_before_they_are_sent() -> None:
    with pytest.raises(ProtocolError, match="the limit is"):
        encode_message_header(1, 2, 3, 0, 0, [0] * (BUFFERS_MAX + 1))
    header = encode_message_header(1, 2, 3, 0, 0, [0] * BUFFERS_MAX)
    body = memoryview(b"".join(message_parts(header, b"", [memoryview(b"")] * BUFFERS_MAX)))[HEADER.size :]
    assert len(decode_message(body)[2]) == BUFFERS_MAX


def test_unknown_message_flags_are_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="unknown flags"):
        decode_message(memoryview(struct.pack("<QqqBBxxIQ", 1, 2, 3, 0, 2, 0, 0)))


# -- acknowledgements -----------------------------------------------------------------------------------------------


def test_an_acknowledgement_is_these_bytes() -> None:
    assert encode_ack([0x0102]).hex() == "08000000000000006500000000000000" + "0201000000000000"


@given(st.lists(ids, max_size=50))
def test_an_acknowledgement_survives(message_ids: list[int]) -> None:
    (frame,) = FrameDecoder().feed(encode_ack(message_ids))
    assert frame.opcode == ACK_OPCODE
    assert list(decode_ack(frame.body)) == message_ids


def test_a_broken_acknowledgement_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="9 bytes"):
        decode_ack(bytes(9))
