"""Metadata and settings as they travel: one tagged record beside each dataclass of `graphmeta`, and both ways.

The dataclasses are the users'; msgspec cannot tell one from the other in a union, so each has a record here with the
same fields and a tag. The server reads these records, and never the values of any type inside (see `wire.values`): they
are `Raw`, bytes that are passed on as they came.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from types import UnionType
from typing import Any, Final, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec

from ezmsg.core import graphmeta as g
from ezmsg.core.errors import EzmsgError
from ezmsg.core.wire.values import NONE, packed, plain, unpacked

T = TypeVar("T")
R = TypeVar("R", bound=msgspec.Struct)


class NotSerializable(EzmsgError, TypeError):
    """A record of `graphmeta` has a field whose value is not of the type it declares; nothing was sent."""

    code = "NOT_SERIALIZABLE"

    def __init__(self, record: str, reason: str) -> None:
        super().__init__(f"{record} cannot be sent: {reason}")
        self.record, self.reason = record, reason


class MetadataRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of what describes a graph."""


class FieldRecord(MetadataRecord, frozen=True):
    """SettingsFieldMetadata."""

    name: str
    field_type: str
    required: bool
    default: msgspec.Raw
    description: str | None
    bounds: tuple[float | None, float | None] | None
    choices: msgspec.Raw
    widget_hint: str | None


class SchemaRecord(MetadataRecord, frozen=True):
    """SettingsSchemaMetadata."""

    provider: str
    settings_type: str
    fields: list[FieldRecord]
    json_schema: msgspec.Raw = NONE


class SettingsValue(MetadataRecord, frozen=True):
    """SettingsSnapshotValue; `serialized` is opaque."""

    serialized: bytes | None
    repr_value: msgspec.Raw
    structured_value: msgspec.Raw = NONE
    settings_schema: SchemaRecord | None = None


class DynamicSettingsRecord(MetadataRecord, frozen=True):
    """DynamicSettingsMetadata."""

    enabled: bool
    input_topic: str | None
    settings_type: str | None


class StreamRecord(MetadataRecord, frozen=True, tag="stream"):
    """StreamMetadata."""

    name: str
    address: str
    msg_type: str


class InputStreamRecord(StreamRecord, frozen=True, tag="input_stream"):
    """InputStreamMetadata."""

    leaky: bool = False
    max_queue: int | None = None


class OutputStreamRecord(StreamRecord, frozen=True, tag="output_stream"):
    """OutputStreamMetadata."""

    host: str | None = None
    port: int | None = None
    num_buffers: int | None = None
    buf_size: int | None = None
    force_tcp: bool | None = None


class TopicRecord(StreamRecord, frozen=True, tag="topic"):
    """TopicMetadata."""


class InputTopicRecord(StreamRecord, frozen=True, tag="input_topic"):
    """InputTopicMetadata."""


class OutputTopicRecord(StreamRecord, frozen=True, tag="output_topic"):
    """OutputTopicMetadata."""


class InputRelayRecord(InputStreamRecord, frozen=True, tag="input_relay"):
    """InputRelayMetadata."""

    copy_on_forward: bool = True


class OutputRelayRecord(OutputStreamRecord, frozen=True, tag="output_relay"):
    """OutputRelayMetadata."""

    copy_on_forward: bool = True


Way = (
    StreamRecord
    | InputStreamRecord
    | OutputStreamRecord
    | TopicRecord
    | InputTopicRecord
    | OutputTopicRecord
    | InputRelayRecord
    | OutputRelayRecord
)


class TaskRecord(MetadataRecord, frozen=True):
    """TaskMetadata."""

    name: str
    subscribes: str | None = None
    publishes: list[str] = []


class ComponentRecord(MetadataRecord, frozen=True, tag="component"):
    """ComponentMetadata."""

    address: str
    name: str
    component_type: str
    settings_type: str
    initial_settings: tuple[bytes | None, msgspec.Raw]
    dynamic_settings: DynamicSettingsRecord
    settings_schema: SchemaRecord | None


class CollectionRecord(ComponentRecord, frozen=True, tag="collection"):
    """CollectionMetadata."""

    topics: dict[str, Way]
    relays: dict[str, Way]
    children: list[str]


class UnitRecord(ComponentRecord, frozen=True, tag="unit"):
    """UnitMetadata."""

    streams: dict[str, Way]
    tasks: list[TaskRecord]
    main: str | None
    threads: list[str]


class GraphRecord(MetadataRecord, frozen=True):
    """GraphMetadata."""

    schema_version: int
    root_name: str | None
    components: dict[str, ComponentRecord | CollectionRecord | UnitRecord]


# The table: what travels as what.
RECORD_OF: Final[dict[type[Any], type[MetadataRecord]]] = {
    g.SettingsFieldMetadata: FieldRecord,
    g.SettingsSchemaMetadata: SchemaRecord,
    g.SettingsSnapshotValue: SettingsValue,
    g.DynamicSettingsMetadata: DynamicSettingsRecord,
    g.StreamMetadata: StreamRecord,
    g.InputStreamMetadata: InputStreamRecord,
    g.OutputStreamMetadata: OutputStreamRecord,
    g.TopicMetadata: TopicRecord,
    g.InputTopicMetadata: InputTopicRecord,
    g.OutputTopicMetadata: OutputTopicRecord,
    g.InputRelayMetadata: InputRelayRecord,
    g.OutputRelayMetadata: OutputRelayRecord,
    g.TaskMetadata: TaskRecord,
    g.ComponentMetadata: ComponentRecord,
    g.CollectionMetadata: CollectionRecord,
    g.UnitMetadata: UnitRecord,
    g.GraphMetadata: GraphRecord,
}

# Fields that hold values of any type.
_ANY: Final = frozenset({"default", "choices", "json_schema", "repr_value", "structured_value"})


# -- to the wire ------------------------------------------------------------------------------------------------------


def record_of(value: object, record: type[R]) -> R:
    """The record of a dataclass of `graphmeta`.

    Raises:
        NotSerializable: `value` is not what travels as such a record, or a field of it is not of its declared type.
    """
    name = type(value).__name__
    try:
        encoded = msgspec.msgpack.encode(_carried(value))
        return msgspec.msgpack.decode(encoded, type=record)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
        raise NotSerializable(name, str(error)) from error


def _carried(value: Any) -> Any:
    # A subclass of a user travels as the class of ours that it extends.
    for parent in type(value).__mro__:
        record = RECORD_OF.get(parent)
        if record is not None:
            return record(**{name: _field(name, getattr(value, name)) for name in record.__struct_fields__})
    if isinstance(value, dict):
        return {plain(key): _carried(item) for key, item in cast(dict[Any, Any], value).items()}
    if isinstance(value, (list, tuple)):
        return [_carried(item) for item in cast(list[Any], value)]
    return plain(value)


def _field(name: str, value: Any) -> Any:
    if name in _ANY:
        return packed(value)
    if name == "initial_settings":
        serialized, shown = value
        return (serialized, packed(shown))
    return _carried(value)


# -- from the wire ----------------------------------------------------------------------------------------------------


def value_of(record: MetadataRecord, expected: type[T]) -> T:
    """The dataclass of `graphmeta` that a record carries."""
    value = _returned(record)
    assert isinstance(value, expected)
    return value


def _returned(value: Any) -> Any:
    plan = _PLANS.get(cast(type[Any], type(value)))
    if plan is not None:
        dataclass, conversions = plan
        return dataclass(
            *[
                getattr(value, name) if convert is None else convert(getattr(value, name))
                for name, convert in conversions
            ]
        )
    if isinstance(value, dict):
        return {key: _returned(item) for key, item in cast(dict[Any, Any], value).items()}
    if isinstance(value, list):
        return [_returned(item) for item in cast(list[Any], value)]
    return value


def _initial_settings(value: tuple[bytes | None, msgspec.Raw]) -> tuple[bytes | None, Any]:
    serialized, shown = value
    return (serialized, unpacked(shown))


def _convert(name: str, hint: Any) -> Callable[[Any], Any] | None:
    """What makes the user's value of a field; None where the decoder has made it already."""
    if name in _ANY:
        return unpacked
    if name == "initial_settings":
        return _initial_settings
    kinds = set(get_args(hint) if isinstance(hint, UnionType) else [hint])
    return None if all(kind in _READY or get_origin(kind) is tuple for kind in kinds) else _returned


def _plan(record: type[MetadataRecord], dataclass: type[Any]) -> _Plan:
    hints = get_type_hints(record)
    return dataclass, [(field.name, _convert(field.name, hints[field.name])) for field in fields(dataclass)]


_Plan = tuple[type[Any], list[tuple[str, Callable[[Any], Any] | None]]]
_READY: Final = frozenset({str, int, float, bool, bytes, type(None), list[str]})
# Metadata of a thousand components is read at every look at the graph.
_PLANS: Final = {record: _plan(record, dataclass) for dataclass, record in RECORD_OF.items()}
