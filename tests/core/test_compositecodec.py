"""Objects that are an array and little else, taken apart and put together by their form."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ezmsg.core import compositecodec
from ezmsg.core.compositecodec import Form, composite_of, constant_of, register, template_of
from ezmsg.core.errors import ProtocolError
from ezmsg.core.messagemarshal import COMPOSITE, FROZEN, INLINE_BYTES, PICKLE5, Encoder, decode
from ezmsg.core.transport import Source, Undecoded
from ezmsg.core.wire.messages import MessageDecoder, encode_in_parts, encode_plain

LARGE = INLINE_BYTES + 1


class Sample:
    """A named array with a number that changes."""

    def __init__(self, name: str, number: float, data: Any) -> None:
        self.name, self.number, self.data = name, number, data

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Sample)
            and (self.name, self.number) == (other.name, other.number)
            and np.array_equal(self.data, other.data)
        )


class Splitter:
    def __init__(self) -> None:
        self.known: dict[str, bytes] = {}

    def __call__(self, sample: Sample) -> tuple[bytes, bytes, Any] | None:
        if sample.name == "pickle me":
            return None
        constant = self.known.setdefault(sample.name, sample.name.encode())
        return constant, struct.pack("<d", sample.number), sample.data


def join(constant: bytes) -> Any:
    name = constant.rstrip(b"\0").decode()
    return lambda memory, at, array: Sample(name, struct.unpack_from("<d", memory, at)[0], array)


@pytest.fixture(autouse=True, scope="module")
def _registered() -> Iterator[None]:
    register(Sample, Form(__name__, Splitter, join))
    yield
    del compositecodec.FORMS[Sample]


def arrived(encoded: Any, source: Source | None = None) -> Undecoded:
    """What the other side gets, whichever way a message is laid out."""
    codec, head, data, buffers = encoded.codec, encoded.head, encoded.data, encoded.buffers
    if buffers:
        frame = b"".join(encode_in_parts(1, 2.0, 3.0, codec, head, buffers, None))
    else:
        frame = encode_plain(1, 2.0, 3.0, codec, head, data, None)
    decoder = MessageDecoder(capacity=2 * len(frame))
    decoder.get_buffer()[: len(frame)] = frame
    chunk, ((_, _, _, layout, start, stop),) = decoder.messages(len(frame))
    return Undecoded(source or Source(), layout, chunk, start, stop)


ARRAYS = st.sampled_from(
    [
        np.arange(6.0).reshape(2, 3),
        np.arange(6).reshape(2, 3).T,
        np.arange(10)[::2],
        np.zeros((3, 0)),
        np.array(1.5),
        np.array(["a", "bc"]),
        np.arange(LARGE, dtype=np.int16),
        np.arange(LARGE)[::2],
        np.array(["2020-01-01"], "datetime64[D]"),
    ]
)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(("", "one", "other name")), st.floats(allow_nan=False), ARRAYS), min_size=1))
def test_what_is_sent_one_after_the_other_arrives_as_it_was(sent: list[Any]) -> None:
    encoder, source = Encoder(), Source()
    for parts in sent:
        sample = Sample(*parts)
        encoded = encoder.encode(sample)
        message = arrived(encoded, source)
        for received in (message.decode(), message.decode_own()):
            assert received == sample
            assert received.data.dtype == sample.data.dtype
            assert received.data.flags.writeable


def test_small_and_large_arrays_go_without_pickle() -> None:
    encoder = Encoder()
    small, large = encoder.encode(Sample("a", 1.0, np.zeros(3))), encoder.encode(Sample("a", 1.0, np.zeros(LARGE)))
    assert (small.codec, len(small.buffers)) == (COMPOSITE, 0)
    assert (large.codec, len(large.buffers)) == (COMPOSITE, 1)
    assert small.size == len(small.head) + 24
    assert large.size == len(large.head) + 8 * LARGE


def test_data_is_aligned_behind_the_head() -> None:
    for name in ("", "a", "ab", "a" * 20):
        assert len(Encoder().encode(Sample(name, 1.0, np.zeros(3))).head) % 16 == 8


@pytest.mark.parametrize(
    ("sample", "codec"),
    [
        (Sample("pickle me", 1.0, np.zeros(3)), PICKLE5),
        (Sample("a", 1.0, np.array([1, "a"], dtype=object)), PICKLE5),
        (Sample("a", 1.0, np.zeros(3, dtype=[("a", "i4")])), PICKLE5),
        (Sample("a", 1.0, np.frombuffer(bytes(8))), FROZEN),
        (Sample("a" * 70_000, 1.0, np.zeros(3)), PICKLE5),
    ],
)
def test_what_its_form_or_its_array_does_not_allow_is_pickled(sample: Sample, codec: int) -> None:
    encoded = Encoder().encode(sample)
    assert encoded.codec == codec
    assert arrived(encoded).decode() == sample


def test_subclasses_are_pickled() -> None:
    class Special(Sample):
        pass

    with pytest.raises(AttributeError, match="local object"):
        Encoder().encode(Special("a", 1.0, np.zeros(3)))


def test_a_publisher_that_exists_already_uses_a_form_that_is_registered_later() -> None:
    form = compositecodec.FORMS.pop(Sample)
    encoder = Encoder()
    encoder.encode({})
    register(Sample, form)
    assert encoder.encode(Sample("a", 1.0, np.zeros(3))).codec == COMPOSITE


def test_a_constant_part_is_read_once() -> None:
    encoder = Encoder()
    heads = [encoder.encode(Sample("once", number, np.zeros(3))).head for number in (1.0, 2.0)]
    one, other = (constant_of(head, 0) for head in heads)
    assert one == other
    assert template_of(one) is template_of(other)


def test_constant_parts_that_never_repeat_do_not_fill_the_memory() -> None:
    for number in range(1500):
        arrived(Encoder().encode(Sample(f"{number}", 1.0, np.zeros(3)))).decode()
    assert len(compositecodec._templates) <= 1024  # pyright: ignore[reportPrivateUsage]


@given(st.binary(max_size=100))
def test_bytes_that_are_no_head_are_refused(head: bytes) -> None:
    with pytest.raises((ValueError, struct.error)):
        composite_of(head, b"")


def test_a_form_that_nobody_knows_is_refused_by_its_name() -> None:
    head = Encoder().encode(Sample("a", 1.0, np.zeros(3))).head
    home = __name__.encode()
    with pytest.raises(ValueError, match="No module named 'nowhere'"):
        composite_of(head.replace(home, b"nowhere.".ljust(len(home), b"x")), bytes(24))


def test_an_array_that_is_cut_short_is_refused() -> None:
    encoded = Encoder().encode(Sample("a", 1.0, np.zeros(3)))
    message = arrived(encoded)
    message.stop -= 9
    with pytest.raises(ProtocolError, match="24 bytes"):
        message.decode()
    with pytest.raises(TypeError, match="too small"):
        decode(COMPOSITE, encoded.head, [encoded.data[:-1]])
