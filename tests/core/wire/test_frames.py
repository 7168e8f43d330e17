"""Frames: any split of the stream gives the same ones; errors arrive as what they were."""

import gc
import pickle
from collections.abc import Iterator
from enum import StrEnum
from inspect import isfunction, signature
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ezmsg.core import errors
from ezmsg.core.dag import CyclicException
from ezmsg.core.errors import EzmsgError, FrameTooLarge, ProtocolError, Refused, UnitAlreadyOwned
from ezmsg.core.messagecache import CacheMiss
from ezmsg.core.wire.frames import (
    HEADER,
    HEADER_BYTES,
    INTERNAL,
    KNOWN_FLAGS,
    REPLY,
    REQUEST,
    FrameDecoder,
    encode_frame,
    error_of,
    refusal_of,
    register_error,
)
from ezmsg.core.wire.records import Refusal, decode_record, encode_record

Kept = tuple[int, int, int, bytes]
# Small, so that bodies of every kind (in the buffer, across its end, larger than it) stay small too.
CAPACITY = 128

frames = st.tuples(
    st.integers(0, 0xFFFF), st.integers(0, KNOWN_FLAGS), st.integers(0, 0xFFFFFFFF), st.binary(max_size=3 * CAPACITY)
)


def stream_of(kept: list[Kept]) -> bytes:
    return b"".join(encode_frame(opcode, body, request_id, flags) for opcode, flags, request_id, body in kept)


def kept_from(decoder: FrameDecoder, data: bytes) -> list[Kept]:
    return [(f.opcode, f.flags, f.request_id, bytes(f.body)) for f in decoder.feed(data)]


def test_a_frame_is_these_bytes() -> None:
    assert encode_frame(0x0201, b"body", 0x0605, REPLY).hex(" ") == (
        "04 00 00 00 00 00 00 00 01 02 01 00 05 06 00 00 62 6f 64 79"
    )


@settings(deadline=None)
@given(st.lists(frames, max_size=8), st.data())
def test_any_split_gives_the_same_frames(sent: list[Kept], data: st.DataObject) -> None:
    stream = stream_of(sent)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted))
    decoder = FrameDecoder(capacity=CAPACITY)
    received = [
        frame
        for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for frame in kept_from(decoder, stream[start:stop])
    ]
    assert received == sent
    assert decoder.is_empty


@settings(deadline=None)
@given(st.lists(frames, min_size=1, max_size=4), st.data())
def test_a_truncated_stream_gives_the_whole_frames_and_says_that_more_was_coming(
    sent: list[Kept], data: st.DataObject
) -> None:
    stream = stream_of(sent)
    last = HEADER_BYTES + len(sent[-1][3])
    cut = data.draw(st.integers(1, last - 1))
    decoder = FrameDecoder(capacity=CAPACITY)
    assert kept_from(decoder, stream[:-cut]) == sent[:-1]
    assert not decoder.is_empty
    assert kept_from(decoder, stream[-cut:]) == sent[-1:]


@settings(deadline=None)
@given(st.lists(frames, max_size=3), st.integers(101, 2**64 - 1), st.integers(1, 2 * CAPACITY))
def test_frames_before_an_oversize_one_are_received_however_the_stream_is_cut(
    sent: list[Kept], size: int, step: int
) -> None:
    sent = [(opcode, flags, request_id, body[:100]) for opcode, flags, request_id, body in sent]
    stream = stream_of(sent) + HEADER.pack(size, 7, 0, 0)
    decoder = FrameDecoder(limit=100, capacity=CAPACITY)
    received: list[Kept] = []

    def feed_all() -> None:
        for start in range(0, len(stream), step):
            for frame in decoder.feed(stream[start : start + step]):
                received.append((frame.opcode, frame.flags, frame.request_id, bytes(frame.body)))  # noqa: PERF401

    with pytest.raises(FrameTooLarge, match=f"opcode 7 announces {size} bytes, the limit is 100"):
        feed_all()
    assert received == sent


def test_a_body_as_large_as_the_limit_is_received() -> None:
    assert kept_from(FrameDecoder(limit=1000), encode_frame(5, bytes(1000))) == [(5, 0, 0, bytes(1000))]


def test_unknown_flags_are_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="unknown flags 0x8001"):
        list(FrameDecoder().feed(HEADER.pack(0, 5, 0x8001, 0)))


@settings(deadline=None)
@given(st.binary(max_size=4 * CAPACITY))
def test_garbage_is_frames_or_a_protocol_error(garbage: bytes) -> None:
    decoder = FrameDecoder(limit=10 * CAPACITY, capacity=CAPACITY)
    try:
        for frame in decoder.feed(garbage):
            assert len(frame.body) <= len(garbage)
    except ProtocolError:
        return


def test_a_large_body_on_its_way_is_received_into_memory_that_the_reader_gives() -> None:
    given_memory: list[memoryview] = []

    def allocate(opcode: int, size: int) -> memoryview:
        assert opcode == 9
        given_memory.append(memoryview(bytearray(size)))
        return given_memory[-1]

    decoder = FrameDecoder(capacity=CAPACITY, allocate=allocate)
    body = bytes(range(256)) * 4
    stream = encode_frame(9, body)
    assert list(decoder.feed(stream[:100])) == []
    # The socket reads straight into the body, and no further than its end.
    assert len(decoder.get_buffer()) == len(stream) - 100
    decoder.get_buffer()[:] = stream[100:]
    (frame,) = decoder.received(len(stream) - 100)
    assert frame.is_owned
    assert frame.body is given_memory[0]
    assert frame.body == body


def test_a_large_body_that_is_there_already_is_not_copied() -> None:
    decoder = FrameDecoder(capacity=4096)
    (frame,) = decoder.feed(encode_frame(9, bytes(4000)))
    assert not frame.is_owned


def test_the_buffer_is_never_empty() -> None:
    decoder = FrameDecoder(capacity=CAPACITY)
    for byte in stream_of([(1, 0, 0, bytes(size)) for size in range(0, 3 * CAPACITY, 7)]):
        assert len(decoder.get_buffer()) > 0
        list(decoder.feed(bytes([byte])))


# -- errors ---------------------------------------------------------------------------------------------------------

VALUES: dict[str, Any] = {
    "list[str]": ["gain", "mode"],
    "list[dict[str, str]]": [{"field": "gain", "value": "0", "rule": "out of bounds", "expected": "≥ 1"}],
    "str": "text",
    "int": 7,
    "int | None": 7,
    "float": 1.5,
    "type": dict,
    "object": "value",
    "str | None": "text",
    "dict[str, str]": {"A/B": "id"},
    "dict[str, Any] | None": {"x": [1, 2]},
}


def tree(error_type: type[EzmsgError]) -> Iterator[type[EzmsgError]]:
    yield error_type
    for child in error_type.__subclasses__():
        yield from tree(child)


def example(error_type: type[EzmsgError]) -> EzmsgError:
    """An error with a value for each argument its class wants."""
    if not isfunction(error_type.__init__):
        return error_type("text")
    parameters = signature(error_type.__init__).parameters.values()
    values = {item.name: VALUES[item.annotation] for item in parameters if item.annotation in VALUES}
    return error_type(**values)


EXAMPLES = [
    *(example(error_type) for error_type in tree(EzmsgError) if error_type.__module__ == errors.__name__),
    CyclicException("A", "B"),
    CacheMiss("message 7"),
]


def over_the_wire(error: BaseException) -> Exception:
    refusal = decode_record(*encode_record(refusal_of(error)))
    assert isinstance(refusal, Refusal)
    return error_of(refusal)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_arrives_as_what_it_was(error: EzmsgError) -> None:
    arrived = over_the_wire(error)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert isinstance(arrived, EzmsgError)
    assert arrived.fields() == error.fields()
    again = over_the_wire(arrived)
    assert (type(again), str(again), vars(again)) == (type(arrived), str(arrived), vars(arrived))


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_after_pickling(error: EzmsgError) -> None:
    arrived = pickle.loads(pickle.dumps(error))
    assert (type(arrived), str(arrived), vars(arrived)) == (type(error), str(error), vars(error))


def test_an_error_without_a_text_arrives_without_one() -> None:
    assert str(over_the_wire(CacheMiss())) == str(CacheMiss()) == ""


def test_codes_are_unique() -> None:
    own = {type(error) for error in EXAMPLES if "code" in vars(type(error))}
    assert len({error_type.code for error_type in own}) == len(own)


def test_an_unknown_code_arrives_as_refused_with_its_code_and_fields() -> None:
    error = error_of(Refusal("FROM_THE_FUTURE", "text", {"a": 1}))
    assert isinstance(error, Refused)
    assert (str(error), error.refusal_code, error.refusal_fields) == ("text", "FROM_THE_FUTURE", {"a": 1})


def test_a_class_without_a_code_of_its_own_arrives_as_its_parent() -> None:
    class Special(UnitAlreadyOwned):
        pass

    arrived = over_the_wire(Special("OP", {"U": "p"}))
    assert type(arrived) is UnitAlreadyOwned
    assert arrived.conflicts == {"U": "p"}
    del Special, arrived
    gc.collect()  # it is a subclass as long as it lives


def test_a_stranger_arrives_as_internal_with_its_type_and_text() -> None:
    arrived = over_the_wire(ZeroDivisionError("division by zero"))
    assert isinstance(arrived, Refused)
    assert (arrived.refusal_code, str(arrived)) == (INTERNAL, "ZeroDivisionError: division by zero")
    assert str(over_the_wire(ZeroDivisionError())) == "ZeroDivisionError"


def test_a_registered_stranger_arrives_as_itself() -> None:
    class Outsider(Exception):
        def __init__(self, a: int) -> None:
            super().__init__(f"a is {a}")
            self.a = a

    register_error(Outsider, "TEST_OUTSIDER")
    arrived = over_the_wire(Outsider(3))
    assert type(arrived) is Outsider
    assert (str(arrived), arrived.a) == ("a is 3", 3)


class Colour(StrEnum):
    RED = "red"


class Unprintable:
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (1 << 70, str(1 << 70)),
        (Colour.RED, "red"),
        ((1, (2, 3)), [1, [2, 3]]),
        ({1: {"x"}}, {"1": ["x"]}),
        (b"x", b"x"),
        (1.5, 1.5),
        (True, True),
        (None, None),
        (Unprintable(), "<Unprintable>"),
        ("broken \udcff", "broken \\udcff"),
    ],
)
def test_fields_that_cannot_travel_arrive_as_text(value: object, plain: object) -> None:
    arrived = over_the_wire(Refused("text", "CODE", {"value": value}))
    assert isinstance(arrived, Refused)
    assert arrived.refusal_fields == {"value": plain}


def test_fields_cannot_replace_what_is_not_a_field() -> None:
    error = error_of(Refusal("CYCLE", "text", {"_private": 1, "code": "OTHER", "args": [1], "from_topic": "A"}))
    assert isinstance(error, CyclicException)
    assert (error.code, error.args, error.from_topic) == ("CYCLE", ("text",), "A")
    assert not hasattr(error, "_private")


def test_request_and_reply_are_different_bits() -> None:
    assert REPLY & REQUEST == 0
