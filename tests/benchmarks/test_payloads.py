"""Whether a receiver notices that a message is not what was sent."""

import pickle
from typing import Any

import numpy as np
import pytest

from benchmarks.payloads import PAYLOADS, Sample, is_intact, make, probe
from ezmsg.util.messages.axisarray import AxisArray


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_pickled_message_is_intact_and_can_be_read(name: str) -> None:
    message = make(name)
    copy = pickle.loads(pickle.dumps(message, protocol=5))
    assert is_intact(copy, message)
    assert probe(name)(copy) == probe(name)(message)


@pytest.mark.parametrize("name", ["axisarray-64B", "axisarray-1MB"])
def test_an_axisarray_has_as_much_data_as_its_name_says(name: str) -> None:
    message = make(name)
    assert isinstance(message, AxisArray)
    assert message.data.nbytes == PAYLOADS[name].nbytes
    assert message.data.ndim == len(message.dims) == len(message.axes)


@pytest.mark.parametrize("change", [{"key": "other"}, {"axes": {}}, {"data": np.zeros((2, 4))}])
def test_a_changed_axisarray_is_not_intact(change: dict[str, Any]) -> None:
    message = make("axisarray-64B")
    assert not is_intact(AxisArray(**vars(message) | change), message)


@pytest.mark.parametrize("message", [None, make("ndarray-64B"), Sample(make("ndarray-64B"), 1, 3)])
def test_something_else_is_not_the_message(message: Any) -> None:
    assert not is_intact(message, make("dataclass-64B"))
