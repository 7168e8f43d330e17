"""What a session tells about the components it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ezmsg.core.graphmeta.settings import SettingsSchemaMetadata

__all__ = [
    "CollectionMetadata",
    "ComponentMetadata",
    "ComponentMetadataType",
    "DynamicSettingsMetadata",
    "GraphMetadata",
    "InitialSettingsType",
    "InputRelayMetadata",
    "InputStreamMetadata",
    "InputTopicMetadata",
    "OutputRelayMetadata",
    "OutputStreamMetadata",
    "OutputTopicMetadata",
    "RelayMetadataType",
    "SerializedSettingsType",
    "SettingsReprType",
    "StreamMetadata",
    "StreamMetadataType",
    "TaskMetadata",
    "TopicMetadata",
    "TopicMetadataType",
    "UnitMetadata",
]


@dataclass
class DynamicSettingsMetadata:
    """Whether and where a component takes new settings while it runs."""

    enabled: bool
    input_topic: str | None
    settings_type: str | None


@dataclass
class StreamMetadata:
    """One stream of a unit."""

    name: str
    address: str
    msg_type: str


@dataclass
class InputStreamMetadata(StreamMetadata):
    """A stream a unit receives from."""

    leaky: bool = False
    max_queue: int | None = None


@dataclass
class OutputStreamMetadata(StreamMetadata):
    """A stream a unit publishes on."""

    host: str | None = None
    port: int | None = None
    num_buffers: int | None = None
    buf_size: int | None = None
    force_tcp: bool | None = None


@dataclass
class TopicMetadata:
    """A topic of a collection."""

    name: str
    address: str
    msg_type: str


@dataclass
class InputTopicMetadata(TopicMetadata):
    """A topic through which a collection receives."""


@dataclass
class OutputTopicMetadata(TopicMetadata):
    """A topic through which a collection publishes."""


@dataclass
class InputRelayMetadata(InputTopicMetadata):
    """An input topic behind which a hidden unit republishes."""

    leaky: bool = False
    max_queue: int | None = None
    copy_on_forward: bool = True


@dataclass
class OutputRelayMetadata(OutputTopicMetadata):
    """An output topic behind which a hidden unit republishes."""

    host: str | None = None
    port: int | None = None
    num_buffers: int | None = None
    buf_size: int | None = None
    force_tcp: bool | None = None
    copy_on_forward: bool = True


@dataclass
class TaskMetadata:
    """One task of a unit: what it subscribes to and publishes on, by address."""

    name: str
    subscribes: str | None = None
    publishes: list[str] = field(default_factory=list[str])


@dataclass
class ComponentMetadata:
    """What is known of a component before it runs."""

    address: str
    name: str
    component_type: str
    settings_type: str
    initial_settings: tuple[bytes | None, dict[str, Any] | str]
    dynamic_settings: DynamicSettingsMetadata
    settings_schema: SettingsSchemaMetadata | None


@dataclass
class CollectionMetadata(ComponentMetadata):
    """A component that holds others."""

    topics: dict[str, TopicMetadata | InputTopicMetadata | OutputTopicMetadata]
    relays: dict[str, InputRelayMetadata | OutputRelayMetadata]
    children: list[str]


@dataclass
class UnitMetadata(ComponentMetadata):
    """A component that runs."""

    streams: dict[str, StreamMetadata | InputStreamMetadata | OutputStreamMetadata]
    tasks: list[TaskMetadata]
    main: str | None
    threads: list[str]


@dataclass
class GraphMetadata:
    """Everything one session runs, keyed by component address."""

    schema_version: int
    root_name: str | None
    components: dict[str, ComponentMetadata | CollectionMetadata | UnitMetadata]


StreamMetadataType = StreamMetadata | InputStreamMetadata | OutputStreamMetadata


TopicMetadataType = TopicMetadata | InputTopicMetadata | OutputTopicMetadata


RelayMetadataType = InputRelayMetadata | OutputRelayMetadata


SettingsReprType = dict[str, Any] | str


SerializedSettingsType = bytes | None


InitialSettingsType = tuple[bytes | None, dict[str, Any] | str]


ComponentMetadataType = ComponentMetadata | CollectionMetadata | UnitMetadata
