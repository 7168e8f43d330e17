"""Signals: parts, other shapes and joining, compared with xarray."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import array_api_strict
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from ezmsg.util.messages import axisarray
from ezmsg.util.messages.axisarray import AxisArray, CoordinateAxis, LinearAxis, replace
from tests.util.messages.signals import selections, signal, signals

FEW = settings(max_examples=30)


@dataclasses.dataclass(eq=False)
class Recording(AxisArray):
    subject: str = ""


def test_a_signal_needs_a_name_for_each_dimension() -> None:
    with pytest.raises(ValueError, match="dims must be same length"):
        AxisArray(np.zeros((2, 3)), dims=["time"])
    with pytest.raises(ValueError, match="repeated dim names"):
        AxisArray(np.zeros((2, 3)), dims=["time", "time"])
    assert AxisArray(np.array(1.0), dims=[]).shape == ()


@pytest.mark.parametrize(
    "change",
    [
        {"data": np.ones((4, 3))},
        {"dims": ["time", "channel"]},
        {"key": "emg"},
        {"attrs": {"device": "other"}},
        {"attrs": {"device": np.arange(2)}},
        {"axes": {}},
        {"axes": {**signal().axes, "time": LinearAxis()}},
    ],
)
def test_signals_are_equal_when_all_of_them_is(change: dict[str, Any]) -> None:
    assert signal() == signal()
    assert signal() != replace(signal(), **change)


def test_a_signal_equals_only_one_of_its_class() -> None:
    one = Recording(**vars(signal()), subject="S1")
    assert one == replace(one)
    assert one != replace(one, subject="S2")
    assert one != signal()
    assert AxisArray.__eq__(signal(), one) is NotImplemented
    assert signal() != 1
    with pytest.raises(TypeError, match="unhashable"):
        hash(signal())


@FEW
@given(signals())
def test_a_pickled_signal_is_the_same(message: AxisArray) -> None:
    assert pickle.loads(pickle.dumps(message)) == message


# -- dimensions and axes ----------------------------------------------------------------------------------------------


def test_dimensions_are_found_by_name_and_number() -> None:
    message = signal()
    assert message.shape == (4, 3)
    assert message.get_axis_name(1) == "ch"
    assert message.get_axis_idx("ch") == message.axis_idx("ch") == message.axis_idx(1) == 1
    for find in (message.get_axis_idx, message.axis_idx, message.get_axis, message.ax):
        with pytest.raises(ValueError, match="dim='freq' not present in object"):
            find("freq")


def test_a_dimension_without_an_axis_counts_elements() -> None:
    message = replace(signal(), axes={})
    assert message.get_axis("ch") == LinearAxis()
    assert message.ax("ch").values.tolist() == [0.0, 1.0, 2.0]


@FEW
@given(signals())
def test_an_axis_lies_where_xarray_says(message: AxisArray) -> None:
    coordinates = message.to_xr_dataarray().coords
    for number, dim in enumerate(message.dims):
        found = message.ax(dim)
        assert (found.idx, len(found)) == (number, message.shape[number])
        assert found.indices.tolist() == list(range(message.shape[number]))
        if dim in coordinates:
            assert np.array_equal(found.values, coordinates[dim])


def test_only_coordinates_know_their_size() -> None:
    with pytest.raises(ValueError, match="must define size"):
        AxisArray.AxisInfo(LinearAxis(), 0)
    with pytest.raises(ValueError, match="must not define size"):
        AxisArray.AxisInfo(CoordinateAxis(np.arange(3), ["a"]), 0, 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        signal().ax("time").idx = 1  # type: ignore[misc]


def test_xarray_gets_names_units_and_attributes() -> None:
    array = signal().to_xr_dataarray()
    assert array.name == "eeg"
    assert array.attrs == {"device": "amplifier"}
    assert array.coords["time"].attrs == {"units": "s"}
    assert array.sel(ch="C1", time=1.1).item() == 4.0
    message = signal()
    assert np.shares_memory(message.to_xr_dataarray().values, message.data)


# -- parts ------------------------------------------------------------------------------------------------------------


@FEW
@given(st.data(), signals())
def test_a_part_by_indices_is_what_xarray_selects(data: st.DataObject, message: AxisArray) -> None:
    dims = data.draw(st.lists(st.sampled_from(message.dims), unique=True))
    indexers = {dim: data.draw(selections(message.shape[message.dims.index(dim)])) for dim in dims}
    part = message.isel(indexers)
    # xarray drops the dimension where we keep it.
    kept = {dim: [index] if isinstance(index, (int, np.integer)) else index for dim, index in indexers.items()}
    expected = message.to_xr_dataarray().isel({dim: _plain(index) for dim, index in kept.items()})
    assert part.dims == list(expected.dims)
    assert np.array_equal(part.data, expected.values)
    assert not np.shares_memory(part.data, message.data)
    for name, axis in part.axes.items():
        places = axis.data if isinstance(axis, CoordinateAxis) else part.ax(name).values
        if isinstance(axis, CoordinateAxis) or _is_even(kept.get(name, slice(None)), message, name):
            assert np.array_equal(places, expected.coords[name])
        elif len(places):
            assert places[0] == expected.coords[name][0]


def _plain(index: Any) -> Any:
    return index if isinstance(index, (slice, np.ndarray)) else np.array(index, dtype=int)


def _is_even(index: Any, message: AxisArray, dim: str) -> bool:
    taken = np.arange(message.shape[message.dims.index(dim)])[_plain(index)]
    return len(set(np.diff(taken).tolist())) <= 1


@pytest.mark.parametrize("index", [4, -5, [0, 4], np.array([-5]), np.array([True])])
def test_an_index_out_of_range_is_refused(index: Any) -> None:
    with pytest.raises(IndexError, match="dimension of 4"):
        signal().isel(time=index)


@pytest.mark.parametrize("index", ["a", 1.5, True, np.zeros((2, 2), int), np.zeros(2)])
def test_what_is_no_index_is_refused(index: Any) -> None:
    with pytest.raises(ValueError, match="isel only accepts"):
        signal().isel(time=index)


def test_parts_are_named_in_one_way() -> None:
    assert signal().isel({"time": 1}) == signal().isel(time=1)
    with pytest.raises(ValueError, match="not both"):
        signal().isel({"time": 1}, ch=1)
    with pytest.raises(ValueError, match="dim='freq' not present"):
        signal().isel(freq=1)


@FEW
@given(
    st.integers(1, 20),
    st.sampled_from((0.25, 1.0, 8.0)),
    st.one_of(st.none(), st.floats(-10, 30)),
    st.one_of(st.none(), st.floats(-10, 30)),
)
def test_a_part_by_places_begins_and_ends_at_the_nearest(size: int, gain: float, first: Any, last: Any) -> None:
    message = AxisArray(np.arange(float(size)), ["time"], {"time": LinearAxis("s", gain, 2.0)})
    start = 0 if first is None else int(np.rint((first - 2.0) / gain))
    stop = size if last is None else int(np.rint((last - 2.0) / gain))
    expected = [number for number in range(size) if start <= number < stop]
    part = message.sel(time=slice(first, last))
    assert part.data.tolist() == expected
    if expected:
        assert part.ax("time").values.tolist() == message.ax("time").values[expected].tolist()


def test_a_part_by_places_may_skip_some() -> None:
    part = AxisArray(np.arange(10.0), ["time"], {"time": LinearAxis("s", 0.5, 1.0)}).sel(time=slice(2.0, 4.0, 1.0))
    assert part.data.tolist() == [2.0, 4.0]
    assert part.axes["time"] == LinearAxis("s", 1.0, 2.0)


def test_parts_by_places_are_slices_of_linear_axes() -> None:
    with pytest.raises(ValueError, match="only supports slices"):
        signal().sel(time=1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="only supports LinearAxis"):
        signal().sel(ch=slice("C0", "C1"))
    with pytest.raises(ValueError, match="not present"):
        signal().sel(freq=slice(0, 1))


@FEW
@given(st.data(), signals())
def test_iterating_over_a_dimension_gives_views_without_it(data: st.DataObject, message: AxisArray) -> None:
    dim = data.draw(st.sampled_from(message.dims))
    by = data.draw(st.sampled_from((dim, message.dims.index(dim), message.dims.index(dim) - len(message.dims))))
    array = message.to_xr_dataarray()
    parts = list(message.iter_over_axis(by))
    assert len(parts) == message.shape[message.dims.index(dim)]
    for number, part in enumerate(parts):
        expected = array.isel({dim: number})
        assert np.array_equal(part.data, expected.values)
        assert np.shares_memory(part.data, message.data)
        assert part.dims == list(expected.dims)
        assert part.axes.keys() == message.axes.keys() - {dim} - {
            name for name, axis in message.axes.items() if getattr(axis, "dims", None) == [dim]
        }
        for name, axis in part.axes.items():
            if isinstance(axis, CoordinateAxis):
                assert np.array_equal(axis.data, expected.coords[name])


# -- other shapes -----------------------------------------------------------------------------------------------------


@FEW
@given(st.data(), signals())
def test_transposed_signals_are_as_xarray_transposes(data: st.DataObject, message: AxisArray) -> None:
    order = data.draw(st.permutations(message.dims))
    array = message.to_xr_dataarray().transpose(*order)
    for dims in (order, [message.dims.index(dim) for dim in order]):
        swapped = AxisArray.transpose(message, dims)
        assert swapped.dims == list(array.dims)
        assert np.array_equal(swapped.data, array.values)
        assert np.shares_memory(swapped.data, message.data)
    assert np.array_equal(AxisArray.transpose(message).data, message.data.T)


@pytest.mark.parametrize("dims", [["time"], ["time", "time"], [0, 2], [0, 1, 0]])
def test_only_all_dimensions_can_be_transposed(dims: Any) -> None:
    with pytest.raises((ValueError, IndexError)):
        AxisArray.transpose(signal(), dims)


@FEW
@given(st.data(), signals())
def test_a_signal_in_two_dimensions_can_be_written_to(data: st.DataObject, message: AxisArray) -> None:
    dim = data.draw(st.sampled_from(message.dims))
    before = message.data.copy()
    assert message.as2d(dim).shape == message.shape2d(dim)
    with message.view2d(dim) as view:
        assert np.array_equal(view, message.as2d(dim))
        view += 1
    assert np.array_equal(message.data, before + 1)


@FEW
@given(st.data(), signals())
def test_the_parts_of_a_signal_join_to_what_it_was(data: st.DataObject, message: AxisArray) -> None:
    dim = data.draw(st.sampled_from(message.dims))
    size = message.shape[message.dims.index(dim)]
    cut = data.draw(st.integers(0, size))
    parts = [message.isel({dim: slice(None, cut)}), message.isel({dim: slice(cut, None)})]
    assert AxisArray.concatenate(*parts, dim=dim) == message


@FEW
@given(signals(max_dims=3))
def test_signals_can_be_joined_along_a_new_dimension(message: AxisArray) -> None:
    axis = CoordinateAxis(np.array(["a", "b"]), ["new"])
    joined = AxisArray.concatenate(message, replace(message, key="other"), dim="new", axis=axis)
    assert joined.dims == ["new", *message.dims]
    assert joined.axes == {**message.axes, "new": axis}
    assert joined.key == ""
    assert [replace(part, key="key") for part in joined.iter_over_axis("new")] == [message, message]


def test_joining_can_choose_by_key_and_take_an_axis() -> None:
    one, other = signal(key="eeg"), signal(key="emg")
    assert AxisArray.concatenate(one, other, dim="time", filter_key="emg") == other
    joined = AxisArray.concatenate(one, other, dim="time", axis=LinearAxis(gain=3.0))
    assert joined.axes["time"] == LinearAxis(gain=3.0)
    assert joined.shape == (8, 3)


def test_what_does_not_go_together_is_not_joined() -> None:
    with pytest.raises(ValueError, match="incompatible dims"):
        AxisArray.concatenate(signal(), AxisArray.transpose(signal()), dim="time")
    with pytest.raises(ValueError, match="nothing to concatenate"):
        AxisArray.concatenate(signal(), dim="time", filter_key="none")
    with pytest.raises(ValueError, match="only some objects have a CoordinateAxis 'ch'"):
        AxisArray.concatenate(signal(), replace(signal(), axes={}), dim="ch")


def test_parts_and_other_shapes_stay_of_their_class() -> None:
    message = Recording(**vars(signal()), subject="S1")
    for changed in (
        message.isel(time=0),
        next(message.iter_over_axis("time")),
        AxisArray.transpose(message),
        AxisArray.concatenate(message, message, dim="time"),
    ):
        assert isinstance(changed, Recording)
        assert changed.subject == "S1"


def test_arrays_of_any_library_of_the_array_api_will_do() -> None:
    data = array_api_strict.reshape(array_api_strict.arange(6.0), (2, 3))
    message = replace(signal((2, 3)), data=data)
    assert message == replace(message, data=array_api_strict.asarray(data, copy=True))
    parts = [message.isel(time=0), message.isel(time=np.array([1]))]
    assert AxisArray.concatenate(*parts, dim="time") == message
    assert AxisArray.concatenate(message, message, dim="new").shape == (2, 2, 3)
    assert AxisArray.transpose(message).shape == (3, 2)
    assert [part.shape for part in message.iter_over_axis("ch")] == [(2,)] * 3
    assert isinstance(message.to_xr_dataarray(), xr.DataArray)


def test_names_that_programs_look_for_are_there() -> None:
    for name in ("slice_along_axis", "sliding_win_oneaxis", "as2d", "view2d", "shape2d", "replace"):
        assert callable(getattr(axisarray, name))
    windows = axisarray._sliding_win_generic(np.arange(7), 3, 0, 2, xp=np)
    assert windows.tolist() == [[0, 1, 2], [2, 3, 4], [4, 5, 6]]
    assert AxisArray.LinearAxis is LinearAxis
    assert AxisArray.CoordinateAxis is CoordinateAxis
