"""Arrays of every kind, and how to tell whether two objects are the same to whoever gets them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

PLAIN_DTYPES = [
    "?", "i1", "<u2", ">i4", "q", "Q", "<i8", ">u8", "<f2", ">f2", "<f4", ">f8", "g", "<c8", ">c16", "G",
    "M8[ns]", "<M8[D]", ">M8[25s]", "M8[7D]", "m8", ">m8[us]", "S1", "S7", "S0", "<U3", ">U3", "U0",
]  # fmt: skip
ODD_DTYPES = [
    np.dtype([("a", "i1"), ("b", "f8")]),
    np.dtype([("a", "i1"), ("b", "f8")], align=True),
    np.dtype((np.record, [("a", "i1"), ("b", "f8")])),
    np.dtype([("x", [("y", ">f4"), ("z", "S3")]), ("t", "M8[ms]")]),
    np.dtype([("sub", "<i2", (2, 3)), ("u", ">U2")]),
    np.dtype([(("the title", "name"), "f4"), ("b", "?")]),
    np.dtype({"names": ["far"], "formats": ["f4"], "offsets": [12], "itemsize": 40}),
    np.dtype([("none", "S0"), ("b", "i4")]),
    np.dtype([]),
    np.dtype("V5"),
    np.dtype("V0"),
    np.dtype("f8", metadata={"unit": "µV"}),
    np.dtype([("a", np.dtype("i1", metadata={"unit": "µV"})), ("b", "f8")]),
    np.dtypes.StringDType(),
    np.dtype("O"),
    np.dtype([("a", "O"), ("b", "f8")]),
]
DTYPES = [np.dtype(dtype) for dtype in PLAIN_DTYPES] + ODD_DTYPES


class Tagged(np.ndarray):
    """A user's array with a field of its own, which his pickling keeps."""

    tag: Any = None

    def __reduce__(self) -> Any:
        rebuild, args, state = super().__reduce__()
        return rebuild, args, (self.tag, state)

    def __setstate__(self, state: Any) -> None:
        self.tag, inherited = state
        super().__setstate__(inherited)


def filled(shape: tuple[int, ...], dtype: np.dtype[Any], seed: int = 0) -> np.ndarray:
    array = np.ndarray(shape, dtype) if dtype.itemsize == 0 else np.zeros(shape, dtype)
    _fill(array, np.random.default_rng(seed))
    return array


def _fill(array: np.ndarray, rng: np.random.Generator) -> None:
    for name in array.dtype.names or ():
        _fill(array[name], rng)
    if array.dtype.kind != "V" and array.dtype.itemsize:
        numbers = rng.integers(0, 100, array.shape)
        array[...] = numbers.astype("U2") if array.dtype.kind == "T" else numbers.astype(array.dtype)


def unaligned(array: np.ndarray) -> np.ndarray:
    if array.dtype.hasobject or not array.nbytes:
        return array
    memory = np.zeros(array.nbytes + 1, np.uint8)
    moved = memory[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


ARRANGEMENTS = {
    "C": lambda a: a,
    "F": lambda a: a.copy(order="F"),
    "transposed": lambda a: a.T,
    "permuted": lambda a: np.moveaxis(a, 0, -1) if a.ndim > 1 else a,
    "swapped": lambda a: a.swapaxes(0, 1) if a.ndim > 2 else a,
    "reversed": lambda a: a[::-1] if a.ndim else a,
    "reversed within": lambda a: a[..., ::-1] if a.ndim else a,
    "every second": lambda a: a[::2] if a.ndim else a,
    "every second within": lambda a: a[..., ::2] if a.ndim else a,
    "F with gaps": lambda a: a.copy(order="F")[1:] if a.ndim else a,
    "broadcast": lambda a: np.broadcast_to(a, (2, *a.shape)),
    "broadcast within": lambda a: np.broadcast_to(a[..., None], (*a.shape, 3)),
    "more axes": lambda a: a[None, ..., None],
    "unaligned": unaligned,
}


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Of any dtype, shape and layout; some small, some large; some read-only."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4))
    if draw(st.booleans()):
        shape = (4200 // max(1, dtype.itemsize) + 1, *shape[:2])
    array = ARRANGEMENTS[draw(st.sampled_from(list(ARRANGEMENTS)))](filled(shape, dtype, draw(st.integers(0, 9))))
    if draw(st.booleans()):
        array = array.view()
        array.flags.writeable = False
    return array


def assert_same(got: Any, expected: Any) -> None:
    """As good as each other: types, values, and of arrays all that can be seen of them."""
    assert type(got) is type(expected)
    if isinstance(expected, np.ndarray):
        _assert_same_array(got, expected)
    elif dataclasses.is_dataclass(expected):
        for field in dataclasses.fields(expected):
            assert_same(getattr(got, field.name), getattr(expected, field.name))
    elif isinstance(expected, dict):
        assert list(got) == list(expected)
        for key, value in expected.items():
            assert_same(got[key], value)
    elif isinstance(expected, (list, tuple)):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other)
    else:
        assert got == expected


def _assert_same_array(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.shape == expected.shape
    assert_same_dtype(got.dtype, expected.dtype)
    assert flags_of(got) == flags_of(expected)
    if expected.dtype.kind in "VOT" or expected.dtype.char in "gG":  # some bytes there mean nothing
        assert repr(got.tolist()) == repr(expected.tolist())
    else:
        assert got.tobytes() == expected.tobytes()
    if isinstance(expected, np.ma.MaskedArray):
        assert_same(np.ma.getmaskarray(got), np.ma.getmaskarray(expected))
        assert got.fill_value == expected.fill_value
    if isinstance(expected, Tagged):
        assert got.tag == expected.tag


def flags_of(array: np.ndarray) -> tuple[bool, ...]:
    flags = array.flags
    if not array.dtype.itemsize:  # there is nothing that could be in order, or read-only
        return ()
    return flags.c_contiguous, flags.f_contiguous, flags.writeable, flags.aligned


def assert_same_dtype(got: np.dtype[Any], expected: np.dtype[Any]) -> None:
    assert got == expected
    assert got.str == expected.str
    assert got.type is expected.type
    assert got.isalignedstruct == expected.isalignedstruct
    assert got.metadata == expected.metadata
    for name in expected.names or ():
        assert got.fields is not None
        assert expected.fields is not None
        assert got.fields[name][1:] == expected.fields[name][1:]
        assert_same_dtype(got.fields[name][0], expected.fields[name][0])
