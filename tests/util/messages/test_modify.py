"""Other names for dimensions."""

from __future__ import annotations

import numpy as np
import pytest

from ezmsg.util.messages.axisarray import AxisArray, CoordinateAxis, LinearAxis
from ezmsg.util.messages.modify import ModifyAxis, ModifyAxisSettings, ModifyAxisTransformer, modify_axis
from tests.util.conftest import Run
from tests.util.messages.signals import signal


def test_dimensions_are_renamed_with_their_axes() -> None:
    renamed = modify_axis({"time": "t", "ch": "sensor"})(signal())
    assert renamed.dims == ["t", "sensor"]
    assert renamed.axes["t"] == AxisArray.TimeAxis(10.0, 1.0)
    assert renamed.axes["sensor"] == CoordinateAxis(data=np.array(["C0", "C1", "C2"]), dims=["sensor"])
    assert renamed.isel(sensor=0).axes["sensor"].value(0) == "C0"


def test_two_names_can_be_swapped_but_not_become_one() -> None:
    assert modify_axis({"time": "ch", "ch": "time"})(signal()).dims == ["ch", "time"]
    with pytest.raises(ValueError, match="repeated dim names"):
        modify_axis({"time": "ch"})(signal())


def test_dimensions_of_size_1_can_be_dropped() -> None:
    place = CoordinateAxis(data=np.arange(3).reshape(1, 3), dims=["time", "ch"])
    message = AxisArray(np.zeros((1, 3)), ["time", "ch"], {"time": LinearAxis(), "place": place})
    dropped = modify_axis({"time": None})(message)
    assert (dropped.shape, dropped.dims) == ((3,), ["ch"])
    assert dropped.axes == {"place": CoordinateAxis(data=np.arange(3), dims=["ch"])}
    with pytest.raises(ValueError, match="'ch', whose size is 3"):
        modify_axis({"ch": None})(message)


@pytest.mark.parametrize("names", [None, {}, {"freq": "f"}, {"freq": None}, {"time": "time"}])
def test_a_message_with_nothing_to_change_is_returned_as_it_is(names: dict[str, str | None] | None) -> None:
    message = signal()
    assert modify_axis(names)(message) is message


def test_sending_instead_of_calling_still_works_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match=r"send\(\) is deprecated"):
        assert ModifyAxisTransformer().send(signal()) == signal()


async def test_the_unit_renames_as_it_was_told_last(run: Run) -> None:
    async with run(ModifyAxis(name_map={"time": "t"})) as rig:
        await rig.send("INPUT_SIGNAL", signal())
        await rig.send("INPUT_SETTINGS", ModifyAxisSettings(name_map={"time": "s"}))
        await rig.send("INPUT_SIGNAL", signal())
        assert [message.dims[0] for message in await rig.receive("OUTPUT_SIGNAL", 2)] == ["t", "s"]
