"""Messages as bytes and back: as pickle has them, whichever way they go."""

from __future__ import annotations

import copyreg
import pickle
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ezmsg.core.errors import UndersizedMemory, UninitializedMemory
from ezmsg.core.messagemarshal import (
    BYTES,
    INLINE_BYTES,
    NDARRAY,
    PICKLE5,
    STR,
    Encoded,
    Encoder,
    Marshal,
    decode,
    encode,
)
from ezmsg.core.transport import Source, Undecoded
from ezmsg.core.wire.messages import BUFFERS_MAX, MessageDecoder, encode_in_parts, encode_plain
from tests.core.arraymaking import DTYPES, Tagged, arrays, assert_same, filled

LARGE = INLINE_BYTES + 1


@dataclass
class Message:
    data: Any
    more: dict[str, Any] = field(default_factory=dict)


class Bytes(bytes):
    pass


class Str(str):
    pass


class Failing:
    """Fails when half of it is pickled."""

    def __reduce__(self) -> Any:
        return Message, (np.zeros(LARGE), b"y" * 100_000, lambda: None)


class Nesting:
    """Pickles while it is pickled."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def __reduce__(self) -> Any:
        encoded = encode(self.content)
        buffers = [bytearray(buffer) for buffer in encoded.buffers] or [bytearray(encoded.data)][: encoded.codec]
        return decode, (encoded.codec, encoded.head, buffers)


class Registered:
    def __init__(self, how: str = "by itself") -> None:
        self.how = how


def carried(encoded: Encoded) -> Any:
    """What the other side makes of it."""
    codec, head, data, buffers = encoded.codec, encoded.head, encoded.data, encoded.buffers
    if buffers:
        frame = b"".join(encode_in_parts(1, 2.0, 3.0, codec, head, buffers, None))
    else:
        frame = encode_plain(1, 2.0, 3.0, codec, head, data, None)
    decoder = MessageDecoder(capacity=2 * len(frame))
    decoder.get_buffer()[: len(frame)] = frame
    chunk, ((_, _, _, layout, start, stop),) = decoder.messages(len(frame))
    return Undecoded(Source(), layout, chunk, start, stop).decode()


def pickled(obj: Any) -> Any:
    return pickle.loads(pickle.dumps(obj, 5))


def assert_as_pickled(obj: Any, encoder: Encoder | None = None) -> None:
    assert_same(carried((encoder or Encoder()).encode(obj)), pickled(obj))


# -- arrays -----------------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(arrays())
def test_an_array_comes_back_as_from_pickle(array: np.ndarray) -> None:
    assert_as_pickled(array)


@settings(max_examples=150)
@given(arrays(), arrays())
def test_arrays_inside_objects_come_back_as_from_pickle(one: np.ndarray, other: np.ndarray) -> None:
    assert_as_pickled(Message(one, {"list": [other, (one, other)], "data": Message(other)}))


@settings(max_examples=100)
@given(st.lists(arrays() | st.text() | st.binary() | arrays().map(Message), max_size=8))
def test_an_encoder_does_not_confuse_messages(messages: list[Any]) -> None:
    encoder = Encoder()
    for message in [*messages, *messages]:
        assert_as_pickled(message, encoder)


@pytest.mark.parametrize("size", [0, 3, LARGE])
def test_equal_dtypes_that_are_not_the_same_are_not_confused(size: int) -> None:
    encoder = Encoder()
    for dtype in [*DTYPES, *DTYPES]:
        assert_as_pickled(filled((size,), dtype), encoder)
        assert_as_pickled([filled((size,), dtype)], encoder)


def test_names_of_fields_may_change_between_messages() -> None:
    encoder = Encoder()
    array = filled((3,), np.dtype([("a", "i4"), ("in", [("x", "f4")])]))
    assert_as_pickled(array, encoder)
    array.dtype.names = ("b", "in")
    array.dtype["in"].names = ("y",)
    assert_as_pickled(array, encoder)


@pytest.mark.parametrize("size", [0, 3, LARGE])
@pytest.mark.parametrize("is_nested", [False, True])
def test_subclasses_of_arrays_come_back_as_from_pickle(size: int, is_nested: bool) -> None:
    tagged = filled((size,), np.dtype("f8")).view(Tagged)
    tagged.tag = "mine"
    for array in (
        tagged,
        filled((2, size), np.dtype("i2")).view(np.matrix),
        filled((size,), np.dtype([("a", "i4"), ("b", "f8")])).view(np.recarray),
        np.ma.MaskedArray(filled((size,), np.dtype("f4")), mask=np.arange(size) % 3 == 0, fill_value=7),
    ):
        assert_as_pickled(Message(array) if is_nested else array)


@pytest.mark.parametrize("size", [3, LARGE])
def test_what_an_object_has_twice_stays_one(size: int) -> None:
    array = np.zeros(size)
    got = carried(encode(Message([array, array], {"again": array})))
    assert got.data[0] is got.data[1]
    assert got.more["again"] is got.data[0]
    looped: list[Any] = [array]
    looped.append(looped)
    got = carried(encode(looped))
    assert got[1] is got


def test_large_arrays_travel_beside_the_pickle_and_come_back_as_views() -> None:
    sent = np.arange(1000.0)
    encoded = encode({"data": sent})
    assert [buffer.nbytes for buffer in encoded.buffers] == [8000]
    assert np.shares_memory(np.frombuffer(encoded.buffers[0]), sent)
    assert encoded.size == len(encoded.head) + 8000
    buffers = [memoryview(bytearray(buffer)) for buffer in encoded.buffers]
    received = decode(encoded.codec, encoded.head, buffers)["data"]
    np.testing.assert_array_equal(received, sent)
    buffers[0][:8] = np.float64(-1).tobytes()
    assert received[0] == -1


@pytest.mark.parametrize(("size", "is_beside"), [(INLINE_BYTES, False), (LARGE, True)])
def test_data_goes_beside_the_message_from_a_size_on(size: int, is_beside: bool) -> None:
    array = np.zeros(size, np.uint8)
    for obj in (array, bytes(size), "x" * size, {"data": array}):
        assert bool(encode(obj).buffers) is is_beside


# -- everything else --------------------------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.binary() | st.text()
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner) | st.builds(Message, inner)
    ),
    max_leaves=12,
)


@given(anything)
def test_any_object_comes_back_as_from_pickle(obj: Any) -> None:
    assert_as_pickled(obj)


@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES, LARGE, 100_000])
def test_bytes_and_text_come_back_as_they_were(size: int) -> None:
    for obj in (bytes(size), bytearray(size), "é" * size, Bytes(size), Str("x" * size)):
        assert_as_pickled(obj)
        assert_as_pickled([obj])


@given(st.text(st.characters(categories=["Cs", "Lu", "So"])))
def test_text_with_lone_surrogates_comes_back(text: str) -> None:
    assert carried(encode(text)) == text


def test_only_the_types_themselves_go_without_pickle() -> None:
    assert [encode(obj).codec for obj in (b"", "", np.zeros(1))] == [BYTES, STR, NDARRAY]
    for obj in (
        Bytes(),
        Str(),
        bytearray(),
        np.zeros((1, 1)).view(np.matrix),
        np.float64(1),
        np.zeros(1, object),
        None,
    ):
        assert encode(obj).codec == PICKLE5


def test_a_memoryview_is_refused_as_by_pickle() -> None:
    with pytest.raises(TypeError, match=r"cannot pickle .*memoryview"):
        encode(memoryview(b"x"))


@pytest.mark.parametrize("message", [np.arange(3.0), "text", {"data": np.arange(1000.0)}, [1, "two"]])
def test_what_cannot_be_pickled_does_not_spoil_what_follows(message: Any) -> None:
    encoder = Encoder()
    for _ in range(3):
        with pytest.raises(Exception, match=r"[Pp]ickle"):
            encoder.encode(["begun", np.zeros(LARGE), Failing()])
        encoded = encoder.encode(message)
        assert (encoded.head, encoded.data) == (encode(message).head, encode(message).data)
        assert_same(carried(encoded), pickled(message))


@pytest.mark.parametrize("size", [3, LARGE])
def test_an_object_may_pickle_while_it_is_pickled(size: int) -> None:
    encoder = Encoder()
    for content in (np.zeros(size), [np.ones(size)], "x" * size):
        assert_same(carried(encoder.encode([1, Nesting(content), 2])), [1, content, 2])


def test_a_pickler_does_not_keep_the_message() -> None:
    encoder = Encoder()
    array = np.zeros(LARGE)
    encoded = encoder.encode([array])
    assert encoded.buffers
    assert encoder._parts == encoder._views == []


def test_an_array_can_be_resized_once_its_message_is_encoded() -> None:
    encoder = Encoder()
    array = np.zeros(LARGE)
    encoder.encode({"array": array})
    array.resize(2 * LARGE)
    with pytest.raises(TypeError):
        encoder.encode([array, memoryview(b"")])
    array.resize(LARGE)


def test_types_registered_with_copyreg_after_the_first_message_are_honoured() -> None:
    encoder = Encoder()
    assert carried(encoder.encode(Registered())).how == "by itself"
    copyreg.pickle(Registered, lambda obj: (Registered, ("registered",)))
    try:
        assert carried(encoder.encode(Registered())).how == "registered"
        copyreg.pickle(Registered, lambda obj: (Registered, ("registered again",)))
        assert carried(encoder.encode(Registered())).how == "registered again"
    finally:
        del copyreg.dispatch_table[Registered]
    assert carried(encoder.encode(Registered())).how == "by itself"


def test_what_has_more_buffers_than_a_message_can_name_goes_in_band() -> None:
    part = memoryview(bytes(LARGE))
    encoder = Encoder()
    encoded = encoder.encode([pickle.PickleBuffer(part) for _ in range(BUFFERS_MAX + 1)])
    assert not encoded.buffers
    assert encoded.size == len(encoded.head)
    got = decode(encoded.codec, encoded.head, [])
    assert len(got) == BUFFERS_MAX + 1
    assert got[0] == got[-1] == part
    assert_as_pickled([np.zeros(LARGE)], encoder)


# -- what nobody here sent --------------------------------------------------------------------------------------------


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown codec 99"):
        decode(99, b"", [])


@pytest.mark.parametrize("codec", [NDARRAY, BYTES, STR])
@pytest.mark.parametrize("count", [0, 2])
def test_a_codec_of_one_buffer_refuses_others(codec: int, count: int) -> None:
    with pytest.raises(ValueError, match=f"takes one buffer, not {count}"):
        decode(codec, b"", [b""] * count)


@given(st.sampled_from([NDARRAY, BYTES, STR]), st.binary(max_size=60), st.binary(max_size=60))
def test_garbage_is_a_message_or_an_error_that_says_so(codec: int, head: bytes, data: bytes) -> None:
    try:
        decode(codec, head, [data])
    except (ValueError, TypeError):
        return


def test_a_message_in_memory_is_a_view_of_it() -> None:
    memory = memoryview(bytearray(1 << 14))
    Marshal.to_mem(7, Message(np.arange(5.0), {"key": "a"}), memory)
    with Marshal.obj_from_mem(memory) as first:
        assert_same(first.data, np.arange(5.0))
        assert (first.more, Marshal.msg_id(memory)) == ({"key": "a"}, 7)
        Marshal.to_mem(8, Message(np.arange(5.0) + 1, {"key": "a"}), memory)
        assert_same(first.data, np.arange(5.0) + 1)


def test_memory_that_is_too_small_says_how_much_it_takes_and_stays_as_it_is() -> None:
    memory = memoryview(bytearray(1024))
    with pytest.raises(UndersizedMemory) as refused:
        Marshal.to_mem(0, np.zeros(1000), memory)
    assert refused.value.req_size >= 8000
    with pytest.raises(UninitializedMemory), Marshal.obj_from_mem(memory):
        pass
    enough = memoryview(bytearray(refused.value.req_size))
    Marshal.to_mem(0, np.zeros(1000), enough)
    with Marshal.obj_from_mem(enough) as zeros:
        assert_same(zeros, np.zeros(1000))
