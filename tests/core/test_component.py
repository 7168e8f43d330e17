from __future__ import annotations

import copy
import logging
import pickle
from abc import ABC, ABCMeta
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
import pydantic
import pytest

import ezmsg.core as ez
from ezmsg.core.addressable import Addressable
from ezmsg.core.component import ComponentMeta
from ezmsg.core.errors import DeclarationError

T = TypeVar("T")


class Gain(ez.Settings):
    gain: int
    name: str = "x"


class Better(Gain):
    more: int = 1


class Easy(ez.Settings):
    gain: int = 1


class Count(ez.State):
    count: int


class Scaler(ez.Unit):
    SETTINGS = Gain
    STATE = Count

    INPUT = ez.InputStream(int)
    OUTPUT = ez.OutputStream(int)


class Simple(ez.Unit):
    SETTINGS = Easy


def messages(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


# -- settings -----------------------------------------------------------------------------------------------------


def test_settings_are_the_keyword_if_given() -> None:
    settings = Gain(1)
    assert Scaler(settings=settings).SETTINGS is settings
    assert Scaler(Gain(2), settings=settings).SETTINGS is settings
    assert Scaler(5, gain=6, settings=settings).SETTINGS is settings


def test_settings_are_the_first_argument_if_it_is_of_their_type() -> None:
    settings, better = Gain(1), Better(2)
    assert Scaler(settings).SETTINGS is settings
    assert Scaler(better).SETTINGS is better


def test_settings_are_made_of_any_other_arguments() -> None:
    assert Scaler(3).SETTINGS == Gain(3)
    assert Scaler(3, "y").SETTINGS == Scaler(gain=3, name="y").SETTINGS == Gain(3, "y")
    with pytest.raises(TypeError):
        Scaler(wrong=1)
    with pytest.raises(TypeError):
        Scaler(name="y")


def test_settings_are_made_of_nothing_if_there_are_no_arguments() -> None:
    assert Simple().SETTINGS == Easy()


def test_settings_are_none_where_they_cannot_be_made_without_arguments() -> None:
    assert Scaler().SETTINGS is None


def test_an_error_that_is_no_type_error_of_settings_without_arguments_is_raised() -> None:
    class Broken(ez.Settings):
        def __post_init__(self) -> None:
            raise ValueError("broken")

    class Unit(ez.Unit):
        SETTINGS = Broken

    with pytest.raises(ValueError, match="broken"):
        Unit()


def test_apply_settings_replaces_them() -> None:
    unit = Scaler()
    unit.apply_settings(Gain(4))
    assert unit.SETTINGS == Gain(4)
    unit.apply_settings(None)
    assert unit.SETTINGS is None


def test_settings_of_another_class_are_used_and_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    given: Any = {"factor": 4}
    for unit in (Scaler(settings=given), Scaler()):
        unit.apply_settings(given)
        assert unit.SETTINGS is given
    text = f"Scaler.SETTINGS is {given!r}, which is no {__name__}.Gain"
    assert [record.getMessage() for record in caplog.records] == 3 * [text]


def test_default_types_are_settings_and_state() -> None:
    class Bare(ez.Unit):
        pass

    assert (Bare.__settings_type__, Bare.__state_type__) == (ez.Settings, ez.State)
    assert Bare().SETTINGS == ez.Settings()
    assert (Scaler.__settings_type__, Scaler.__state_type__) == (Gain, Count)
    assert Scaler().STATE is None


def test_types_are_inherited_from_the_first_base_that_names_one() -> None:
    class Nothing(ez.Unit):
        pass

    class Both(Nothing, Scaler):
        pass

    class Mixin:
        SETTINGS = Easy

    class Mixed(Mixin, ez.Unit):
        pass

    assert (Both.__settings_type__, Both.__state_type__) == (Gain, Count)
    assert Mixed().SETTINGS == Easy()


def test_a_subclass_may_name_a_subclass(caplog: pytest.LogCaptureFixture) -> None:
    class Sub(Scaler):
        SETTINGS = Better

    assert Sub(1).SETTINGS == Better(1)
    assert not caplog.records


@pytest.mark.parametrize(("field", "root"), [("SETTINGS", "Settings"), ("STATE", "State")])
def test_a_class_of_another_kind_is_logged_as_an_error_and_used(
    field: str, root: str, caplog: pytest.LogCaptureFixture
) -> None:
    unit: Any = type("Odd", (ez.Unit,), {field: dict})
    (text,) = messages(caplog, logging.ERROR)
    assert text.startswith(f"Odd.{field} is builtins.dict")
    assert text.endswith(root)
    assert unit().SETTINGS == ({} if field == "SETTINGS" else ez.Settings())
    type("Heir", (unit,), {})
    assert len(caplog.records) == 1


def test_a_class_that_is_no_subclass_of_the_bases_is_logged_as_an_error(caplog: pytest.LogCaptureFixture) -> None:
    class Sub(Scaler):
        SETTINGS = Easy

    assert messages(caplog, logging.ERROR)[0].endswith("no subclass of tests.core.test_component.Gain")
    assert Sub(2).SETTINGS == Easy(2)


@pytest.mark.parametrize("field", ["SETTINGS", "STATE"])
@pytest.mark.parametrize("value", [None, 5, "Gain", Gain(1)])
def test_what_is_no_class_is_refused(field: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"Wrong\.{field}: .* is no class"):
        type("Wrong", (ez.Unit,), {field: value})


def test_an_annotation_alone_is_accepted_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    class Annotated(ez.Unit):
        SETTINGS: Gain
        STATE: Count

    made: Any = type("Made", (ez.Unit,), {"__annotations__": {"SETTINGS": Gain}})
    texts = messages(caplog, logging.WARNING)
    assert len(texts) == 3
    assert texts[0].endswith("Annotated.SETTINGS is only annotated; assign the class instead: SETTINGS = "
                             "tests.core.test_component.Gain")  # fmt: skip
    assert (Annotated.__settings_type__, Annotated.__state_type__) == (Gain, Count)
    assert made(2).SETTINGS == Annotated(2).SETTINGS == Gain(2)

    class Heir(Annotated):
        pass

    assert Heir(2).SETTINGS == Gain(2)
    assert len(caplog.records) == 3


def test_an_annotation_with_a_value_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Unit(ez.Unit):
        SETTINGS: type[Gain] = Gain

    class Other(ez.Unit):
        SETTINGS: ClassVar[Any] = Gain

    assert Unit(1).SETTINGS == Other(1).SETTINGS == Gain(1)
    assert not caplog.records


def test_an_annotation_for_subclasses_to_fill_in_is_left_to_them(caplog: pytest.LogCaptureFixture) -> None:
    class Base(ez.Unit, ABC, Generic[T]):
        SETTINGS: T
        STATE: Any

    class Whole(Base[Gain]):
        SETTINGS = Gain

    assert Base.__settings_type__ is ez.Settings
    assert Whole(1).SETTINGS == Gain(1)
    assert not caplog.records


def test_an_annotation_that_cannot_be_understood_is_refused() -> None:
    class Hidden(ez.Settings):
        pass

    with pytest.raises(DeclarationError, match=r"Wrong\.SETTINGS: the annotation 'Hidden' names no class"):

        class Wrong(ez.Unit):
            SETTINGS: Hidden


def test_settings_may_be_generic() -> None:
    class Some(ez.Settings, Generic[T]):
        value: T

    class Unit(ez.Unit):
        SETTINGS = Some[int]

    settings = Some(1)
    assert Unit(settings).SETTINGS is settings
    assert Unit(2).SETTINGS == Some(2)


def test_settings_of_other_libraries_can_be_late_too(caplog: pytest.LogCaptureFixture) -> None:
    class Model(pydantic.BaseModel):
        rate: float

    class Struct(msgspec.Struct):
        rate: float

    for kind in (Model, Struct):
        unit: Any = type("Unit", (ez.Unit,), {"SETTINGS": kind})
        assert unit().SETTINGS is None
        assert unit(rate=2.0).SETTINGS.rate == 2.0
        assert unit(kind(rate=3.0)).SETTINGS.rate == 3.0
    assert len(messages(caplog, logging.ERROR)) == 2


# -- streams ------------------------------------------------------------------------------------------------------


def test_streams_are_named_when_the_class_is_made() -> None:
    assert (Scaler.INPUT.name, Scaler.OUTPUT.name) == ("INPUT", "OUTPUT")
    assert Scaler.__streams__ == {"INPUT": Scaler.INPUT, "OUTPUT": Scaler.OUTPUT}


def test_each_instance_has_copies_of_the_streams() -> None:
    one, other = Scaler(), Scaler()
    assert len({id(one.OUTPUT), id(other.OUTPUT), id(Scaler.OUTPUT)}) == 3
    one.OUTPUT.num_buffers = 1
    assert (other.OUTPUT.num_buffers, Scaler.OUTPUT.num_buffers) == (32, 32)
    assert one.streams == {"INPUT": one.INPUT, "OUTPUT": one.OUTPUT}


@pytest.mark.parametrize("again", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
@pytest.mark.parametrize("is_placed", [True, False])
def test_copies_keep_streams_settings_and_what_was_added(again: Any, is_placed: bool) -> None:
    unit: Any = Scaler(3)
    unit.added = {"x": [1]}
    if is_placed:
        unit._set_name("A")
        unit._set_location(["SYS"])
    copied = again(unit)
    assert copied is not unit
    assert copied.OUTPUT is copied.streams["OUTPUT"] is not unit.OUTPUT
    assert copied.INPUT is copied.streams["INPUT"]
    assert (copied.SETTINGS, copied.added) == (Gain(3), {"x": [1]})
    assert not is_placed or copied.OUTPUT.address == "SYS/A/OUTPUT"


def test_streams_are_inherited_replaced_and_dropped() -> None:
    class Sub(Scaler):
        INPUT = ez.InputStream(float, leaky=True)
        EXTRA = ez.OutputStream(int)

    class Less(Sub):
        OUTPUT = None  # type: ignore[assignment]

    assert list(Sub.__streams__) == ["INPUT", "OUTPUT", "EXTRA"]
    assert (Sub.INPUT.msg_type, Scaler.INPUT.msg_type, Sub.OUTPUT) == (float, int, Scaler.OUTPUT)
    assert list(Less().streams) == ["INPUT", "EXTRA"]


def test_streams_of_several_bases_and_of_plain_mixins_are_gathered() -> None:
    class Mixin:
        MIXED = ez.InputStream(int)

    class Other(ez.Unit):
        OTHER = ez.InputStream(int)

    class All(Mixin, Scaler, Other):
        pass

    unit = All()
    assert set(unit.streams) == {"MIXED", "OTHER", "INPUT", "OUTPUT"}
    assert unit.MIXED is unit.streams["MIXED"] is not Mixin.MIXED


def test_one_stream_under_two_names_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"Wrong\.B: this object is declared as A already"):

        class Wrong(ez.Unit):
            A = ez.InputStream(int)
            B = A


def test_one_stream_may_have_the_same_name_in_two_classes() -> None:
    class Other(ez.Unit):
        OUTPUT = Scaler.OUTPUT

    assert Other().OUTPUT is not Scaler().OUTPUT


@pytest.mark.parametrize("name", ["name", "address", "streams", "setup", "tasks", "main", "apply_settings"])
def test_a_stream_called_like_a_member_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=rf"Wrong\.{name}: every component has a member of this name"):
        type("Wrong", (ez.Unit,), {name: ez.InputStream(int)})


def test_an_attribute_in_place_of_the_address_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    type("Device", (ez.Unit,), {"address": "AA:BB", "port": 5})
    (warning,) = caplog.messages
    assert warning == "Device.address = 'AA:BB' hides what every component has by this name: choose another"


# -- the rest -----------------------------------------------------------------------------------------------------


def test_a_location_reaches_streams() -> None:
    unit = Scaler()
    unit._set_name("A")
    unit._set_location(["ROOT", "SYS"])
    assert (unit.address, unit.OUTPUT.address) == ("ROOT/SYS/A", "ROOT/SYS/A/OUTPUT")
    with pytest.raises(AssertionError):
        unit._set_location([])


def test_a_component_without_a_name_cannot_be_placed() -> None:
    unit = Scaler()
    with pytest.raises(AssertionError):
        unit._set_location([])
    unit._set_name("A")
    unit._set_location([])
    assert unit.INPUT.address == "A/INPUT"


def test_a_constructor_of_its_own_must_call_that_of_its_base() -> None:
    class Good(Scaler):
        def __init__(self, factor: int) -> None:
            self.factor = factor
            super().__init__(gain=factor)

    class Wrong(Scaler):
        def __init__(self) -> None:
            pass

    assert (Good(2).factor, Good(2).SETTINGS) == (2, Gain(2))
    with pytest.raises(DeclarationError, match=r"Wrong\.__init__: it does not call super"):
        Wrong()


def test_components_and_streams_have_addresses() -> None:
    assert issubclass(ez.Component, Addressable)
    assert issubclass(ez.stream.Stream, Addressable)


def test_repr_tells_the_class_and_the_address() -> None:
    unit = Scaler()
    assert repr(unit) == "<Scaler Scaler>"
    unit._set_name("A")
    unit._set_location(["SYS"])
    assert repr(unit) == "<Scaler SYS/A>"


def test_the_metaclass_derives_from_abcmeta() -> None:
    assert issubclass(ComponentMeta, ABCMeta)
    assert issubclass(ez.unit.UnitMeta, ComponentMeta)
    assert type(ez.Component) is ComponentMeta


def test_a_bare_component_has_nothing_to_run() -> None:
    component = ez.Component()
    assert (component.tasks, component.threads, component.main) == ({}, {}, None)
    assert (component.streams, component.components) == ({}, {})
