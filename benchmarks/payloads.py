"""The messages that are sent. Importable by name in every process, so that a dataclass can be pickled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

MEGABYTE = 1 << 20


@dataclass
class Sample:
    """A small record around an array, as units pass them on."""

    data: np.ndarray
    """(channel,) float64"""
    index: int
    flags: int


CHANNELS = 4


def ndarray(nbytes: int) -> np.ndarray:
    # Written to: pages of np.zeros would all be the one page of zeros, and cost nothing to read.
    return np.arange(nbytes // 8, dtype=np.float64)


def sample(nbytes: int) -> Sample:
    return Sample(ndarray(nbytes), index=1, flags=2)


def axisarray(nbytes: int) -> Any:
    """A chunk of a signal with what it takes to read it, as most units of a pipeline pass it on."""
    # Here: not every package that is measured brings it along.
    from ezmsg.util.messages.axisarray import AxisArray

    return AxisArray(
        ndarray(nbytes).reshape(-1, CHANNELS),  # (time, ch)
        dims=["time", "ch"],
        axes={
            "time": AxisArray.TimeAxis(fs=1000.0, offset=12.5),
            "ch": AxisArray.CoordinateAxis(data=np.array(["C3", "C4", "Cz", "Fz"]), dims=["ch"]),
        },
        attrs={"device": "amplifier", "rate_hz": 1000.0},
        key="eeg",
    )


@dataclass(frozen=True, slots=True)
class Payload:
    make: Callable[[int], Any]
    nbytes: int
    """Of the array in it."""
    probe: Callable[[Any], Any]
    """What a receiver does with each message: it reads the last number, wherever it was put, or all of them."""


def _last_of_array(message: Any) -> Any:
    return message[-1]


def _last_of_sample(message: Any) -> Any:
    return message.data[-1]


def _last_of_axisarray(message: Any) -> Any:
    return message.data[-1, -1]


def _sum_of_array(message: Any) -> Any:
    return message.sum()


PAYLOADS = {
    "ndarray-64B": Payload(ndarray, 64, _last_of_array),
    "dataclass-64B": Payload(sample, 64, _last_of_sample),
    "ndarray-1MB": Payload(ndarray, MEGABYTE, _last_of_array),
    "ndarray-8MB": Payload(ndarray, 8 * MEGABYTE, _last_of_array),
    "axisarray-64B": Payload(axisarray, 64, _last_of_axisarray),
    "axisarray-1MB": Payload(axisarray, MEGABYTE, _last_of_axisarray),
    "ndarray-1MB-summed": Payload(ndarray, MEGABYTE, _sum_of_array),
}


def make(name: str) -> Any:
    payload = PAYLOADS[name]
    return payload.make(payload.nbytes)


def nbytes(name: str) -> int:
    return PAYLOADS[name].nbytes


def probe(name: str) -> Callable[[Any], Any]:
    return PAYLOADS[name].probe


def is_intact(message: Any, expected: Any) -> bool:
    """Whether a message arrived as it was sent."""
    if isinstance(expected, np.ndarray):
        return (
            isinstance(message, np.ndarray)
            and message.dtype == expected.dtype
            and bool(np.array_equal(message, expected))
        )
    # A dataclass around an array.
    return (
        type(message) is type(expected)
        and is_intact(message.data, expected.data)
        and vars(message) | {"data": None} == vars(expected) | {"data": None}
    )
