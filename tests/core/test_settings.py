from __future__ import annotations

import copy
import inspect
import pickle
from abc import ABC, ABCMeta, abstractmethod
from dataclasses import FrozenInstanceError, dataclass, field, fields, is_dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

import pydantic
import pytest

import ezmsg.core as ez
from ezmsg.core.errors import DeclarationError
from ezmsg.core.settings import SettingsMeta

T = TypeVar("T")


class Gain(ez.Settings):
    gain: int
    name: str = "x"
    names: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plain:
    rate: float = 1.0


class Validated(pydantic.BaseModel):
    rate: float


def test_subclass_is_a_frozen_dataclass_without_a_decorator() -> None:
    settings = Gain(3)
    assert is_dataclass(Gain)
    assert (settings, settings.names) == (Gain(gain=3, name="x"), [])
    assert repr(settings) == "Gain(gain=3, name='x', names=[])"
    assert replace(settings, gain=4) == Gain(4)
    assert hash(Plain()) == hash(Plain())


@pytest.mark.parametrize("name", ["gain", "unknown"])
def test_assignment_and_deletion_are_refused(name: str) -> None:
    settings = Gain(3)
    with pytest.raises(FrozenInstanceError):
        setattr(settings, name, 4)
    with pytest.raises(AttributeError):
        delattr(settings, name)
    with pytest.raises(FrozenInstanceError):
        setattr(ez.Settings(), name, 4)
    assert settings == Gain(3)


def test_the_metaclass_derives_from_abcmeta_and_is_marked_for_type_checkers() -> None:
    assert issubclass(SettingsMeta, ABCMeta)
    assert ez.settings.SettingsMeta is SettingsMeta
    assert "frozen_default" in str(SettingsMeta.__dataclass_transform__)


def test_a_chain_of_classes_gathers_fields() -> None:
    class More(Gain):
        more: int = 5
        gain: int = 1

    class Most(More):
        most: int = 6

    assert [it.name for it in fields(Most)] == ["gain", "name", "names", "more", "most"]
    assert (Most().gain, Most(2).gain, Most().most) == (1, 2, 6)
    with pytest.raises(FrozenInstanceError):
        Most().gain = 1  # type: ignore[misc]


def test_another_frozen_dataclass_may_stand_on_either_side() -> None:
    class First(ez.Settings, Plain):
        gain: int = 2

    class Second(Plain, ez.Settings):
        gain: int = 2

    for kind in (First, Second):
        settings = kind(rate=3.0)
        assert (settings.rate, settings.gain) == (3.0, 2)
        for name in ("rate", "gain", "new"):
            with pytest.raises(FrozenInstanceError):
                setattr(settings, name, 0)
    assert issubclass(First, ez.Settings)
    assert issubclass(Second, Plain)


def test_two_settings_may_be_joined() -> None:
    class Rate(ez.Settings):
        rate: float = 1.0

    class Name(ez.Settings):
        name: str = "x"

    class Both(Rate, Name):
        pass

    assert Both(rate=2.0) == Both("x", 2.0)


def test_abstract_and_generic_bases_work() -> None:
    class Base(ez.Settings, ABC, Generic[T]):
        value: T

        @abstractmethod
        def twice(self) -> T: ...

    class Whole(Base[int]):
        def twice(self) -> int:
            return 2 * self.value

    assert Whole(2).twice() == 4
    with pytest.raises(TypeError, match="abstract"):
        Base(2)  # type: ignore[abstract]


def test_a_class_can_be_made_by_type() -> None:
    names: dict[str, Any] = {"a": int, "b": inspect.Parameter.empty}
    kind: Any = type("Made", (ez.Settings,), {"__annotations__": names, "b": 3, "c": 4})
    assert kind(1) == kind(a=1, b=3)
    assert isinstance(kind, SettingsMeta)
    assert [it.type for it in fields(kind)] == [int, inspect.Parameter.empty]
    with pytest.raises(FrozenInstanceError):
        kind(1).a = 2


def test_class_variables_and_methods_are_no_fields() -> None:
    class Some(ez.Settings):
        LIMIT: ClassVar[int] = 3
        value: int = 1

        @property
        def double(self) -> int:
            return 2 * self.value

        def __post_init__(self) -> None:
            if self.value > self.LIMIT:
                raise ValueError("too much")

    assert [it.name for it in fields(Some)] == ["value"]
    assert Some(2).double == 4
    with pytest.raises(ValueError, match="too much"):
        Some(4)


def test_settings_survive_pickle_and_copies() -> None:
    settings = Gain(3, names=["a"])
    for it in (pickle.loads(pickle.dumps(settings)), copy.deepcopy(settings), copy.copy(settings)):
        assert it == settings
        with pytest.raises(FrozenInstanceError):
            it.gain = 1


@pytest.mark.parametrize("base", [TypeError, ValueError])
def test_a_mistake_in_the_body_names_the_class_and_the_field(base: type[Exception]) -> None:
    with pytest.raises(base, match=r"Wrong.*mutable default.*values"):

        class Wrong(ez.Settings):
            values: list[int] = []  # noqa: RUF012

    with pytest.raises(DeclarationError, match=r"Late.*'second'"):

        class Late(ez.Settings):
            first: int = 1
            second: int


def test_pydantic_can_make_it_validate() -> None:
    @pydantic.dataclasses.dataclass(frozen=True)
    class Checked(ez.Settings):
        rate: float
        inner: Validated

    settings = Checked("2", {"rate": 3})  # type: ignore[arg-type]
    assert (settings.rate, settings.inner) == (2.0, Validated(rate=3))
    assert isinstance(settings, ez.Settings)
    with pytest.raises(pydantic.ValidationError):
        Checked("two", Validated(rate=1))  # type: ignore[arg-type]
    with pytest.raises(FrozenInstanceError):
        settings.rate = 1.0  # type: ignore[misc]


def test_decorating_it_once_more_is_harmless() -> None:
    @dataclass(frozen=True)
    class Twice(ez.Settings):
        a: int
        b: int = 2

    assert Twice(1) == Twice(1, 2)
    with pytest.raises(FrozenInstanceError):
        Twice(1).a = 3  # type: ignore[misc]
