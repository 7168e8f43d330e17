"""ndarrays without pickle: a header of a few bytes that says what the data is, made once per kind of array.

    number of dimensions (1 byte), flags (1 byte), bytes of the dtype (2), each dimension (8), dtype, padding

The dtype is its name (`<f8`); arrays whose dtype a name does not describe have no header, and need pickle. The header
is 8 bytes more than a multiple of 16, so that data behind it is aligned where a message puts it (see `wire.messages`).
"""

from __future__ import annotations

import contextlib
import copyreg
import math
import struct
import sys
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

FORTRAN: Final = 1
WRITABLE: Final = 2

# As in `ndarray.flags.num`.
_C_CONTIGUOUS: Final = 0x1
_F_CONTIGUOUS: Final = 0x2
CONTIGUOUS: Final = _C_CONTIGUOUS | _F_CONTIGUOUS
WRITEABLE: Final = 0x400
LAYOUT: Final = _C_CONTIGUOUS | _F_CONTIGUOUS | WRITEABLE

_HEAD: Final = struct.Struct("<BBH")
_KNOWN: Final = 1024
"""Headers remembered, each way; programs whose arrays have ever new shapes must not fill the memory."""

Array = NDArray[Any]


class Spec(NamedTuple):
    """What an array is, apart from its data."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: Literal["C", "F"]
    is_writable: bool
    nbytes: int

    def view(self, buffer: bytes | bytearray | memoryview, offset: int = 0) -> Array:
        """The array whose data begins at `offset` of a buffer; it holds the buffer.

        Raises:
            TypeError: The buffer is too small.
        """
        if not self.nbytes:
            # np.empty makes one character of none: another dtype, and memory for it.
            array: Array = np.ndarray(self.shape, self.dtype, order=self.order)
        else:
            array = np.ndarray(self.shape, self.dtype, buffer, offset, None, self.order)
        if not self.is_writable:
            array.flags.writeable = False
        return array


_heads: dict[tuple[np.dtype[Any], tuple[int, ...], int], bytes] = {}
_specs: dict[bytes, Spec] = {}


def array_head(array: Array, layout: int) -> bytes | None:
    """The header of an array; None if it needs pickle.

    Args:
        array: An ndarray proper, no subclass.
        layout: Its `flags.num & LAYOUT`.
    """
    dtype = array.dtype
    # Equal dtypes need not be the same: metadata, alignment and the scalar type of a record are left out. The names of
    # fields can even change.
    if dtype.hasobject or dtype.metadata is not None or dtype.kind == "V":
        return None
    is_contiguous = layout & CONTIGUOUS
    if not is_contiguous or dtype.kind in "mM":
        # They have no buffer: pickle makes a copy of them, writable and in native byte order. The axes of those with
        # more than two may be in an order of their own, which it keeps.
        if not dtype.isnative or (not is_contiguous and array.ndim > 2):
            return None
        layout |= WRITEABLE
    key = (dtype, array.shape, layout)
    head = _heads.get(key)
    if head is None:
        head = _new_head(dtype, array.shape, layout)
        if head is not None:
            if len(_heads) >= _KNOWN:
                _heads.clear()
            _heads[key] = head
    return head


def _new_head(dtype: np.dtype[Any], shape: tuple[int, ...], layout: int) -> bytes | None:
    flags = WRITABLE if layout & WRITEABLE else 0
    if layout & _F_CONTIGUOUS and not layout & _C_CONTIGUOUS:
        flags |= FORTRAN
    if not 0 <= dtype.num < 256:
        return None  # of another library, which has its own way to pickle arrays
    name = dtype.str.encode()
    head = _HEAD.pack(len(shape), flags, len(name)) + struct.pack(f"<{len(shape)}Q", *shape) + name
    return head + bytes((8 - len(head)) % 16)


def array_spec(head: bytes) -> Spec:
    """What the header of an array says.

    Raises:
        ValueError: It is no such header.
    """
    spec = _specs.get(head)
    return _new_spec(head) if spec is None else spec


def array_of(head: bytes, buffer: bytes | bytearray | memoryview) -> Array:
    """The array with this header and this data: a view of the buffer.

    Raises:
        ValueError: The header is none.
        TypeError: The buffer is too small.
    """
    return array_spec(head).view(buffer)


# Pickles name it by this number of the range for private use, instead of by a text that has to be looked up each time.
_EXTENSION: Final = 0xF7
with contextlib.suppress(ValueError):  # the program has the number, or the name, already
    copyreg.add_extension(__name__, "array_of", _EXTENSION)


def _new_spec(head: bytes) -> Spec:
    try:
        ndim, flags, size = _HEAD.unpack_from(head)
        shape = struct.unpack_from(f"<{ndim}Q", head, _HEAD.size)
        at = _HEAD.size + 8 * ndim
        name = head[at : at + size]
        dtype = np.dtype(name.decode())
        if dtype.hasobject:
            raise ValueError(f"{dtype} has pointers where its data should be")
        count = math.prod(shape)
        if count > sys.maxsize:
            raise ValueError(f"nobody can count the {count} elements of {shape}")
        nbytes = count * dtype.itemsize
    except Exception as error:
        raise ValueError(f"the header of an array cannot be read: {error}") from error
    spec = Spec(shape, dtype, "F" if flags & FORTRAN else "C", bool(flags & WRITABLE), nbytes)
    if len(_specs) >= _KNOWN:
        _specs.clear()
    _specs[head] = spec
    return spec
