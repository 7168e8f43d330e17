"""Our bytes, read by protobuf."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from ezmsg.otel.protobuf import fixed32, fixed64, integer, message, size_of, text, varint


@given(st.integers(0, 2**63 - 1))
def test_whole_numbers_are_as_short_as_protobuf_makes_them(value: int) -> None:
    assert b"".join(integer(3, value)) == AnyValue(int_value=value).SerializeToString()


@given(st.text(max_size=300))
def test_texts(value: str) -> None:
    assert text(1, value) == KeyValue(key=value).SerializeToString()


@given(st.text(min_size=1, max_size=200), st.binary(max_size=200))
def test_messages_within_messages(key: str, value: bytes) -> None:
    made = message(9, text(1, key), *message(2, *message(7, value)))
    wanted = Span(attributes=[KeyValue(key=key, value=AnyValue(bytes_value=value))])
    assert b"".join(made) == wanted.SerializeToString()


@given(st.integers(1, 2**32 - 1))
def test_four_bytes(value: int) -> None:
    assert fixed32(16, value) == Span(flags=value).SerializeToString()


def test_a_slot_is_as_long_as_what_fills_it() -> None:
    pieces = message(2, *fixed64(4, slice(8, 16)))
    assert size_of(pieces) == 2 + 1 + 8
    before, slot = pieces[:2], pieces[2]
    assert (before, slot) == ([varint(2 << 3 | 2) + varint(9), varint(4 << 3 | 1)], slice(8, 16))
