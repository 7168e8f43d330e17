from __future__ import annotations

from dataclasses import FrozenInstanceError, is_dataclass

import pytest

import ezmsg.core as ez


class Sample(ez.Message):
    value: int
    unit: str = "V"


def test_subclass_is_a_frozen_hashable_dataclass() -> None:
    message = Sample(1)
    assert message == Sample(1, "V")
    assert hash(message) == hash(Sample(1))
    with pytest.raises(FrozenInstanceError):
        message.value = 2  # type: ignore[misc]


def test_making_the_bare_message_warns() -> None:
    with pytest.warns(DeprecationWarning, match="Message is deprecated") as caught:
        ez.Message()
    assert caught[0].filename == __file__


def test_flag_is_an_empty_mutable_dataclass() -> None:
    flag = ez.Flag()
    assert is_dataclass(flag)
    assert flag == ez.Flag()
    flag.note = 1  # type: ignore[attr-defined]
