"""Units made of generator functions."""

from __future__ import annotations

import dataclasses
import inspect
import logging
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

import ezmsg.core as ez
from ezmsg.util.gen_to_unit import gen_to_unit
from ezmsg.util.generator import consumer
from ezmsg.util.messages.axisarray import AxisArray
from tests.util.conftest import Run


@dataclasses.dataclass
class Reading:
    value: float
    gain: float = 1.0


@consumer
def scaled(gain: float = 2.0, offset: float = 1.0) -> Generator[float | None, Reading, None]:
    result = None
    while True:
        reading = yield result
        result = reading.value * gain + offset


def plain(count: int, untyped=None) -> Generator[int, int, None]:  # type: ignore[no-untyped-def]
    """Not primed; ends after so many."""
    result = -1
    for _ in range(count + 1):
        result = yield result


def source(count: int = 3) -> Generator[AxisArray, None, None]:
    for number in range(count):
        yield AxisArray(np.array([number]), ["time"])


def sink(seen: Any = None) -> Generator[None, AxisArray, None]:
    while True:
        message = yield
        SEEN.append(message.data.item())
        if len(SEEN) == 3:
            raise ez.NormalTermination


SEEN: list[int] = []


def test_parameters_become_settings_and_messages_streams() -> None:
    settings, unit = gen_to_unit(scaled, output_stream_kwargs={"num_buffers": 4})
    assert (settings.__name__, unit.__name__) == ("ScaledSettings", "ScaledUnit")
    assert issubclass(settings, ez.Settings)
    assert settings(gain=3.0) == settings(3.0, 1.0)
    assert unit.__settings_type__ is settings
    assert unit.INPUT.msg_type is Reading
    assert unit.OUTPUT.num_buffers == 4


def test_parameters_need_no_annotation() -> None:
    settings, _ = gen_to_unit(plain)
    fields = {field.name: field.type for field in dataclasses.fields(settings)}
    assert fields == {"count": int, "untyped": inspect.Parameter.empty}
    assert settings(count=1).untyped is None


def test_streams_of_signals_are_called_so_and_none_has_no_stream() -> None:
    _, one = gen_to_unit(source)
    _, other = gen_to_unit(sink)
    assert set(one.__streams__) == {"OUTPUT_SIGNAL"}
    assert set(other.__streams__) == {"INPUT_SIGNAL"}


async def test_the_unit_publishes_what_the_generator_yields(run: Run) -> None:
    settings, unit = gen_to_unit(scaled)
    async with run(unit(settings(gain=3.0))) as rig:
        await rig.send("INPUT", Reading(1.0), Reading(2.0))
        assert await rig.receive("OUTPUT", 2) == [4.0, 7.0]


async def test_a_parameter_that_comes_with_messages_makes_the_generator_anew(run: Run) -> None:
    _, unit = gen_to_unit(scaled, msg_to_state={"gain": "gain"})
    async with run(unit()) as rig:
        await rig.send("INPUT", Reading(1.0, gain=2.0), Reading(1.0, gain=5.0), Reading(2.0, gain=5.0))
        assert await rig.receive("OUTPUT", 3) == [3.0, 6.0, 11.0]


def test_a_source_runs_to_its_end() -> None:
    SEEN.clear()
    _, source_unit = gen_to_unit(source, sleep_time=0.001)
    _, sink_unit = gen_to_unit(sink)
    one, other = source_unit(count=3), sink_unit()
    ez.run(ONE=one, OTHER=other, connections=[(one.OUTPUT_SIGNAL, other.INPUT_SIGNAL)])
    assert SEEN == [0, 1, 2]


def test_the_unit_ends_when_its_generator_does() -> None:
    _, source_unit = gen_to_unit(numbers)
    _, unit = gen_to_unit(plain)
    one, other = source_unit(), unit(count=2)
    ez.run(ONE=one, OTHER=other, connections=[(one.OUTPUT, other.INPUT)])


def numbers() -> Generator[int, None, None]:
    yield from range(5)


def test_a_function_must_say_that_it_returns_a_generator() -> None:
    def silent():  # type: ignore[no-untyped-def]
        yield

    with pytest.raises(ValueError, match=r"Generator\["):
        gen_to_unit(silent)
    with pytest.raises(ValueError, match="parameters of scaled: gain, offset"):
        gen_to_unit(scaled, msg_to_state={"value": "colour"})


def test_a_pause_for_a_unit_that_receives_is_ignored_aloud(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ezmsg"):
        gen_to_unit(scaled, sleep_time=0.5)
    assert "sleep_time=0.5 is ignored" in caplog.text
