"""Frames: what every authenticated connection carries. Bytes in, frames out, and errors as refusals.

A frame is a header (length of the body, opcode, flags, request id) and a body. Whose body it is, the opcode says: a
record (`wire.records`) or a message (`wire.messages`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import numpy as np

from ezmsg.core.errors import EzmsgError, FrameTooLarge, ProtocolError, Refused
from ezmsg.core.wire.limits import CONTROL_FRAME_BYTES, RECEIVE_BUFFER_BYTES
from ezmsg.core.wire.records import Refusal

HEADER = struct.Struct("<QHHI")
HEADER_BYTES = HEADER.size

# Flags. A frame with neither is a notice; a reply whose record is a Refusal refuses.
REPLY = 1
REQUEST = 2
KNOWN_FLAGS = REPLY | REQUEST

REQUEST_ID_MAX = 0xFFFFFFFF


class Frame(NamedTuple):
    """One frame.

    `body` is the receiver's to keep when `is_owned`; else it lies in a buffer that the next read overwrites.
    """

    opcode: int
    flags: int
    request_id: int
    body: memoryview
    is_owned: bool = False


def encode_frame(opcode: int, body: bytes, request_id: int = 0, flags: int = 0) -> bytes:
    """One frame, ready to send."""
    return HEADER.pack(len(body), opcode, flags, request_id) + body


def new_body(opcode: int, size: int) -> memoryview:
    """Memory for the body of a large frame, where nobody has better."""
    # Not a bytearray: that would write all of it now, for a peer that may never send what it announces.
    return np.empty(size, dtype=np.uint8).data


NOTHING_LARGE: Mapping[int, int] = {}


class FrameDecoder:
    """Cuts a stream of bytes into frames.

    A socket reads into `get_buffer()` and says how much came with `received(n)`; `feed` does both for bytes at hand.
    Small frames are views of one buffer that is used again; a large frame that is still on its way is received straight
    into a buffer of its own.

    Args:
        limit: The largest body accepted, in bytes.
        large: Opcodes whose bodies may be larger, and how large.
        capacity: Size of the buffer that is used again, in bytes.
        allocate: Gives the memory for a large body: (opcode, size) -> writable memoryview of that size.
    """

    __slots__ = (
        "_allocate",
        "_capacity",
        "_end",
        "_filled",
        "_head",
        "_large",
        "_limit",
        "_own",
        "_own_from",
        "_start",
        "_view",
    )

    def __init__(
        self,
        limit: int = CONTROL_FRAME_BYTES,
        *,
        capacity: int = RECEIVE_BUFFER_BYTES,
        allocate: Callable[[int, int], memoryview] = new_body,
        large: Mapping[int, int] = NOTHING_LARGE,
    ) -> None:
        if capacity < 2 * HEADER_BYTES:
            raise ValueError(f"capacity={capacity}: a frame's header must fit")
        self._limit = limit
        self._large = large
        self._capacity = capacity
        self._own_from = capacity // 4
        self._allocate = allocate
        self._view = memoryview(bytearray(capacity))
        # What was received and not yet handed out lies in _view[_start:_end].
        self._start: int = 0
        self._end: int = 0
        # Or, for a large frame on its way: its header, its body, and how much of that is there.
        self._head: tuple[int, int, int] | None = None
        self._own = memoryview(b"")
        self._filled = 0

    @property
    def is_empty(self) -> bool:
        """Whether the stream stands between two frames: it may end here."""
        return self._head is None and self._start == self._end

    def close(self) -> None:
        """Let go of the memory: nothing comes any more."""
        self._view = self._own = memoryview(b"")
        self._head, self._start, self._end = None, 0, 0
        self._allocate = new_body

    @property
    def apart_bytes(self) -> int:
        """The size of the large body that is on its way, received so far or not."""
        return len(self._own)

    def get_buffer(self) -> memoryview:
        """Where the next bytes belong; never empty. Ends the life of bodies that are not owned."""
        if self._head is not None:
            return self._own[self._filled :]
        if self._start == self._end:
            self._start = self._end = 0
            return self._view
        if self._start:
            # The beginning of a frame: moved at most once, as from then on it starts at 0.
            tail = self._end - self._start
            self._view[:tail] = self._view[self._start : self._end]
            self._start, self._end = 0, tail
        return self._view[self._end :]

    def received(self, size: int) -> Iterator[Frame]:
        """The frames that `size` more bytes in the buffer complete. Iterate to the end before the next read.

        Raises:
            FrameTooLarge: A frame announces more than the limit.
            ProtocolError: The bytes are no frame.
        """
        if self._head is not None:
            self._filled += size
            if self._filled == len(self._own):
                frame = Frame(*self._head, self._own, True)
                self._head, self._own = None, memoryview(b"")
                yield frame
            return
        view = self._view
        start, end = self._start, self._end + size
        self._end = end
        while end - start >= HEADER_BYTES:
            body_size, opcode, flags, request_id = HEADER.unpack_from(view, start)
            if body_size > self._limit and body_size > (most := self._large.get(opcode, self._limit)):
                raise FrameTooLarge(opcode, body_size, most)
            if flags & ~KNOWN_FLAGS:
                raise ProtocolError(f"a frame with opcode {opcode} has unknown flags {flags:#06x}")
            body_start = start + HEADER_BYTES
            stop = body_start + body_size
            if stop > end:
                if body_size > self._own_from:
                    self._receive_apart(opcode, flags, request_id, view[body_start:end], body_size)
                return
            self._start = start = stop
            yield Frame(opcode, flags, request_id, view[body_start:stop])

    def _receive_apart(self, opcode: int, flags: int, request_id: int, begun: memoryview, size: int) -> None:
        own = self._allocate(opcode, size)
        own[: len(begun)] = begun
        self._head, self._own, self._filled = (opcode, flags, request_id), own, len(begun)
        self._start = self._end = 0

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Frame]:
        """The frames that these bytes complete; copies them once.

        A body that is not owned is valid until the next frame is asked for.

        Raises:
            FrameTooLarge: A frame announces more than the limit.
            ProtocolError: The bytes are no frame.
        """
        rest = memoryview(data)
        while rest:
            buffer = self.get_buffer()
            size = min(len(buffer), len(rest))
            buffer[:size] = rest[:size]
            rest = rest[size:]
            yield from self.received(size)


# -- errors as refusals ---------------------------------------------------------------------------------------------

# A handler failed in a way it does not know; the peer learns what, but can raise no class of its own for it.
INTERNAL = "INTERNAL"
_DEPTH = 8
_errors: dict[str, type[Exception]] = {}


def register_error(error_type: type[Exception], code: str | None = None) -> type[Exception]:
    """Make an error outside the tree travel as itself.

    Args:
        error_type: The class; its instance attributes travel as fields.
        code: How it is called on the wire; `error_type.code` when None.
    """
    _errors[code or vars(error_type)["code"]] = error_type
    return error_type


def refusal_of(error: BaseException) -> Refusal:
    """The refusal that tells a peer of this error."""
    # As given, not as str() dresses it: a KeyError would gain quotes at every hop.
    text = _text(error.args[0] if len(error.args) == 1 and isinstance(error.args[0], str) else error)
    if isinstance(error, Refused):
        return Refusal(error.refusal_code, text, _plain_fields(error.refusal_fields))
    if isinstance(error, EzmsgError):
        return Refusal(error.code, text, _plain_fields(error.fields()))
    for code, registered in _errors.items():
        if registered is type(error):
            return Refusal(code, text, _plain_fields(vars(error)))
    name = type(error).__name__
    return Refusal(INTERNAL, f"{name}: {text}" if text else name)


def error_of(refusal: Refusal) -> Exception:
    """The error a peer told of, of the same class, with the same text and fields; `Refused` if unknown here."""
    error_type = _errors.get(refusal.code)
    if error_type is None:
        _gather(EzmsgError)
        error_type = _errors.get(refusal.code)
    if error_type is None or issubclass(error_type, Refused):
        return Refused(refusal.message, refusal.code, refusal.fields)
    # Not through __init__: each class has its own arguments, and the text is made already.
    error = error_type.__new__(error_type)
    error.args = (refusal.message,) if refusal.message else ()
    for name, value in refusal.fields.items():
        if not name.startswith("_") and name != "code":
            error.__dict__[name] = value
    return error


def _gather(error_type: type[EzmsgError]) -> None:
    # A class without a code of its own travels as its parent.
    if "code" in vars(error_type):
        _errors.setdefault(error_type.code, error_type)
    for child in error_type.__subclasses__():
        _gather(child)


def _plain_fields(fields: dict[str, Any]) -> dict[str, Any]:
    return {_text(key): _plain(value) for key, value in fields.items() if not _text(key).startswith("_")}


def _plain(value: Any, depth: int = _DEPTH) -> Any:
    """What msgpack can carry, as it is; anything else as text. Subclasses become what they extend."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 64:
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, bytes):
        return bytes(value)
    if depth and isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item, depth - 1) for item in cast(Iterable[Any], value)]
    if depth and isinstance(value, dict):
        return {_text(key): _plain(item, depth - 1) for key, item in cast(dict[Any, Any], value).items()}
    return _text(value)


def _text(value: Any) -> str:
    """Text that utf-8 can carry, whatever `value` makes of `str`."""
    try:
        text = str.__str__(value) if isinstance(value, str) else str(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text.encode(errors="backslashreplace").decode()
