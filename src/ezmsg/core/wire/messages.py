"""One message as a frame, and its acknowledgement: what a publisher and a channel send each other.

The request id of a message's frame says how its body is laid out: codec (8 bits), flags (8), and a number (16). The
body begins with message id, publish and origin time (24 bytes), and 32 bytes of trace context when it is sampled, if
not calculated from the message id (see `records.ChannelOpened`). Then:

    plain     Head and data, one behind the other. The number is the size of an array's head, and four of the flags how
              many bytes of padding are at the end; else the number is that.
    parts     The size of the head and of each buffer (8 bytes each; the number says how many), the head, and the
              buffers, each at a multiple of 64 bytes from the beginning of the body, trace context aside.
    segment   The same, but the buffers are in shared memory, one behind the other at multiples of 64 bytes, and before
              the sizes stand what to map (offset and size, 8 bytes each) and the offset of the first buffer.

Frames of messages are padded to multiples of 16 bytes, so that arrays are aligned also where many messages are received
at once. Numbers are little-endian; the trace context is a trace id of 16 bytes as W3C has it, and a span id.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from ezmsg.core.errors import FrameTooLarge, ProtocolError
from ezmsg.core.wire.frames import HEADER, FrameDecoder
from ezmsg.core.wire.records import ACK_OPCODE, MESSAGE_OPCODE

SAMPLED: Final = 1
PARTS: Final = 2
SEGMENT: Final = 4
CALCULATED: Final = 8
_KNOWN_FLAGS: Final = SAMPLED | PARTS | SEGMENT | CALCULATED
PADDING_SHIFT: Final = 12
PADDING_MASK: Final = 15
_ARRAY_FLAGS: Final = _KNOWN_FLAGS | PADDING_MASK << 4
FLAGS_SHIFT: Final = 8
NUMBER_SHIFT: Final = 16
NDARRAY_CODEC: Final = 1
"""The codec whose plain messages have a head and data; see `messagemarshal`."""

ALIGNMENT: Final = 64
_FRAME_ALIGNMENT: Final = 16
# Each costs a Python object at the receiver; what pickles into more is better pickled in-band.
BUFFERS_MAX: Final = 0xFFFF
Trace = tuple[bytes, int, *tuple[Any, ...]]
"""Trace id (16 bytes) and span id of the publish; what else may follow stays here."""
Context = Trace | tuple[()]
"""The trace of a message; empty where whoever receives it calculates that."""

# Frame header, message id, publish and origin time in seconds of CLOCK_MONOTONIC. The id is signed, as in a row, where
# all that a peer may say has to fit.
_FRAME: Final = struct.Struct(HEADER.format + "qdd")
_FIELDS: Final = struct.Struct("<qdd")
_TRACE: Final = struct.Struct("<16sQ8x")
_TRACED_FRAME: Final = struct.Struct(f"{_FRAME.format}{_TRACE.format[1:]}")
_WINDOW: Final = struct.Struct("<3Q")
_ID: Final = struct.Struct("<q")
FIELDS_BYTES: Final = _FIELDS.size
FRAME_BYTES: Final = _FRAME.size
TRACE_BYTES: Final = _TRACE.size

_SAMPLED: Final = SAMPLED << FLAGS_SHIFT
_CALCULATED: Final = CALCULATED << FLAGS_SHIFT

_ACK: Final = struct.Struct(HEADER.format + "q")
PADDING: Final = tuple(bytes(size) for size in range(ALIGNMENT))


@lru_cache(maxsize=64)
def _sizes(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}Q")


@lru_cache(maxsize=64)
def _ids(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}q")


def _context(trace: Context | None) -> tuple[bytes, int]:
    """The trace context of a message as bytes, and the flag that says so."""
    if not trace:
        return b"", 0 if trace is None else CALCULATED
    return _TRACE.pack(trace[0], trace[1]), SAMPLED


# -- sending ----------------------------------------------------------------------------------------------------------


def encode_plain(
    message_id: int, publish_s: float, origin_s: float, codec: int, head: bytes, data: bytes, trace: Context | None
) -> bytes:
    """A whole frame of a message without buffers."""
    size = FIELDS_BYTES + len(head) + len(data)
    padding = -(size + HEADER.size) % _FRAME_ALIGNMENT
    if codec == NDARRAY_CODEC:
        layout = codec | padding << PADDING_SHIFT | len(head) << NUMBER_SHIFT
    else:
        layout = codec | padding << NUMBER_SHIFT
    if not trace:
        if trace is not None:
            layout |= _CALCULATED
        frame = _FRAME.pack(size + padding, MESSAGE_OPCODE, 0, layout, message_id, publish_s, origin_s)
    else:
        size += TRACE_BYTES
        layout |= _SAMPLED
        frame = _TRACED_FRAME.pack(
            size + padding, MESSAGE_OPCODE, 0, layout, message_id, publish_s, origin_s, trace[0], trace[1]
        )
    if padding:
        return b"".join((frame, head, data, PADDING[padding]))
    return frame + head + data


def encode_in_parts(
    message_id: int,
    publish_s: float,
    origin_s: float,
    codec: int,
    head: bytes,
    buffers: Sequence[memoryview],
    trace: Context | None,
) -> list[bytes | memoryview]:
    """A frame as parts to write one after the other, the buffers as they are.

    Raises:
        ProtocolError: There are more than `BUFFERS_MAX` buffers.
    """
    sizes = [buffer.nbytes for buffer in buffers]
    table = _sizes(len(sizes) + 1).pack(len(head), *sizes)
    context, flag = _context(trace)
    position = FIELDS_BYTES + len(table) + len(head)
    parts: list[bytes | memoryview] = [b""]
    for buffer in buffers:
        padding = -position % ALIGNMENT
        if padding:
            parts.append(PADDING[padding])
        parts.append(buffer)
        position += padding + buffer.nbytes
    position += len(context)
    padding = -(position + HEADER.size) % _FRAME_ALIGNMENT
    if padding:
        parts.append(PADDING[padding])
    layout = _layout(codec, PARTS | flag, len(buffers))
    frame = _FRAME.pack(position + padding, MESSAGE_OPCODE, 0, layout, message_id, publish_s, origin_s)
    parts[0] = b"".join((frame, context, table, head))
    return parts


class Placed(NamedTuple):
    """Where in shared memory the buffers of a message are: what to map, the offset of the first, and their sizes."""

    window: int
    window_bytes: int
    offset: int
    sizes: list[int]


def encode_in_segment(
    message_id: int, publish_s: float, origin_s: float, codec: int, head: bytes, at: Placed, trace: Context | None
) -> bytes:
    """A whole frame of a message whose buffers are in shared memory, as `placed` lays them out."""
    sizes = at.sizes
    table = _sizes(len(sizes) + 4).pack(at.window, at.window_bytes, at.offset, len(head), *sizes)
    context, flag = _context(trace)
    size = FIELDS_BYTES + len(context) + len(table) + len(head)
    padding = -(size + HEADER.size) % _FRAME_ALIGNMENT
    layout = _layout(codec, SEGMENT | flag, len(sizes))
    frame = _FRAME.pack(size + padding, MESSAGE_OPCODE, 0, layout, message_id, publish_s, origin_s)
    return b"".join((frame, context, table, head, PADDING[padding]))


def placed(sizes: Iterable[int]) -> tuple[list[int], int]:
    """Where buffers of these sizes lie in shared memory, from the offset of the first, and what they take in all."""
    offsets: list[int] = []
    position = 0
    for size in sizes:
        offsets.append(position)
        position += size + -size % ALIGNMENT
    return offsets, position


def _layout(codec: int, flags: int, count: int) -> int:
    if count > BUFFERS_MAX:
        raise ProtocolError(f"a message has {count} out-of-band buffers, the limit is {BUFFERS_MAX}")
    return codec | flags << FLAGS_SHIFT | count << NUMBER_SHIFT


# -- receiving --------------------------------------------------------------------------------------------------------

Found = tuple[int, float, float, int, int, int]
"""Message id, publish and origin time, layout, and where in a chunk what follows them begins and ends."""

Chunk = bytearray | memoryview


class MessageDecoder(FrameDecoder):
    """Cuts a stream into messages, all that one read completes at once.

    The beginning of a connection, which is records, goes through `received`.
    """

    __slots__ = ()

    def messages(self, size: int) -> tuple[Chunk, list[Found]]:
        """The messages that `size` more bytes in the buffer complete, and the memory they are in, which is theirs.

        Raises:
            FrameTooLarge: A frame announces more than the limit.
            ProtocolError: The bytes are no frame of a message.
        """
        if self._head is not None:
            return self._rest_of_large(size)
        view = self._view
        first = start = self._start
        self._end = end = self._end + size
        found: list[Found] = []
        body_size = layout = 0
        while end - start >= FRAME_BYTES:
            body_size, opcode, flags, layout, message_id, publish_s, origin_s = _FRAME.unpack_from(view, start)
            if opcode != MESSAGE_OPCODE or flags or body_size < FIELDS_BYTES:
                raise ProtocolError(f"opcode {opcode}, flags {flags:#06x}, {body_size} bytes: that is no message")
            if body_size > self._limit:
                raise FrameTooLarge(opcode, body_size, self._limit)
            stop = start + HEADER.size + body_size
            if stop > end:
                break
            found.append((message_id, publish_s, origin_s, layout, start + FRAME_BYTES - first, stop - first))
            start = stop
        # One copy for all of them: the next read overwrites the buffer.
        chunk = bytearray(view[first:start])
        self._start = start
        if end - start >= FRAME_BYTES and body_size > self._own_from:
            self._receive_apart(MESSAGE_OPCODE, 0, layout, view[start + HEADER.size : end], body_size)
        return chunk, found

    def _rest_of_large(self, size: int) -> tuple[Chunk, list[Found]]:
        self._filled += size
        own = self._own
        if self._filled < len(own):
            return own, []
        assert self._head is not None
        layout = self._head[2]
        self._head, self._own = None, memoryview(b"")
        return own, [(*_FIELDS.unpack_from(own), layout, FIELDS_BYTES, len(own))]


def decode_trace(chunk: Chunk, start: int, stop: int) -> Trace:
    """The trace context of a sampled message, which begins at `start`.

    Raises:
        ProtocolError: There is none.
    """
    if stop - start < TRACE_BYTES:
        raise ProtocolError("a sampled message is shorter than its trace context")
    return _TRACE.unpack_from(chunk, start)


class Content(NamedTuple):
    """What a message says, still as bytes; in a segment there are no buffers, but where they are."""

    codec: int
    head: bytes | memoryview
    buffers: list[memoryview]
    placed: Placed | None = None


def decode_content(chunk: Chunk, layout: int, start: int, stop: int, at: Placed | None = None) -> Content:
    """Take a message apart.

    Args:
        chunk: The memory that holds it.
        layout: As its frame says.
        start: Where it begins behind its times, trace context included if `layout` says that it is sampled.
        stop: Where it ends.
        at: Where its buffers are, if they are in a segment and that was looked up already.

    Raises:
        ProtocolError: The sizes do not add up.
    """
    codec, flags, number = layout & 0xFF, layout >> FLAGS_SHIFT & 0xFF, layout >> NUMBER_SHIFT
    known = _ARRAY_FLAGS if codec == NDARRAY_CODEC else _KNOWN_FLAGS
    if flags & ~known or (flags & PARTS and flags & SEGMENT):
        raise ProtocolError(f"a message has unknown flags {flags:#04x}")
    if flags & SAMPLED:
        start += _TRACE.size
    view = memoryview(chunk)
    if not flags & (PARTS | SEGMENT):
        if codec == NDARRAY_CODEC:
            if start + number > stop:
                raise ProtocolError(f"a message of {stop - start} bytes has a head of {number}")
            return Content(codec, view[start : start + number], [view[start + number : stop]])
        if start + number > stop:
            raise ProtocolError(f"a message of {stop - start} bytes has {number} of padding")
        content = view[start : stop - number]
        return Content(codec, content, [content] if codec else [])
    if flags & SEGMENT:
        at = at or decode_placed(view, start, stop, number << NUMBER_SHIFT)
    return _decode_table(view, codec, at, number, start, stop)


def _decode_table(view: memoryview, codec: int, at: Placed | None, count: int, start: int, stop: int) -> Content:
    body = start - FIELDS_BYTES  # as if there were no trace context
    if at is not None:
        start += _WINDOW.size
    if start + 8 * (count + 1) > stop:
        raise ProtocolError(f"a message of {stop - body} bytes claims {count} buffers")
    head_size, *sizes = _sizes(count + 1).unpack_from(view, start)
    start += 8 * (count + 1)
    end = start + head_size
    head = view[start:end]
    buffers: list[memoryview] = []
    if at is None:
        for size in sizes:
            begin = end + -(end - body) % ALIGNMENT
            end = begin + size
            buffers.append(view[begin:end])
    # Slices are forgiving, so this one look at the end vouches for all of them.
    if end > stop:
        raise ProtocolError(f"a message has {stop - body} bytes, its header says {end - body}")
    return Content(codec, head, buffers, at)


def large_size(chunk: Chunk, start: int, stop: int, layout: int, at: Placed | None) -> int:
    """How many bytes a message is in parts, or in a segment: its buffers, and the head of what is no array.

    The arguments are as for `decode_content`, trace context left out. Of a lie, whatever is no more than there is: what
    takes the message apart finds it out.
    """
    count, there = layout >> NUMBER_SHIFT, stop - start
    head = 0
    if at is not None:
        buffers, table = sum(at.sizes), start + _WINDOW.size
    elif 8 * (count + 1) > there:
        return 0
    else:
        buffers, table = min(there, sum(_sizes(count + 1).unpack_from(chunk, start)[1:])), start
    if layout & 0xFF != NDARRAY_CODEC:
        (head,) = _ID.unpack_from(chunk, table)
    return buffers + min(there, head)


def decode_placed(chunk: Chunk, start: int, stop: int, layout: int) -> Placed:
    """Where the buffers of a message in a segment are; arguments as for `decode_content`, trace context left out.

    Raises:
        ProtocolError: It does not say so, or they would lie outside of what is to be mapped.
    """
    count = layout >> NUMBER_SHIFT
    if start + _WINDOW.size + 8 * (count + 1) > stop:
        raise ProtocolError(f"a message in a segment claims {count} buffers and says nothing of them")
    window, window_bytes, offset = _WINDOW.unpack_from(chunk, start)
    _, *sizes = _sizes(count + 1).unpack_from(chunk, start + _WINDOW.size)
    if not window <= offset <= offset + placed(sizes)[1] <= window + window_bytes:
        raise ProtocolError(f"buffers of {sizes} bytes at {offset} are not in {window_bytes} bytes at {window}")
    return Placed(window, window_bytes, offset, sizes)


# -- acknowledgements -------------------------------------------------------------------------------------------------


def encode_ack(message_ids: Sequence[int]) -> bytes:
    """A frame that releases these messages."""
    if len(message_ids) == 1:
        return _ACK.pack(8, ACK_OPCODE, 0, 0, message_ids[0])
    return HEADER.pack(8 * len(message_ids), ACK_OPCODE, 0, 0) + _ids(len(message_ids)).pack(*message_ids)


def decode_ack(body: Any) -> Iterable[int]:
    """The messages an acknowledgement releases.

    Raises:
        ProtocolError: The body is no list of message ids.
    """
    if len(body) == 8:
        return _ID.unpack(body)
    if len(body) % 8:
        raise ProtocolError(f"an acknowledgement of {len(body)} bytes is no list of message ids")
    return _ids(len(body) // 8).unpack(body)
