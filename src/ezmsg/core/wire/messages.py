"""One message as a frame, and its acknowledgement: what a publisher and a channel send each other.

The body of a message is a fixed header, 24 bytes of trace context when it is sampled, the sizes of its out-of-band
buffers, the pickle, and the buffers, each at a multiple of 64 bytes from the beginning of the body, so that arrays are
aligned wherever the body is. All numbers are little-endian, except the trace context, which is as W3C has it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from ezmsg.core.errors import ProtocolError
from ezmsg.core.wire.frames import HEADER
from ezmsg.core.wire.records import ACK_OPCODE, MESSAGE_OPCODE

SAMPLED = 1
ALIGNMENT = 64
# Each costs a Python object at the receiver; what pickles into more is better pickled in-band.
BUFFERS_MAX = 1 << 16
Trace = tuple[int, int]

# Message id, publish and origin time in seconds of CLOCK_MONOTONIC, codec, flags, buffers, bytes of the pickle.
_FIELDS = "QddBBxxIQ"
_BODY = struct.Struct("<" + _FIELDS)
_FRAME = struct.Struct(HEADER.format + _FIELDS)
_TRACE = struct.Struct(">QQQ")
_BODY_BYTES = _BODY.size
_TRACE_BYTES = _TRACE.size
_LOW = (1 << 64) - 1

_ACK = struct.Struct(HEADER.format + "Q")
_ID = struct.Struct("<Q")
PADDING = tuple(bytes(size) for size in range(ALIGNMENT))


class MessageHeader(NamedTuple):
    """What a message says of itself. `trace` is (trace id, publish span id) when it is sampled."""

    message_id: int
    publish_s: float
    origin_s: float
    codec: int
    trace: Trace | None


@lru_cache(maxsize=64)
def _sizes(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}Q")


def encode_message_header(
    message_id: int,
    publish_s: float,
    origin_s: float,
    codec: int,
    head_size: int,
    buffer_sizes: Sequence[int] = (),
    trace: Trace | None = None,
) -> bytes:
    """Everything of a message's frame that comes before its pickle.

    The pickle follows, then the buffers, as `message_parts` lays them out.

    Raises:
        ProtocolError: There are more than `BUFFERS_MAX` buffers.
    """
    if trace is None and not buffer_sizes:
        return _FRAME.pack(
            _BODY_BYTES + head_size, MESSAGE_OPCODE, 0, 0,
            message_id, publish_s, origin_s, codec, 0, 0, head_size,
        )  # fmt: skip
    if len(buffer_sizes) > BUFFERS_MAX:
        raise ProtocolError(f"a message has {len(buffer_sizes)} out-of-band buffers, the limit is {BUFFERS_MAX}")
    body_size = _BODY_BYTES + 8 * len(buffer_sizes) + head_size
    flags, context = 0, b""
    if trace is not None:
        trace_id, span_id = trace
        flags, context = SAMPLED, _TRACE.pack(trace_id >> 64, trace_id & _LOW, span_id)
        body_size += _TRACE_BYTES
    for size in buffer_sizes:
        body_size += -body_size % ALIGNMENT + size
    header = _FRAME.pack(
        body_size, MESSAGE_OPCODE, 0, 0,
        message_id, publish_s, origin_s, codec, flags, len(buffer_sizes), head_size,
    )  # fmt: skip
    if buffer_sizes:
        return header + context + _sizes(len(buffer_sizes)).pack(*buffer_sizes)
    return header + context


def message_parts(header: bytes, head: bytes, buffers: Sequence[memoryview]) -> list[bytes | memoryview]:
    """A whole frame, as the parts to write one after the other: `header` as encoded, pickle, buffers and padding."""
    parts: list[bytes | memoryview] = [header, head]
    position = len(header) - HEADER.size + len(head)
    for buffer in buffers:
        padding = -position % ALIGNMENT
        if padding:
            parts.append(PADDING[padding])
        parts.append(buffer)
        position += padding + buffer.nbytes
    return parts


def decode_message(body: memoryview) -> tuple[MessageHeader, memoryview, list[memoryview]]:
    """The header, the pickle and the out-of-band buffers of a message; views of `body`, nothing is copied.

    Raises:
        ProtocolError: The sizes do not add up.
    """
    total = len(body)
    if total < _BODY_BYTES:
        raise ProtocolError(f"a message of {total} bytes is shorter than its header")
    message_id, publish_s, origin_s, codec, flags, count, head_size = _BODY.unpack_from(body)
    if not flags and not count:
        if _BODY_BYTES + head_size != total:
            raise ProtocolError(f"message {message_id} has {total} bytes, its header says {_BODY_BYTES + head_size}")
        return MessageHeader(message_id, publish_s, origin_s, codec, None), body[_BODY_BYTES:], []
    if flags & ~SAMPLED:
        raise ProtocolError(f"message {message_id} has unknown flags {flags:#04x}")
    position = _BODY_BYTES + 8 * count + (_TRACE_BYTES if flags else 0)
    if position > total or count > BUFFERS_MAX:
        raise ProtocolError(f"message {message_id} has {total} bytes and claims {count} buffers")
    trace = None
    if flags:
        high, low, span_id = _TRACE.unpack_from(body, _BODY_BYTES)
        trace = (high << 64 | low, span_id)
    sizes = _sizes(count).unpack_from(body, position - 8 * count)
    stop = position + head_size
    head = body[position:stop]
    buffers: list[memoryview] = []
    for size in sizes:
        start = stop + -stop % ALIGNMENT
        stop = start + size
        buffers.append(body[start:stop])
    # Slices are forgiving, so this one look at the end vouches for all of them.
    if stop != total:
        raise ProtocolError(f"message {message_id} has {total} bytes, its header says {stop}")
    return MessageHeader(message_id, publish_s, origin_s, codec, trace), head, buffers


def encode_ack(message_ids: Sequence[int]) -> bytes:
    """A frame that releases these messages."""
    if len(message_ids) == 1:
        return _ACK.pack(8, ACK_OPCODE, 0, 0, message_ids[0])
    return HEADER.pack(8 * len(message_ids), ACK_OPCODE, 0, 0) + _sizes(len(message_ids)).pack(*message_ids)


def decode_ack(body: bytes | bytearray | memoryview) -> Iterable[int]:
    """The messages an acknowledgement releases.

    Raises:
        ProtocolError: The body is no list of message ids.
    """
    if len(body) == 8:
        return _ID.unpack(body)
    if len(body) % 8:
        raise ProtocolError(f"an acknowledgement of {len(body)} bytes is no list of message ids")
    return _sizes(len(body) // 8).unpack(body)
