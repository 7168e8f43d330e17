"""The description of a run that the GraphServer gets: every component, its endpoints, tasks and settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ezmsg.core.collection import Collection
from ezmsg.core.component import Component
from ezmsg.core.graphmeta import (
    CollectionMetadata,
    ComponentMetadata,
    DynamicSettingsMetadata,
    GraphMetadata,
    InputRelayMetadata,
    InputStreamMetadata,
    InputTopicMetadata,
    OutputRelayMetadata,
    OutputStreamMetadata,
    OutputTopicMetadata,
    StreamMetadata,
    TaskMetadata,
    TopicMetadata,
    UnitMetadata,
)
from ezmsg.core.runtime.preparation import SETTINGS_INPUT, walk
from ezmsg.core.settingsmeta import settings_schema_from_type, settings_snapshot_value
from ezmsg.core.stream import (
    InputRelay,
    InputStream,
    InputTopic,
    OutputRelay,
    OutputStream,
    OutputTopic,
    Stream,
    type_name,
)
from ezmsg.core.unit import Unit, main_name, published, subscribed, tasks_of, threads_of

SCHEMA_VERSION = 1
LARGE_BYTES = 1 << 20


def graph_metadata(root_name: str | None, components: Iterable[Component]) -> GraphMetadata:
    """The description of prepared components, given by the top of their tree."""
    found = {it.address: component_metadata(it) for it in walk(components)}
    return GraphMetadata(SCHEMA_VERSION, root_name, dict(sorted(found.items())))


def without_large_settings(metadata: GraphMetadata) -> GraphMetadata:
    """The same description, with nothing but their size said of initial settings that take more than 1 MiB."""

    def short(it: ComponentMetadata) -> ComponentMetadata:
        size = len(it.initial_settings[0] or b"")
        text = f"{it.settings_type} of {size} bytes, too large to be told"
        return it if size <= LARGE_BYTES else replace(it, initial_settings=(None, text), settings_schema=None)

    return replace(metadata, components={address: short(it) for address, it in metadata.components.items()})


def component_metadata(component: Component) -> ComponentMetadata:
    """The description of one component that has its place."""
    if isinstance(component, Unit):
        return UnitMetadata(**_common(component), **_of_unit(component))
    if isinstance(component, Collection):
        return CollectionMetadata(**_common(component), **_of_collection(component))
    return ComponentMetadata(**_common(component))


def _common(component: Component) -> dict[str, Any]:
    settings = settings_snapshot_value(component.SETTINGS)
    settings_type = type(component).__settings_type__
    return {
        "address": component.address,
        "name": component.name,
        "component_type": type_name(type(component)),
        "settings_type": type_name(settings_type),
        "initial_settings": (settings.serialized, settings.repr_value),
        "dynamic_settings": _dynamic_settings(component),
        "settings_schema": settings.settings_schema or settings_schema_from_type(settings_type),
    }


def _dynamic_settings(component: Component) -> DynamicSettingsMetadata:
    stream = component.streams.get(SETTINGS_INPUT)
    if not isinstance(stream, InputStream):
        return DynamicSettingsMetadata(False, None, None)
    return DynamicSettingsMetadata(True, stream.address, type_name(stream.msg_type))


def _of_unit(unit: Unit) -> dict[str, Any]:
    return {
        "streams": {name: _stream(stream) for name, stream in unit.streams.items()},
        "tasks": [_task(unit, name, task) for name, task in sorted(tasks_of(unit).items())],
        "main": main_name(type(unit)),
        "threads": sorted(threads_of(unit)),
    }


def _of_collection(collection: Collection) -> dict[str, Any]:
    relays = {name: _relay(it) for name, it in collection.streams.items() if isinstance(it, (InputRelay, OutputRelay))}
    return {
        "topics": {name: _topic(it) for name, it in collection.streams.items() if name not in relays},
        "relays": relays,
        "children": sorted(child.address for child in collection.components.values()),
    }


def _task(unit: Unit, name: str, task: Any) -> TaskMetadata:
    stream = subscribed(unit, task)
    return TaskMetadata(name, stream and stream.address, [output.address for output in published(unit, task)])


def _stream(stream: Stream) -> StreamMetadata:
    names = stream.name, stream.address, type_name(stream.msg_type)
    if isinstance(stream, InputStream):
        return InputStreamMetadata(*names, stream.leaky, stream.max_queue)
    if isinstance(stream, OutputStream):
        return OutputStreamMetadata(*names, **_publishing(stream))
    return StreamMetadata(*names)


def _topic(topic: Stream) -> TopicMetadata:
    names = topic.name, topic.address, type_name(topic.msg_type)
    if isinstance(topic, (InputTopic, InputStream)):
        return InputTopicMetadata(*names)
    if isinstance(topic, (OutputTopic, OutputStream)):
        return OutputTopicMetadata(*names)
    return TopicMetadata(*names)


def _relay(relay: InputRelay | OutputRelay) -> InputRelayMetadata | OutputRelayMetadata:
    names = relay.name, relay.address, type_name(relay.msg_type)
    if isinstance(relay, InputRelay):
        return InputRelayMetadata(*names, relay.leaky, relay.max_queue, relay.copy_on_forward)
    return OutputRelayMetadata(*names, **_publishing(relay), copy_on_forward=relay.copy_on_forward)


def _publishing(stream: OutputStream | OutputRelay) -> dict[str, Any]:
    return {name: getattr(stream, name) for name in ("host", "port", "num_buffers", "buf_size", "force_tcp")}
