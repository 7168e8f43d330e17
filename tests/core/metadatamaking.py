"""Metadata of graphs, with every record there is."""

from __future__ import annotations

from typing import Any, TypeVar

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
    SettingsFieldMetadata,
    SettingsSchemaMetadata,
    StreamMetadata,
    TaskMetadata,
    TopicMetadata,
    UnitMetadata,
)

C = TypeVar("C", bound=ComponentMetadata)
MORE: dict[type[Any], dict[str, Any]] = {
    ComponentMetadata: {},
    CollectionMetadata: {"topics": {}, "relays": {}, "children": []},
    UnitMetadata: {"streams": {}, "tasks": [], "main": None, "threads": []},
}


def component(address: str, kind: type[C], gain: int = 1, input_topic: str | None = None) -> C:
    """A component with settings {gain}, which takes new ones on `input_topic`."""
    return kind(
        address=address,
        name=address.rsplit("/", 1)[-1],
        component_type="module.Component",
        settings_type="module.Settings",
        initial_settings=(b"gain %d" % gain, {"gain": gain}),
        dynamic_settings=DynamicSettingsMetadata(input_topic is not None, input_topic, "module.Settings"),
        settings_schema=schema(),
        **MORE[kind],
    )


def schema(*fields: SettingsFieldMetadata) -> SettingsSchemaMetadata:
    return SettingsSchemaMetadata("dataclass", "module.Settings", list(fields))


def graph(*addresses: str, gain: int = 1) -> GraphMetadata:
    """Units at these addresses, each with dynamic settings."""
    units = {address: component(address, UnitMetadata, gain, f"{address}/INPUT_SETTINGS") for address in addresses}
    return GraphMetadata(1, None, dict(units))


def every_kind() -> GraphMetadata:
    """Every record of `graphmeta` that metadata may hold, with tuples in all places."""
    bare = component("SYS/BARE", ComponentMetadata)
    bare.initial_settings = (None, "repr of something")
    bare.settings_schema = None
    unit = component("SYS/UNIT", UnitMetadata, 7, "SYS/UNIT/INPUT_SETTINGS")
    unit.initial_settings = (b"\x00\xff", {"shape": (1, (2, 3)), "big": 1 << 80, "deep": [{"a": (None,)}]})
    unit.settings_schema = schema(
        SettingsFieldMetadata("gain", "builtins.int", False, (1, 2), "Gain", (0.0, None), [(1, 2), "x"], "slider"),
        SettingsFieldMetadata("name", "builtins.str", True, None, None, None, None, None),
    )
    unit.streams = {
        "ANY": StreamMetadata("ANY", "SYS/UNIT/ANY", "builtins.int"),
        "IN": InputStreamMetadata("IN", "SYS/UNIT/IN", "builtins.int", True, 3),
        "OUT": OutputStreamMetadata("OUT", "SYS/UNIT/OUT", "builtins.int", "127.0.0.1", 1, 2, 3, True),
    }
    unit.tasks = [TaskMetadata("run", "SYS/UNIT/IN", ["SYS/UNIT/OUT"]), TaskMetadata("idle")]
    unit.main, unit.threads = "main", ["a", "b"]
    collection = component("SYS", CollectionMetadata)
    collection.topics = {
        "ANY": TopicMetadata("ANY", "SYS/ANY", "builtins.int"),
        "IN": InputTopicMetadata("IN", "SYS/IN", "builtins.int"),
        "OUT": OutputTopicMetadata("OUT", "SYS/OUT", "builtins.int"),
    }
    collection.relays = {
        "R_IN": InputRelayMetadata("R_IN", "SYS/R_IN", "builtins.int", True, 4, False),
        "R_OUT": OutputRelayMetadata("R_OUT", "SYS/R_OUT", "builtins.int", None, None, 8, None, False, False),
    }
    collection.children = ["SYS/BARE", "SYS/UNIT"]
    return GraphMetadata(1, "SYS", {"SYS": collection, "SYS/BARE": bare, "SYS/UNIT": unit})
