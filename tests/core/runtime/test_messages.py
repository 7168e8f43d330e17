"""Exceptions on their way to another process."""

from __future__ import annotations

import pickle
import threading

import pytest

from ezmsg.core.errors import BackendProcessFailed, UnitAlreadyOwned
from ezmsg.core.runtime.messages import Failure


class NeedsTwo(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__("odd")


def raised(error: BaseException) -> Failure:
    try:
        raise error
    except BaseException as caught:
        return pickle.loads(pickle.dumps(Failure.of(caught)))


@pytest.mark.parametrize("error", [ValueError("no", 3), UnitAlreadyOwned("OP", {"U": "p"}), SystemExit(7)])
def test_an_exception_arrives_as_it_was_with_its_traceback_in_a_note(error: BaseException) -> None:
    arrived = raised(error).error("process 1")

    assert (type(arrived), arrived.args) == (type(error), error.args)
    (note,) = arrived.__notes__
    assert note.startswith("raised in process 1:\nTraceback")
    assert "in raised" in note


@pytest.mark.parametrize("error", [NeedsTwo(1, 2), ValueError(threading.Lock())])
def test_one_that_cannot_travel_is_told_of(error: Exception) -> None:
    arrived = raised(error).error("process 1")

    assert isinstance(arrived, BackendProcessFailed)
    assert str(arrived) == f"{type(error).__name__} in process 1"
    assert "in raised" in arrived.__notes__[0]
