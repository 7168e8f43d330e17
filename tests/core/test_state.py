from __future__ import annotations

from abc import ABC
from collections import deque
from dataclasses import dataclass, field, is_dataclass
from typing import Any, ClassVar

import pytest

import ezmsg.core as ez
from ezmsg.core.errors import DeclarationError
from ezmsg.core.state import missing_field, new_state


class Count(ez.State):
    count: int
    step: int = 2
    seen: list[int] = field(default_factory=list)
    LIMIT: ClassVar[int] = 3


def test_fields_without_a_default_do_not_exist_until_assigned() -> None:
    state = Count()
    assert is_dataclass(Count)
    assert not hasattr(state, "count")
    assert state.step == 2
    state.count = 1
    assert state.count == 1


def test_there_is_no_generated_constructor() -> None:
    with pytest.raises(TypeError):
        Count(1)  # type: ignore[call-arg]


def test_states_are_mutable_compared_by_value_and_hashable() -> None:
    class Small(ez.State):
        a: int = 1

    one, other = Small(), Small()
    assert one == other
    assert hash(one) == hash(other)
    one.a = 2
    assert one != other


def test_new_state_has_what_its_factories_make() -> None:
    one, other = new_state(Count), new_state(Count)
    assert one.seen == []
    assert one.seen is not other.seen


def test_a_factory_wins_over_the_default_of_a_base() -> None:
    class Base(ez.State):
        buffer: Any = None

    class Sub(Base):
        buffer: Any = field(default_factory=deque)

    assert new_state(Sub).buffer == deque()


def test_a_constructor_of_its_own_is_kept_and_wins_over_a_factory() -> None:
    class Own(ez.State):
        seen: list[int] = field(default_factory=list)
        count: int

        def __init__(self) -> None:
            self.seen = [1]
            self.count = 2

    state = new_state(Own)
    assert (state.seen, state.count) == ([1], 2)


def test_missing_field_is_the_first_without_a_value() -> None:
    state = new_state(Count)
    assert missing_field(state) == "count"
    state.count = 0
    assert missing_field(state) is None


def test_what_is_no_dataclass_misses_nothing() -> None:
    class Free:
        value: int

    assert missing_field(new_state(Free)) is None
    assert missing_field(None) is None


def test_classes_gather_fields_from_all_bases() -> None:
    @dataclass
    class Plain:
        a: int = 1

    class Sub(Count, Plain, ABC):
        more: int

    state: Any = Sub.__new__(Sub)
    assert (state.a, state.step) == (1, 2)
    state.count = 1
    state.seen = []
    assert missing_field(state) == "more"


def test_a_mistake_in_the_body_names_the_class_and_the_field() -> None:
    with pytest.raises(DeclarationError, match=r"Wrong.*mutable default.*values"):

        class Wrong(ez.State):
            values: dict[str, int] = {}  # noqa: RUF012
