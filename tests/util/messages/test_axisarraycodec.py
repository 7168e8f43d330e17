"""An AxisArray arrives in another process as it was sent, without pickle where it is plain."""

from __future__ import annotations

import collections
import dataclasses
import math
import subprocess
import sys
from typing import Any

import array_api_strict
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ezmsg.core as ez
from ezmsg.core.compositecodec import constant_of
from ezmsg.core.messagemarshal import COMPOSITE, INLINE_BYTES, Encoder
from ezmsg.core.transport import Source
from ezmsg.util.messages.axisarray import AxisArray, CoordinateAxis, LinearAxis, replace
from tests.core.test_compositecodec import arrived
from tests.util.messages.signals import signal, signals

FEW = settings(max_examples=50)


@dataclasses.dataclass(eq=False)
class Recording(AxisArray):
    subject: str = ""


class Text(str):
    pass


class Line:
    """One publisher and one receiver."""

    def __init__(self) -> None:
        self._encoder, self._source = Encoder(), Source()
        self.codec = -1

    def carry(self, message: Any) -> Any:
        """A message as it arrives; `codec` tells how it went."""
        encoded = self._encoder.encode(message)
        self.codec = encoded.codec
        return arrived(encoded, self._source).decode()


def assert_same(one: Any, other: Any) -> None:
    """Equal, and of the same types all the way down."""
    assert type(one) is type(other)
    if isinstance(one, float) and math.isnan(one):
        assert math.isnan(other)
    elif isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.tobytes() == other.tobytes() or one.tolist() == other.tolist()
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_same(value, other[key])
    elif dataclasses.is_dataclass(one):
        assert_same(vars(one), vars(other))
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for item, same in zip(one, other, strict=True):
            assert_same(item, same)
    else:
        assert one == other
        assert repr(one) == repr(other)


ATTRIBUTES = st.dictionaries(
    st.text(max_size=3),
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=3), st.binary(max_size=3)
    ),
    max_size=3,
)
NUMBERS = st.one_of(st.floats(), st.integers(-(2**60), 2**60), st.floats().map(np.float64))


@FEW
@given(st.lists(st.tuples(signals(), ATTRIBUTES, NUMBERS, NUMBERS, st.text(max_size=3)), min_size=1, max_size=4))
def test_signals_arrive_as_they_were_sent(sent: list[Any]) -> None:
    line = Line()
    for message, attrs, gain, offset, key in sent:
        axes = {**message.axes, message.dims[0]: LinearAxis(gain=gain, offset=offset)}
        message = replace(message, axes=axes, attrs=attrs, key=key)
        for _ in range(2):
            assert_same(line.carry(message), message)


@pytest.mark.parametrize("shape", [(2, 3), (INLINE_BYTES, 3)])
def test_plain_signals_go_without_pickle(shape: tuple[int, ...]) -> None:
    line = Line()
    message = signal(shape)
    message.axes["ch"] = CoordinateAxis(np.array(["a", "b", "c"]), ["ch"])
    assert_same(line.carry(message), message)
    assert line.codec == COMPOSITE


def test_the_names_of_hundreds_of_channels_go_without_pickle() -> None:
    line = Line()
    message = signal((2, 500))
    message.axes["ch"] = CoordinateAxis(np.array([f"electrode {n}" for n in range(500)], dtype="U8"), ["ch"])
    assert_same(line.carry(message), message)
    assert line.codec == COMPOSITE


def test_an_attribute_that_is_another_float_in_each_message_is_not_among_what_is_constant() -> None:
    encoder = Encoder()
    heads = [encoder.encode(replace(signal(), attrs={"a": 1, "sent": n / 3})).head for n in range(3)]
    assert len({constant_of(head, 0) for head in heads}) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"attrs": {"trial": 1}},
        {"attrs": {"trial": True}},
        {"attrs": {"trial": 1.0}},
        {"attrs": {"trial": math.nan}},
        {"attrs": {"trial": -0.0}},
        {"attrs": {"sent": 0.5, "trial": 2, "due": 1.5}},
        {"key": "emg"},
        {"dims": ["t", "ch"]},
        {"axes": {}},
        {"axes": {"time": LinearAxis("ms", 0.5)}},
        {"axes": {"time": LinearAxis(gain=1, offset=2)}},
        {"axes": {"time": LinearAxis(gain=np.float64(1.0))}},
        {"axes": {"time": LinearAxis(gain=math.inf, offset=-0.0)}},
        {"axes": {"ch": CoordinateAxis(np.arange(3), ["ch"])}},
        {"axes": {"ch": CoordinateAxis(np.arange(3.0), ["ch"])}},
        {"axes": {"ch": CoordinateAxis(np.arange(12).reshape(3, 4), ["ch", "time"], unit="mm")}},
        {"data": np.zeros((4, 3), np.float32)},
        {"data": np.asfortranarray(np.ones((4, 3)))},
        {"data": np.arange(24.0).reshape(4, 6)[:, ::2]},
        {"data": np.zeros((0, 3))},
    ],
)
def test_what_changes_from_one_message_to_the_next_arrives(change: dict[str, Any]) -> None:
    line = Line()
    message = signal()
    for sent in (message, replace(message, **change), message, replace(message, **change)):
        assert_same(line.carry(sent), sent)
        assert line.codec == COMPOSITE


def test_what_is_changed_in_place_arrives() -> None:
    line = Line()
    message = signal()
    line.carry(message)
    message.axes["ch"].data[0] = "X9"  # type: ignore[attr-defined]
    message.axes["time"].offset += 1.0  # type: ignore[attr-defined]
    message.attrs["trial"] = 2
    message.dims[1] = "sensor"
    assert_same(line.carry(message), message)
    assert line.codec == COMPOSITE


def test_what_a_receiver_does_to_one_message_is_not_in_the_next() -> None:
    line = Line()
    received = line.carry(signal())
    received.axes["ch"].data[:] = "?"
    received.axes["ch"].dims[0] = "?"
    received.axes["time"].offset = -1.0
    received.axes.clear()
    received.attrs.clear()
    received.dims[0] = "?"
    received.data[:] = -1.0
    assert_same(line.carry(signal()), signal())


UNUSUAL: dict[str, Any] = {
    "a subclass": Recording(np.zeros(3), ["time"], subject="S1"),
    "an array of objects": AxisArray(np.array([1, "a"], dtype=object), ["x"]),
    "a read-only array": AxisArray(np.frombuffer(bytes(24)), ["x"]),
    "dims in a tuple": AxisArray(np.zeros(3), ("x",)),  # type: ignore[arg-type]
    "a text of a class of its own": AxisArray(np.zeros(3), [Text("x")]),
    "an attribute that is a list": AxisArray(np.zeros(3), ["x"], attrs={"a": [1]}),
    "an attribute that is an array": AxisArray(np.zeros(3), ["x"], attrs={"a": np.zeros(2)}),
    "an attribute that is a number of numpy": AxisArray(np.zeros(3), ["x"], attrs={"a": np.float64(1.0)}),
    "an attribute whose name is no text": AxisArray(np.zeros(3), ["x"], attrs={1: 2}),  # type: ignore[dict-item]
    "an axis of a class of its own": AxisArray(np.zeros(3), ["x"], axes={"x": LinearAxis()}),
    "coordinates that are objects": AxisArray(np.zeros(1), ["x"], {"x": CoordinateAxis(np.array([None]), ["x"])}),
    "large coordinates": AxisArray(np.zeros(3000), ["x"], {"x": CoordinateAxis(np.zeros(3000), ["x"])}),
    "a gain of single precision": AxisArray(np.zeros(3), ["x"], {"x": LinearAxis(gain=np.float32(0.1))}),  # type: ignore[arg-type]
    "a gain that is no number": AxisArray(np.zeros(3), ["x"], {"x": LinearAxis(gain="1")}),  # type: ignore[arg-type]
    "coordinates with dims in a tuple": AxisArray(np.zeros(1), ["x"], {"x": CoordinateAxis(np.zeros(1), ("x",))}),  # type: ignore[arg-type]
    "a unit that is no text": AxisArray(np.zeros(3), ["x"], {"x": LinearAxis(unit=["s"])}),  # type: ignore[arg-type]
    "axes of a class of its own": AxisArray(np.zeros(3), ["x"], collections.OrderedDict(x=LinearAxis())),
    "a huge attribute": AxisArray(np.zeros(3), ["x"], attrs={"a": "x" * 70_000}),
    "attributes beside its fields": AxisArray(np.zeros(3), ["x"]),
}
UNUSUAL["an axis of a class of its own"].axes["x"].__dict__["more"] = 1
UNUSUAL["attributes beside its fields"].more = 1


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_not_plain_is_pickled(name: str) -> None:
    line = Line()
    line.carry(signal())
    assert_same(line.carry(UNUSUAL[name]), UNUSUAL[name])
    assert line.codec != COMPOSITE
    line.carry(signal())
    assert line.codec == COMPOSITE


def test_arrays_of_other_libraries_are_pickled() -> None:
    line = Line()
    message = AxisArray(array_api_strict.zeros(3), ["x"])  # type: ignore[arg-type]
    assert line.carry(message) == message
    assert line.codec != COMPOSITE


@pytest.mark.parametrize("options", [{"allow_local": False}, {"force_tcp": True, "allow_local": False}])
@pytest.mark.parametrize("shape", [(2, 3), (INLINE_BYTES, 3)])
async def test_signals_travel_through_sockets_and_shared_memory(
    context: ez.GraphContext, options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    subscriber = await context.subscriber("signals")
    publisher = await context.publisher("signals", **options)
    message = signal(shape)
    for _ in range(3):
        await publisher.broadcast(message)
        async with subscriber.recv_zero_copy() as received:
            assert_same(received, message)
        await publisher.broadcast(message)
        own = await subscriber.recv()
        own.data += 1
        own.axes["time"].offset += 1
        assert own.shape == shape


def test_a_receiver_that_has_not_imported_the_class_imports_it() -> None:
    encoded = Encoder().encode(signal())
    code = (
        "import sys\n"
        "from ezmsg.core.messagemarshal import decode\n"
        "assert not any('axisarray' in name for name in sys.modules)\n"
        f"message = decode({encoded.codec}, {encoded.head!r}, [{encoded.data!r}])\n"
        "print(type(message).__module__, message.dims, message.data.sum())"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "ezmsg.util.messages.axisarray ['time', 'ch'] 66.0"
