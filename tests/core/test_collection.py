from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest

import ezmsg.core as ez
from ezmsg.core.collection import CollectionMeta
from ezmsg.core.errors import DeclarationError


class Gain(ez.Settings):
    gain: int = 1


class Child(ez.Unit):
    SETTINGS = Gain

    INPUT = ez.InputStream(int)
    OUTPUT = ez.OutputStream(int)


class Inner(ez.Collection):
    IN = ez.InputTopic(int)

    LEAF = Child(Gain(2))

    def network(self) -> ez.NetworkDefinition:
        return ((self.IN, self.LEAF.INPUT),)


class Outer(ez.Collection):
    SETTINGS = Gain

    FIRST = Child()
    INNER = Inner()

    def configure(self) -> None:
        self.FIRST.apply_settings(self.SETTINGS)


def placed(component: Any, *location: str) -> Any:
    component._set_name("SYS")
    component._set_location(list(location))
    return component


def test_children_are_named_when_the_class_is_made() -> None:
    assert (Outer.FIRST.name, Outer.INNER.name) == ("FIRST", "INNER")
    assert Outer.__components__ == {"FIRST": Outer.FIRST, "INNER": Outer.INNER}


def test_each_instance_has_copies_of_its_children() -> None:
    one, other = Outer(), Outer()
    assert len({id(one.FIRST), id(other.FIRST), id(Outer.FIRST)}) == 3
    assert len({id(one.INNER.LEAF), id(other.INNER.LEAF), id(Inner.LEAF), id(Outer.INNER.LEAF)}) == 4
    assert one.components == {"FIRST": one.FIRST, "INNER": one.INNER}
    assert one.INNER.components["LEAF"] is one.INNER.LEAF
    assert one.INNER.LEAF.OUTPUT is one.INNER.LEAF.streams["OUTPUT"]
    assert (one.INNER.LEAF.name, one.INNER.LEAF.SETTINGS) == ("LEAF", Gain(2))


def test_children_can_be_configured_without_changing_others() -> None:
    one, other = Outer(gain=5), Outer()
    one.configure()
    assert (one.FIRST.SETTINGS, other.FIRST.SETTINGS, Outer.FIRST.SETTINGS) == (Gain(5), Gain(1), Gain(1))


def test_a_location_reaches_children_and_streams() -> None:
    system = placed(Outer(), "ROOT")
    assert system.address == "ROOT/SYS"
    assert system.INNER.IN.address == "ROOT/SYS/INNER/IN"
    assert system.INNER.LEAF.OUTPUT.address == "ROOT/SYS/INNER/LEAF/OUTPUT"
    with pytest.raises(AssertionError):
        _ = Outer.FIRST.address
    with pytest.raises(AssertionError):
        _ = Inner.IN.address


def test_a_subclass_inherits_children_and_may_replace_and_drop_them() -> None:
    class Sub(Outer):
        EXTRA = Child()

    class Less(Sub):
        INNER = Child(gain=9)  # type: ignore[assignment]
        FIRST = None  # type: ignore[assignment]

    assert list(Sub.__components__) == ["FIRST", "INNER", "EXTRA"]
    assert Sub.FIRST is Outer.FIRST
    less = Less()
    assert list(less.components) == ["INNER", "EXTRA"]
    assert less.INNER.SETTINGS == Gain(9)
    assert less.FIRST is None


def test_defaults_of_the_methods() -> None:
    collection = ez.Collection()
    assert collection.network() == ()
    assert collection.process_components() == (collection,)
    assert collection.configure() is None
    assert collection.components == {}


@pytest.mark.parametrize(
    ("kind", "instead"), [(ez.InputStream, "InputTopic or InputRelay"), (ez.OutputStream, "OutputTopic or OutputRelay")]
)
def test_a_stream_on_a_collection_is_deprecated_where_it_is_made(kind: Any, instead: str) -> None:
    with pytest.warns(FutureWarning, match=rf"Old\.STREAM: .* is deprecated: use {instead}") as caught:

        class Old(ez.Collection):
            STREAM = kind(int)

    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Heir(Old):
            pass

    assert placed(Heir()).STREAM.address == "SYS/STREAM"


def test_topics_on_a_collection_do_not_warn() -> None:
    class Fine(ez.Collection):
        A = ez.Topic(int)
        B = ez.InputTopic(int)
        C = ez.OutputTopic(int)
        D = ez.InputRelay(int)
        E = ez.OutputRelay(int)

    assert list(Fine().streams) == list("ABCDE")
    assert Fine().D is not Fine.D


def test_collections_can_be_built_by_hand() -> None:
    collection = ez.Collection()
    unit = Child()
    unit._set_name("ADDED")
    collection._components["ADDED"] = unit
    setattr(collection, "ADDED", unit)  # noqa: B010
    collection.network = lambda: (("x", unit.INPUT),)  # type: ignore[method-assign]
    collection.process_components = lambda: (unit,)  # type: ignore[method-assign]
    placed(collection)
    assert unit.address == "SYS/ADDED"
    assert list(collection.components) == ["ADDED"]


def test_children_given_as_any_mapping_get_their_names_from_it() -> None:
    collection = ez.Collection()
    collection._components = {"A": Child(), "B": Child()}  # type: ignore[dict-item]
    placed(collection)
    assert [child.address for child in collection.components.values()] == ["SYS/A", "SYS/B"]


def test_one_component_under_two_names_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"Wrong\.B: this object is declared as A already"):

        class Wrong(ez.Collection):
            A = Child()
            B = A

    with pytest.raises(DeclarationError, match=r"Other\.C: this object is declared as FIRST already"):

        class Other(ez.Collection):
            C = Outer.FIRST


@pytest.mark.parametrize("name", ["network", "configure", "components", "name", "process_components"])
def test_a_child_called_like_a_member_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=rf"Wrong\.{name}: every component has a member of this name"):
        type("Wrong", (ez.Collection,), {name: Child()})


def test_a_task_on_a_collection_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    class Busy(ez.Collection):
        @ez.task
        async def work(self) -> None:
            pass

    assert [record.getMessage() for record in caplog.records] == [
        f"{Busy.__qualname__}.work will not run: only a Unit has tasks"
    ]


@pytest.mark.parametrize("method", ["network", "configure", "process_components"])
def test_an_async_method_is_refused(method: str) -> None:
    async def function(self: Any) -> Any:
        return ()

    async def generator(self: Any) -> Any:
        yield ()

    for wrong in (function, generator):
        with pytest.raises(DeclarationError, match=rf"Wrong\.{method}: it must be a plain function"):
            type("Wrong", (ez.Collection,), {method: wrong})


def test_network_may_be_a_generator_and_configure_may_not() -> None:
    class Fine(ez.Collection):
        def network(self) -> Any:
            yield "a", "b"

    assert list(Fine().network()) == [("a", "b")]
    with pytest.raises(DeclarationError, match=r"Wrong\.configure: it must be a plain function without yield"):

        class Wrong(ez.Collection):
            def configure(self) -> Any:
                yield


def test_system_is_another_name_of_collection() -> None:
    assert ez.System is ez.Collection
    assert type(ez.Collection) is CollectionMeta


def test_deep_copies_keep_children_together() -> None:
    system = copy.deepcopy(placed(Outer()))
    assert system.components["INNER"] is system.INNER
    assert system.INNER.LEAF.address == "SYS/INNER/LEAF"
