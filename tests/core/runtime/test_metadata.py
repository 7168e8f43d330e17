from __future__ import annotations

import pickle
from collections.abc import AsyncIterator
from typing import Any

import pytest

import ezmsg.core as ez
from ezmsg.core.graphcontext import GraphContext
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
    TaskMetadata,
    TopicMetadata,
    UnitMetadata,
)
from ezmsg.core.runtime.metadata import graph_metadata
from ezmsg.core.runtime.preparation import prepare

HERE = __name__


class Gain(ez.Settings):
    gain: int
    on_change: Any = None


class Worker(ez.Unit):
    SETTINGS = Gain

    INPUT_SETTINGS = ez.InputStream(Gain)
    INPUT = ez.InputStream(list[int], leaky=True, max_queue=2)
    OUTPUT = ez.OutputStream("Later", host="127.0.0.1", port=4, num_buffers=2, buf_size=8, force_tcp=True)
    SECOND = ez.OutputStream(Any)

    @ez.subscriber(INPUT)
    @ez.publisher(SECOND)
    @ez.publisher(OUTPUT)
    async def work(self, message: Any) -> AsyncIterator[Any]:
        yield self.OUTPUT, message

    @ez.subscriber(INPUT_SETTINGS)
    async def on_settings(self, message: Gain) -> None:
        self.apply_settings(message)

    @ez.task
    async def idle(self) -> None:
        pass

    @ez.main
    def show(self) -> None:
        pass


class Bare(ez.Unit):
    pass


class System(ez.Collection):
    SETTINGS = Gain

    TOPIC = ez.Topic(int)
    TOPIC_IN = ez.InputTopic(int)
    TOPIC_OUT = ez.OutputTopic(float)
    RELAY_IN = ez.InputRelay(int)
    RELAY_OUT = ez.OutputRelay(int, num_buffers=3)
    WORKER = Worker()
    BARE = Bare()

    def configure(self) -> None:
        self.WORKER.apply_settings(Gain(7))
        self.RELAY_IN.leaky = True
        self.RELAY_IN.max_queue = 4


def described(root_name: str | None = None, **components: ez.Component) -> GraphMetadata:
    prepared = prepare(components, root_name=root_name)
    assert prepared is not None
    return graph_metadata(prepared.root_name, prepared.components.values())


def unit(**members: Any) -> Any:
    """The description of a unit with these members."""
    return described(A=type("Unit", (ez.Unit,), members)()).components["A"]


def test_every_component_is_there_by_address_and_in_order() -> None:
    metadata = described("ROOT", SYS=System(), A=Bare())
    assert (metadata.schema_version, metadata.root_name) == (1, "ROOT")
    assert {address: type(it) for address, it in metadata.components.items()} == {
        "ROOT/A": UnitMetadata,
        "ROOT/SYS": CollectionMetadata,
        "ROOT/SYS/BARE": UnitMetadata,
        "ROOT/SYS/WORKER": UnitMetadata,
        "ROOT/SYS/__relay_in_RELAY_IN": UnitMetadata,
        "ROOT/SYS/__relay_out_RELAY_OUT": UnitMetadata,
    }
    assert list(metadata.components) == sorted(metadata.components)
    assert all(it.address == address for address, it in metadata.components.items())


def test_a_unit_is_described() -> None:
    it = described(W=Worker(3)).components["W"]
    assert isinstance(it, UnitMetadata)
    assert (it.address, it.name) == ("W", "W")
    assert (it.component_type, it.settings_type) == (f"{HERE}.Worker", f"{HERE}.Gain")
    assert it.streams == {
        "INPUT_SETTINGS": InputStreamMetadata("INPUT_SETTINGS", "W/INPUT_SETTINGS", f"{HERE}.Gain", False, None),
        "INPUT": InputStreamMetadata("INPUT", "W/INPUT", "list[int]", True, 2),
        "OUTPUT": OutputStreamMetadata("OUTPUT", "W/OUTPUT", "'Later'", "127.0.0.1", 4, 2, 8, True),
        "SECOND": OutputStreamMetadata("SECOND", "W/SECOND", "typing.Any", None, None, 32, 65536, None),
    }
    assert it.tasks == [
        TaskMetadata("idle", None, []),
        TaskMetadata("on_settings", "W/INPUT_SETTINGS", []),
        TaskMetadata("work", "W/INPUT", ["W/OUTPUT", "W/SECOND"]),
    ]
    assert (it.main, it.threads) == ("show", [])
    assert it.dynamic_settings == DynamicSettingsMetadata(True, "W/INPUT_SETTINGS", f"{HERE}.Gain")


def test_a_unit_with_nothing_is_described() -> None:
    it = described(A=Bare()).components["A"]
    assert isinstance(it, UnitMetadata)
    assert (it.streams, it.tasks, it.main, it.threads) == ({}, [], None, [])
    assert it.dynamic_settings == DynamicSettingsMetadata(False, None, None)


def test_threads_are_sorted_names() -> None:
    with pytest.warns(DeprecationWarning, match="thread"):
        functions = {name: ez.thread(lambda self: None) for name in ("b", "a")}
    assert unit(**functions).threads == ["a", "b"]


def test_the_main_function_goes_by_the_name_of_its_attribute() -> None:
    assert unit(run=ez.main(lambda self: None)).main == "run"


def test_a_collection_is_described_as_configured() -> None:
    it = described(SYS=System(gain=1)).components["SYS"]
    assert isinstance(it, CollectionMetadata)
    assert it.topics == {
        "TOPIC": TopicMetadata("TOPIC", "SYS/TOPIC", "builtins.int"),
        "TOPIC_IN": InputTopicMetadata("TOPIC_IN", "SYS/TOPIC_IN", "builtins.int"),
        "TOPIC_OUT": OutputTopicMetadata("TOPIC_OUT", "SYS/TOPIC_OUT", "builtins.float"),
    }
    assert {name: type(topic) for name, topic in it.topics.items()} == {
        "TOPIC": TopicMetadata,
        "TOPIC_IN": InputTopicMetadata,
        "TOPIC_OUT": OutputTopicMetadata,
    }
    assert it.relays == {
        "RELAY_IN": InputRelayMetadata("RELAY_IN", "SYS/RELAY_IN", "builtins.int", True, 4, True),
        "RELAY_OUT": OutputRelayMetadata("RELAY_OUT", "SYS/RELAY_OUT", "builtins.int", None, None, 3, 65536, False),
    }
    assert it.children == ["SYS/BARE", "SYS/WORKER", "SYS/__relay_in_RELAY_IN", "SYS/__relay_out_RELAY_OUT"]
    assert it.initial_settings[1] == {"gain": 1, "on_change": None}


def test_hidden_units_have_the_settings_of_their_endpoints() -> None:
    it = described(SYS=System()).components["SYS/__relay_in_RELAY_IN"]
    values = it.initial_settings[1]
    assert isinstance(values, dict)
    assert (values["leaky"], values["max_queue"], values["copy_on_forward"]) == (True, 4, True)


def test_deprecated_streams_of_a_collection_are_topics_and_take_settings() -> None:
    with pytest.warns(FutureWarning, match="deprecated"):

        class Old(ez.Collection):
            INPUT_SETTINGS = ez.InputStream(Gain)
            OUTPUT = ez.OutputStream(int)
            A = Bare()

    it = described(SYS=Old()).components["SYS"]
    assert isinstance(it, CollectionMetadata)
    assert {name: type(topic) for name, topic in it.topics.items()} == {
        "INPUT_SETTINGS": InputTopicMetadata,
        "OUTPUT": OutputTopicMetadata,
    }
    assert it.dynamic_settings == DynamicSettingsMetadata(True, "SYS/INPUT_SETTINGS", f"{HERE}.Gain")


@pytest.mark.parametrize("stream", [ez.OutputStream(int)])
def test_only_an_input_stream_takes_settings(stream: Any) -> None:
    assert unit(INPUT_SETTINGS=stream).dynamic_settings == DynamicSettingsMetadata(False, None, None)


def test_settings_are_pickled_and_readable() -> None:
    serialized, readable = described(W=Worker(3)).components["W"].initial_settings
    assert serialized is not None
    assert pickle.loads(serialized) == Gain(3)
    assert readable == {"gain": 3, "on_change": None}


def test_settings_that_cannot_be_pickled_are_readable_all_the_same() -> None:
    settings = Gain(3, on_change=lambda: None)
    serialized, readable = described(W=Worker(settings)).components["W"].initial_settings
    assert serialized is None
    assert isinstance(readable, dict)
    assert readable["gain"] == 3


def test_the_schema_is_that_of_the_value_else_that_of_the_type() -> None:
    class Better(Gain):
        more: int = 1

    by_value = described(W=Worker(Better(1))).components["W"]
    by_type = described(W=Worker()).components["W"]
    assert by_value.settings_schema is not None
    assert [row.name for row in by_value.settings_schema.fields] == ["gain", "on_change", "more"]
    assert by_value.settings_type == f"{HERE}.Gain"
    assert by_type.settings_schema is not None
    assert [row.name for row in by_type.settings_schema.fields] == ["gain", "on_change"]
    assert by_type.initial_settings[1] == "None"


def test_settings_nothing_is_known_of_have_no_schema() -> None:
    it = unit(SETTINGS=dict)
    assert it.settings_schema is None
    assert it.settings_type == "builtins.dict"


def test_a_bare_component_is_described() -> None:
    component = ez.Component()
    it = described(X=component, A=Bare()).components["X"]
    assert type(it) is ComponentMetadata


async def test_a_server_takes_it_and_gives_it_back(context: GraphContext) -> None:
    metadata = described("ROOT", SYS=System(), W=Worker(3))
    await context.register_metadata(metadata)
    snapshot = await context.snapshot()
    (session,) = snapshot.sessions.values()
    assert session.metadata == metadata
    assert await context.settings_input_topic("ROOT/W") == "ROOT/W/INPUT_SETTINGS"
    values = await context.settings_snapshot()
    assert list(values) == list(metadata.components)
    assert values["ROOT/SYS/WORKER"].structured_value == {"gain": 7, "on_change": None}
