"""The header of an array: what it says, what it leaves to pickle, and no trust in it."""

from __future__ import annotations

import math
import pickle
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ezmsg.core import arraycodec
from ezmsg.core.arraycodec import FORTRAN, LAYOUT, WRITABLE, array_head, array_of, array_spec
from tests.core.arraymaking import PLAIN_DTYPES, arrays, assert_same, filled


def head_of(array: np.ndarray) -> bytes | None:
    return array_head(array, array.flags.num & LAYOUT)


def forged(shape: tuple[int, ...], name: bytes, flags: int = WRITABLE) -> bytes:
    """A header as somebody else might write it."""
    head = struct.pack("<BBH", len(shape), flags, len(name)) + struct.pack(f"<{len(shape)}Q", *shape) + name
    return head + bytes((8 - len(head)) % 16)


def test_a_header_is_these_bytes() -> None:
    assert head_of(np.zeros((2, 3), "<f8")) == bytes.fromhex(
        "02020300"  # two dimensions, writable, three bytes of dtype
        "02000000000000000300000000000000"
        "3c6638"
        "00"
    )
    read_only = np.zeros((2, 3), ">i2", order="F")
    read_only.flags.writeable = False
    assert head_of(read_only) == forged((2, 3), b">i2", FORTRAN)


@given(arrays())
def test_a_header_leaves_data_behind_it_aligned(array: np.ndarray) -> None:
    head = head_of(array)
    assert head is None or len(head) % 16 == 8


@given(arrays())
def test_what_has_a_header_comes_back_as_from_pickle(array: np.ndarray) -> None:
    head = head_of(array)
    if head is not None:
        assert_same(array_of(head, bytearray(array.tobytes("A"))), pickle.loads(pickle.dumps(array, 5)))


@pytest.mark.parametrize("dtype", PLAIN_DTYPES)
def test_plain_dtypes_need_no_pickle(dtype: str) -> None:
    head = head_of(filled((3, 2), np.dtype(dtype)))
    if np.dtype(dtype).kind in "mM" and not np.dtype(dtype).isnative:
        assert head is None  # pickle turns their bytes around
        return
    assert head is not None
    assert array_spec(head).dtype == np.dtype(dtype)


def test_what_a_name_does_not_tell_is_left_to_pickle() -> None:
    for dtype in ("O", "T", [("a", "O")], [("a", "f8")], "V3", np.dtype("f8", metadata={"x": 1})):
        assert head_of(np.zeros(3, dtype)) is None


def test_an_array_is_a_view_of_its_buffer() -> None:
    head = head_of(np.zeros(2))
    assert head is not None
    buffer = bytearray(16)
    array = array_of(head, buffer)
    array[1] = 1.0
    assert buffer[8:] == np.float64(1.0).tobytes()


@pytest.mark.parametrize("count", [1, 3])
def test_headers_are_remembered_up_to_a_limit(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(arraycodec, "_KNOWN", 8)
    monkeypatch.setattr(arraycodec, "_heads", {})
    monkeypatch.setattr(arraycodec, "_specs", {})
    for size in range(30 * count):
        head = head_of(np.zeros(size, np.int8))
        assert head is not None
        assert array_spec(head).shape == (size,)
        assert head_of(np.zeros(size, np.int8)) is head
        assert len(arraycodec._heads) <= 8
        assert len(arraycodec._specs) <= 8


# -- heads that nobody here wrote -------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(st.binary(max_size=80), st.binary(max_size=80))
def test_garbage_for_a_header_is_refused(head: bytes, buffer: bytes) -> None:
    read(head, buffer)


names = st.sampled_from([b"<f8", b"|O", b"|S0", b"|V0", b"T", b"<U3", b"i4,O", b"(2,3)f8", b"M8[ns]", b"", b"\xff"])
sides = st.integers(0, 4) | st.sampled_from([2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1])


@settings(max_examples=200)
@given(st.lists(sides, max_size=70), names | st.binary(max_size=12), st.integers(0, 255), st.binary(max_size=200))
@example([1], b"|O", WRITABLE, b"\xaa" * 8)
@example([10**14], b"|S0", WRITABLE, b"")
@example([2, 2**62], b"|V0", WRITABLE, b"")
def test_a_forged_header_is_refused_or_harmless(shape: list[int], name: bytes, flags: int, buffer: bytes) -> None:
    read(forged(tuple(shape), name, flags), buffer)


@settings(max_examples=150)
@given(st.data())
def test_a_damaged_header_is_refused_or_harmless(data: st.DataObject) -> None:
    head = bytearray(forged((2, 3), b"<f8"))
    for _ in range(data.draw(st.integers(1, 4))):
        head[data.draw(st.integers(0, len(head) - 1))] = data.draw(st.integers(0, 255))
    read(bytes(head[: data.draw(st.integers(0, len(head)))]), bytes(48))


def read(head: bytes, buffer: bytes) -> None:
    try:
        array = array_of(head, bytearray(buffer))
    except (ValueError, TypeError):
        return
    assert not array.dtype.hasobject
    assert array.nbytes <= len(buffer)
    array.reshape(-1)[:3].tolist()


@pytest.mark.parametrize("name", [b"|O", b"T", b"i4,O", b"(2,)O"])
def test_bytes_never_become_pointers(name: bytes) -> None:
    with pytest.raises(ValueError, match="the header of an array cannot be read"):
        array_spec(forged((1,), name))


@pytest.mark.parametrize("dtype", ["f8", "M8[s]", "S3", "?"])
@pytest.mark.parametrize("shape", [(1,), (3, 4), ()])
def test_a_buffer_that_is_too_short_is_a_type_error(dtype: str, shape: tuple[int, ...]) -> None:
    array = filled(shape, np.dtype(dtype))
    head = head_of(array)
    assert head is not None
    for missing in (1, array.nbytes):
        with pytest.raises(TypeError):
            array_of(head, bytearray(array.nbytes - missing))
    assert math.prod(shape) == array_of(head, bytearray(array.nbytes)).size


@pytest.mark.parametrize("thing", [7, np.float64(1), np.zeros(3), "f8", None, np.float64])
def test_flags_that_nobody_sets_do_not_make_anything_else_of_a_dtype(thing: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        array_of(forged((1,), pickle.dumps(thing), 0xFF), bytes(64))
