from __future__ import annotations

import pickle
from typing import Any

import pytest

import ezmsg.core as ez
from ezmsg.core.errors import NameClash
from ezmsg.core.relay import RelaySettings, RelayUnit, add_hidden_units, relay_settings, relays


class Child(ez.Unit):
    INPUT = ez.InputStream(list)


class Relayed(ez.Collection):
    IN = ez.InputRelay(list, leaky=True, max_queue=3)
    OUT = ez.OutputRelay(list, "127.0.0.1", 1234, 2, 100, True, copy_on_forward=False)
    TOPIC = ez.InputTopic(list)


def placed(collection: Any) -> Any:
    collection._set_name("SYS")
    collection._set_location(["ROOT"])
    return collection


async def forwarded(unit: RelayUnit, message: Any) -> Any:
    ((stream, copied),) = [pair async for pair in unit.forward(message)]
    assert stream is unit.OUTPUT
    return copied


def test_relays_are_those_of_the_streams() -> None:
    collection = Relayed()
    assert relays(collection) == {"IN": collection.IN, "OUT": collection.OUT}


def test_each_relay_gets_a_hidden_child_unit_with_its_place() -> None:
    collection = placed(Relayed())
    hidden = add_hidden_units(collection)
    assert list(collection.components) == ["__relay_in_IN", "__relay_out_OUT"]
    unit = hidden[collection.IN]
    assert collection.components["__relay_in_IN"] is unit
    assert unit.address == "ROOT/SYS/__relay_in_IN"
    assert [stream.address for stream in unit.streams.values()] == [f"{unit.address}/INPUT", f"{unit.address}/OUTPUT"]
    assert {stream.msg_type for stream in unit.streams.values()} == {list}


def test_children_in_any_mapping_get_company() -> None:
    collection = Relayed()
    collection._components = {"A": Child()}
    placed(collection)
    add_hidden_units(collection)
    assert list(collection.components) == ["A", "__relay_in_IN", "__relay_out_OUT"]


def test_a_child_of_the_same_name_is_a_clash() -> None:
    collection = Relayed()
    collection._components["__relay_in_IN"] = Child()
    placed(collection)
    with pytest.raises(ValueError, match="ROOT/SYS/__relay_in_IN: the relay IN needs that name") as caught:
        add_hidden_units(collection)
    assert isinstance(caught.value, NameClash)


def test_settings_are_what_the_endpoint_says_now() -> None:
    collection = Relayed()
    collection.OUT.num_buffers = 7
    collection.IN.copy_on_forward = False
    assert relay_settings(collection.IN) == RelaySettings(leaky=True, max_queue=3, copy_on_forward=False)
    assert relay_settings(collection.OUT) == RelaySettings(
        host="127.0.0.1", port=1234, num_buffers=7, buf_size=100, force_tcp=True, copy_on_forward=False
    )


async def test_streams_get_their_parameters_in_initialize() -> None:
    collection = placed(Relayed())
    units = add_hidden_units(collection)
    for endpoint, unit in units.items():
        unit.apply_settings(relay_settings(endpoint))
        await unit.setup()
    receiver, sender = units[collection.IN], units[collection.OUT]
    assert (receiver.INPUT.leaky, receiver.INPUT.max_queue) == (True, 3)
    assert (receiver.OUTPUT.num_buffers, receiver.OUTPUT.buf_size, receiver.OUTPUT.force_tcp) == (32, 65536, None)
    assert (sender.INPUT.leaky, sender.INPUT.max_queue) == (False, None)
    assert (sender.OUTPUT.host, sender.OUTPUT.port, sender.OUTPUT.num_buffers) == ("127.0.0.1", 1234, 2)
    assert (sender.OUTPUT.buf_size, sender.OUTPUT.force_tcp) == (100, True)


async def test_messages_are_deep_copied_unless_told_otherwise() -> None:
    collection = placed(Relayed())
    units = add_hidden_units(collection)
    for endpoint, unit in units.items():
        unit.apply_settings(relay_settings(endpoint))
    message = [[1], [2]]
    copied = await forwarded(units[collection.IN], message)
    assert copied == message
    assert copied[0] is not message[0]
    assert await forwarded(units[collection.OUT], message) is message


def test_hidden_units_survive_pickle() -> None:
    collection = placed(Relayed())
    unit = pickle.loads(pickle.dumps(add_hidden_units(collection)[collection.IN]))
    assert unit.address == "ROOT/SYS/__relay_in_IN"
    assert unit.INPUT is unit.streams["INPUT"]
    assert list(unit.tasks) == ["forward"]
