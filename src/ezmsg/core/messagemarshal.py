"""Turns a message into bytes, and back.

Arrays, bytes and str go as they are, behind a few bytes that say what they are; so do objects that are an array and
little else, if their type is registered (see `compositecodec`). Everything else is pickled, protocol 5: large
contiguous data in it stays in buffers of its own, which are written and read without a copy; arrays in it go the short
way, too.
"""

from __future__ import annotations

import copyreg
import pickle
import struct
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import msgspec
import numpy as np

from ezmsg.core.arraycodec import CONTIGUOUS, LAYOUT, WRITABLE, WRITEABLE, Array, array_head, array_of
from ezmsg.core.compositecodec import FORMS, Composer, Form, composite_of
from ezmsg.core.errors import UndersizedMemory, UninitializedMemory
from ezmsg.core.wire.messages import BUFFERS_MAX

# The message header names the codec. Numbers are part of the protocol: append, never renumber.
PICKLE5: Final = 0
NDARRAY: Final = 1
BYTES: Final = 2
STR: Final = 3
FROZEN: Final = 4
"""As PICKLE5; some array in it is read-only."""
COMPOSITE: Final = 5
"""An array and what belongs to it; where one buffer holds all, the data is behind the head."""

INLINE_BYTES: Final = 4096
"""Up to this size data is copied into the message: a buffer of its own costs more than copying it."""

Data = bytes | bytearray | memoryview


class Encoded(msgspec.Struct, gc=False):
    """A message as bytes.

    Attributes:
        codec: How to read it.
        head: The pickle, or what an array is.
        data: What follows it, if it is little.
        buffers: What follows it, if it is much: raw memory of the object itself.
        size: Bytes in all, the head of an array aside.
    """

    codec: int
    head: bytes
    data: bytes
    buffers: Sequence[memoryview]
    size: int


class Encoder:
    """Serialises messages, one at a time; remembers what the last array was."""

    __slots__ = (
        "_codec", "_composers", "_dtype", "_head", "_known", "_layout", "_parts", "_pickled", "_pickler", "_shape",
        "_views",
    )  # fmt: skip

    def __init__(self) -> None:
        self._dtype: np.dtype[Any] | None = None
        self._shape: tuple[int, ...] = ()
        self._layout = 0
        self._head = b""
        self._parts: list[Any] = []
        self._views: list[memoryview] = []
        self._known: dict[type, Any] = {}
        self._composers: dict[str, Composer] = {}
        self._pickled: type | None = None
        self._pickler: pickle.Pickler | None = None
        self._codec = PICKLE5

    def encode(self, obj: Any) -> Encoded:
        """A message as bytes; its large buffers are memory of `obj`. Whatever its pickling raises comes through."""
        kind = type(obj)  # pyright: ignore[reportUnknownVariableType] - whatever a program sends
        if kind is np.ndarray:
            layout = obj.flags.num & LAYOUT
            if obj.dtype is self._dtype and layout == self._layout and obj.shape == self._shape:
                head = self._head
            else:
                head = array_head(obj, layout)
                if head is None:
                    return self._pickle(obj)
                self._dtype, self._layout, self._shape, self._head = obj.dtype, layout, obj.shape, head
            size = obj.nbytes
            if size <= INLINE_BYTES:
                return Encoded(NDARRAY, head, obj.tobytes("A"), (), size)
            try:
                return Encoded(NDARRAY, head, b"", (pickle.PickleBuffer(obj).raw(),), size)
            except (BufferError, ValueError):
                return self._pickle(obj)  # not contiguous, or of a type that has no buffers (dates)
        if kind is bytes:
            return _flat(BYTES, obj)
        if kind is str:
            return _flat(STR, obj.encode("utf-8", "surrogatepass"))
        if kind is not self._pickled:
            form = FORMS.get(kind)  # pyright: ignore[reportUnknownArgumentType]
            if form is None:
                self._pickled = kind
            elif (encoded := self._compose(form, obj)) is not None:
                return encoded
        return self._pickle(obj)

    def _compose(self, form: Form, obj: Any) -> Encoded | None:
        composer = self._composers.get(form.home)
        if composer is None:
            composer = self._composers[form.home] = Composer(form)
        parts = composer.compose(obj)
        if parts is None:
            return None
        head, array = parts
        size = array.nbytes
        if size <= INLINE_BYTES:
            return Encoded(COMPOSITE, head, array.tobytes("A"), (), size + len(head))
        try:
            return Encoded(COMPOSITE, head, b"", (pickle.PickleBuffer(cast(Any, array)).raw(),), size + len(head))
        except (BufferError, ValueError):
            return None  # as for arrays

    def _pickle(self, obj: Any) -> Encoded:
        parts, views = self._parts, self._views
        try:
            pickler = self._pickler
            if pickler is None or self._known != copyreg.dispatch_table:
                pickler = self._new_pickler()
            self._codec = PICKLE5
            try:
                pickler.dump(obj)
            finally:
                # Now, not before the next message: the memo holds all that was pickled.
                pickler.clear_memo()
            head = parts[0] if len(parts) == 1 else b"".join(parts)
            if len(views) > BUFFERS_MAX:
                # More than a message can name.
                head = pickle.dumps(obj, protocol=5)
                views.clear()
            size = len(head) + sum(view.nbytes for view in views)
            return Encoded(self._codec, head, b"", tuple(views), size)
        finally:
            parts.clear()
            views.clear()

    def _new_pickler(self) -> pickle.Pickler:
        # Programs may register more types at any time; a table of our own must have them, too.
        self._known = dict(copyreg.dispatch_table)
        pickler = pickle.Pickler(_Sink(self._parts.append), protocol=5, buffer_callback=self._keep)  # pyright: ignore[reportArgumentType]
        pickler.dispatch_table = {np.ndarray: self._reduce_array, **copyreg.dispatch_table}
        self._pickler = pickler
        return pickler

    def _reduce_array(self, array: Array) -> Any:
        """How an array within an object is pickled."""
        layout = array.flags.num & LAYOUT
        if not layout & WRITEABLE:
            self._codec = FROZEN
        if array.dtype is self._dtype and layout == self._layout and array.shape == self._shape:
            head = self._head
        else:
            head = array_head(array, layout)
            if head is None:
                return array.__reduce_ex__(5)
            self._dtype, self._layout, self._shape, self._head = array.dtype, layout, array.shape, head
        if array.nbytes <= INLINE_BYTES:
            data = array.tobytes("A")
            return array_of, (head, bytearray(data) if head[1] & WRITABLE else data)
        if not layout & CONTIGUOUS:
            return array.__reduce_ex__(5)  # the pickler would refuse a buffer of it
        try:
            return array_of, (head, pickle.PickleBuffer(cast(Any, array)))
        except (BufferError, ValueError):
            return array.__reduce_ex__(5)

    def _keep(self, buffer: pickle.PickleBuffer) -> bool:
        """Keep a buffer out of the pickle; True leaves it in."""
        try:
            view = buffer.raw()
        except BufferError:
            return True
        if view.nbytes <= INLINE_BYTES:
            return True
        self._views.append(view)
        return False


class _Sink:
    """What a pickler writes to."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.write = write


def _flat(codec: int, data: bytes) -> Encoded:
    if len(data) <= INLINE_BYTES:
        return Encoded(codec, b"", data, (), len(data))
    return Encoded(codec, b"", b"", (memoryview(data),), len(data))


def encode(obj: Any) -> Encoded:
    """As `Encoder.encode`, once."""
    return Encoder().encode(obj)


def decode(codec: int, head: Data, buffers: Sequence[Data]) -> Any:
    """The message again; its arrays are views of `buffers`.

    Raises:
        ValueError: There is no such codec, or the bytes do not fit it.
        Exception: Whatever unpickling raises.
    """
    if codec in (PICKLE5, FROZEN):
        return pickle.loads(head, buffers=buffers)
    if codec > STR and codec != COMPOSITE:
        raise ValueError(f"unknown codec {codec}")
    if len(buffers) != 1:
        raise ValueError(f"codec {codec} takes one buffer, not {len(buffers)}")
    if codec == COMPOSITE:
        return composite_of(head, buffers[0])
    if codec == NDARRAY:
        return array_of(bytes(head), buffers[0])
    return bytes(buffers[0]) if codec == BYTES else str(buffers[0], "utf-8", "surrogatepass")


def is_frozen(codec: int, obj: Any) -> bool:
    """Whether a message with this codec has arrays that cannot be written to."""
    return codec == FROZEN or (codec == NDARRAY and not obj.flags.writeable)


# -- messages in memory of the caller's own ---------------------------------------------------------------------------

_MARSHAL_MAGIC: Final = b"EZMSGMEM"
_MARSHAL_HEAD: Final = struct.Struct("<8sQQI")
"""Magic, message id, bytes of the pickle, number of buffers; the size of each buffer follows as <Q."""
_MARSHAL_ALIGNMENT: Final = 4096
"""Messages of nearly the same size lie alike, so that small parts that do not change stay what they are."""


class Marshal:
    """A message in memory, for tests of code that is given views of memory that is used again.

    The message path does without; there, small arrays are copied, here all are views.
    """

    @staticmethod
    def to_mem(msg_id: int, obj: Any, mem: memoryview) -> None:
        """Write a message, in place of what was there.

        Raises:
            UndersizedMemory: It does not fit; nothing was written.
            Exception: Whatever pickling raises.
        """
        kept: list[pickle.PickleBuffer] = []
        pickled = pickle.dumps(obj, protocol=5, buffer_callback=kept.append)
        buffers = [buffer.raw() for buffer in kept]
        sizes = struct.pack(f"<{len(buffers)}Q", *(buffer.nbytes for buffer in buffers))
        parts = [_MARSHAL_HEAD.pack(_MARSHAL_MAGIC, msg_id, len(pickled), len(buffers)) + sizes, pickled, *buffers]
        needed = 0
        starts: list[int] = []
        for part in parts:
            starts.append(needed := _aligned(needed))
            needed += len(part)
        if needed > mem.nbytes:
            raise UndersizedMemory(needed)
        for start, part in zip(starts, parts, strict=True):
            mem[start : start + len(part)] = part

    @staticmethod
    @contextmanager
    def obj_from_mem(mem: memoryview) -> Generator[Any]:
        """The message in this memory; its arrays are views of it, whatever is written there later.

        Raises:
            UninitializedMemory: There is none.
            Exception: Whatever unpickling raises.
        """
        pickled, *buffers = _marshalled(mem)
        yield pickle.loads(pickled, buffers=buffers)

    @staticmethod
    def msg_id(mem: memoryview) -> int:
        """The number of the message in this memory.

        Raises:
            UninitializedMemory: There is none.
        """
        _marshalled(mem)
        return _MARSHAL_HEAD.unpack_from(mem)[1]


def _aligned(offset: int) -> int:
    return -(-offset // _MARSHAL_ALIGNMENT) * _MARSHAL_ALIGNMENT


def _marshalled(mem: memoryview) -> list[memoryview]:
    """The pickle and the buffers of the message in a memory."""
    if mem.nbytes < _MARSHAL_HEAD.size or bytes(mem[: len(_MARSHAL_MAGIC)]) != _MARSHAL_MAGIC:
        raise UninitializedMemory(mem.nbytes)
    _, _, pickled, count = _MARSHAL_HEAD.unpack_from(mem)
    end = _MARSHAL_HEAD.size + 8 * count
    parts: list[memoryview] = []
    for size in (pickled, *struct.unpack_from(f"<{count}Q", mem, _MARSHAL_HEAD.size)):
        start = _aligned(end)
        end = start + size
        parts.append(mem[start:end])
    return parts
