"""Metadata comes back equal, of the same concrete classes; what msgpack cannot carry is reduced, never refused."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from enum import Enum, IntEnum
from typing import Any, get_type_hints

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezmsg.core import graphmeta as g
from ezmsg.core.wire.metadata import RECORD_OF, GraphRecord, NotSerializable, SettingsValue, record_of, value_of
from ezmsg.core.wire.records import RegisterMetadata, decode_record, encode_record
from ezmsg.core.wire.values import plain, restored
from tests.core.metadatamaking import component, every_kind

CARRIED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(-9, 9), inner, max_size=3)
    ),
    max_leaves=8,
)


def through_the_server(metadata: g.GraphMetadata) -> g.GraphMetadata:
    """Encoded by one client, read and written again by the server, read by another client."""
    record = RegisterMetadata(record_of(metadata, GraphRecord))
    for _ in range(2):
        opcode, body = encode_record(record)
        record = decode_record(opcode, body)
        assert isinstance(record, RegisterMetadata)
    return value_of(record.metadata, g.GraphMetadata)


def carried(value: Any) -> Any:
    opcode_free = msgspec.msgpack.decode(msgspec.msgpack.encode(plain(value)))
    return restored(opcode_free)


def kinds(value: Any) -> Any:
    """The classes of everything inside: `==` does not tell True from 1."""
    if dataclasses.is_dataclass(value):
        inner = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return type(value), kinds(inner)
    if isinstance(value, dict):
        return {key: kinds(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value), [kinds(item) for item in value]
    return type(value)


def test_every_kind_of_metadata_comes_back_equal_and_of_the_same_class() -> None:
    metadata = every_kind()
    returned = through_the_server(metadata)
    assert returned == metadata
    assert kinds(returned) == kinds(metadata)


def test_every_record_has_the_fields_of_its_dataclass_in_their_order() -> None:
    for dataclass, record in RECORD_OF.items():
        names = [field.name for field in dataclasses.fields(dataclass)]
        assert list(record.__struct_fields__) == names, dataclass
        assert set(get_type_hints(record)) == set(names)


@given(CARRIED)
def test_what_msgpack_and_our_extensions_know_comes_back_equal_and_of_the_same_type(value: Any) -> None:
    assert carried(value) == value
    assert kinds(carried(value)) == kinds(value)


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Text(str):
    pass


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@dataclasses.dataclass
class Inner:
    size: Any
    others: tuple[int, ...] = (1,)


@pytest.mark.parametrize(
    ("value", "reduced"),
    [
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Text("x"), "x"),
        ({2}, [2]),
        (Inner(Inner(2)), {"size": {"size": 2, "others": (1,)}, "others": (1,)}),
        (OrderedDict(a=Colour.RED), {"a": "red"}),
        ({Colour.RED: 1, (1, 2): 2}, {"red": 1, "(1, 2)": 2}),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.str_("n"), "n"),
        (bytearray(b"b"), b"b"),
        (1j, "1j"),
        (int, "<class 'int'>"),
        (Inner, repr(Inner)),
        (np.arange(2), "array([0, 1])"),
        (np.longdouble(1), repr(np.longdouble(1))),
        (Hostile(), "<Hostile>"),
        ([Hostile()], ["<Hostile>"]),
        ("\ud800", "\\ud800"),
    ],
)
def test_anything_else_is_reduced(value: Any, reduced: Any) -> None:
    assert carried(value) == reduced


def test_a_value_that_contains_itself_ends_somewhere() -> None:
    value: list[Any] = []
    value.append(value)
    deep = carried(value)
    for _ in range(30):
        [deep] = deep
    assert "[...]" in str(deep)


def test_a_subclass_of_a_user_travels_as_what_it_extends() -> None:
    class MyStream(g.InputStreamMetadata):
        pass

    unit = component("U", g.UnitMetadata)
    unit.streams = {"IN": MyStream("IN", "U/IN", "int", True)}
    [returned] = through_the_server(g.GraphMetadata(1, None, {"U": unit})).components.values()
    assert isinstance(returned, g.UnitMetadata)
    assert type(returned.streams["IN"]) is g.InputStreamMetadata


@pytest.mark.parametrize("value", ["text", 1 << 70])
def test_a_field_of_the_wrong_type_is_refused_before_it_is_sent(value: Any) -> None:
    wrong = g.GraphMetadata(schema_version=value, root_name=None, components={})
    with pytest.raises(NotSerializable, match="GraphMetadata cannot be sent"):
        record_of(wrong, GraphRecord)
    with pytest.raises(NotSerializable):
        record_of("no dataclass", SettingsValue)
