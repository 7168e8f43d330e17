from __future__ import annotations

import asyncio
import copy
import functools
import logging
import pickle
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import pytest

import ezmsg.core as ez
from ezmsg.core.errors import DeclarationError, SettingsNotApplied, StateNotInitialized
from ezmsg.core.unit import is_process, main_of, published, subscribed, tasks_of, threads_of

S = TypeVar("S")
OTHER = ez.InputStream(int)


class Gain(ez.Settings):
    gain: int


class Count(ez.State):
    count: int
    seen: list[int] = field(default_factory=list)
    step: int = 2


class Scaler(ez.Unit):
    SETTINGS = Gain
    STATE = Count

    INPUT = ez.InputStream(int)
    OUTPUT = ez.OutputStream(int)
    SECOND = ez.OutputStream(int)

    async def initialize(self) -> None:
        self.STATE.count = self.SETTINGS.gain

    @ez.subscriber(INPUT)
    @ez.publisher(OUTPUT)
    @ez.publisher(SECOND)
    async def scale(self, message: int) -> AsyncIterator[tuple[ez.OutputStream, int]]:
        self.STATE.count += 1
        yield self.OUTPUT, message * self.SETTINGS.gain
        yield (self.SECOND, message)

    @ez.task
    async def watch(self) -> None:
        pass

    @ez.main
    def show(self) -> str:
        return f"main of {self.name}"


class Heir(Scaler):
    async def watch(self) -> None:
        """No task any more: it is not decorated."""

    @ez.subscriber(Scaler.INPUT)
    async def scale(self, message: int) -> None:  # type: ignore[override]
        pass


def placed(unit: Any, name: str = "A") -> Any:
    unit._set_name(name)
    unit._set_location(["SYS"])
    return unit


# -- endpoints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endpoint",
    [ez.Topic, ez.InputTopic, ez.OutputTopic, ez.InputRelay, ez.OutputRelay, ez.stream.Stream],
)
def test_a_topic_on_a_unit_is_refused_where_it_is_made(endpoint: Callable[[type], Any]) -> None:
    with pytest.raises(TypeError, match=r"Wrong\.ENDPOINT: Units may only declare InputStream") as caught:
        type("Wrong", (ez.Unit,), {"ENDPOINT": endpoint(int)})
    assert isinstance(caught.value, DeclarationError)
    assert (caught.value.owner, caught.value.field) == ("Wrong", "ENDPOINT")


def test_a_component_on_a_unit_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(ez.Unit):
        CHILD = Heir()

    assert "Odd.CHILD will not run: only a Collection has components" in caplog.text
    assert Odd().components == {}


# -- setup --------------------------------------------------------------------------------------------------------


async def test_setup_makes_the_state_and_initializes() -> None:
    unit = placed(Scaler(3))
    assert unit.STATE is None
    await unit.setup()
    assert isinstance(unit.STATE, Count)
    assert (unit.STATE.count, unit.STATE.seen, unit.STATE.step) == (3, [], 2)


async def test_initialize_may_be_a_plain_function() -> None:
    class Plain(Scaler):
        def initialize(self) -> None:  # type: ignore[override]
            self.STATE.count = 1

    unit = Plain(1)
    await unit.setup()
    assert unit.STATE.count == 1


async def test_initialize_may_return_something_to_wait_for() -> None:
    class Late(Scaler):
        def initialize(self) -> Any:
            async def wait() -> None:
                await asyncio.sleep(0)
                self.STATE.count = 1

            return asyncio.ensure_future(wait())

    unit = Late(1)
    await unit.setup()
    assert unit.STATE.count == 1


async def test_setup_without_settings_is_refused_before_initialize() -> None:
    class Loud(Scaler):
        async def initialize(self) -> None:
            pytest.fail("initialize() was called")

    unit = placed(Loud())
    with pytest.raises(ValueError, match="SYS/A has not had settings applied before initialization") as caught:
        await unit.setup()
    assert isinstance(caught.value, SettingsNotApplied)
    unit = placed(Loud())
    unit.apply_settings(None)
    with pytest.raises(ValueError, match="has not had settings applied before initialization"):
        await unit.setup()


async def test_late_settings_are_enough_for_setup() -> None:
    unit = Scaler()
    unit.apply_settings(Gain(5))
    await unit.setup()
    assert unit.STATE.count == 5


async def test_a_field_of_the_state_without_a_value_is_reported_with_the_address() -> None:
    class Forgetful(Scaler):
        async def initialize(self) -> None:
            pass

    with pytest.raises(AttributeError) as caught:
        await placed(Forgetful(1)).setup()
    assert str(caught.value) == "SYS/A: STATE.count was not initialized!"
    assert isinstance(caught.value, StateNotInitialized)


async def test_a_unit_that_has_no_place_can_be_set_up() -> None:
    class Forgetful(Scaler):
        async def initialize(self) -> None:
            pass

    with pytest.raises(AttributeError, match=r"^Forgetful: STATE\.count was not initialized!$"):
        await Forgetful(1).setup()
    with pytest.raises(ValueError, match=r"^Forgetful has not had settings"):
        await Forgetful().setup()


async def test_what_initialize_raises_comes_out_of_setup() -> None:
    class Broken(Scaler):
        async def initialize(self) -> None:
            raise ZeroDivisionError("broken")

    with pytest.raises(ZeroDivisionError, match="broken"):
        await Broken(1).setup()


async def test_state_of_each_unit_is_its_own_and_new_with_each_setup() -> None:
    one, other = Scaler(1), Scaler(1)
    await one.setup()
    await other.setup()
    one.STATE.seen.append(1)
    assert other.STATE.seen == []
    await one.setup()
    assert one.STATE.seen == []


async def test_a_state_replaced_by_initialize_is_the_one_checked() -> None:
    @dataclass
    class Own:
        count: int = 0

    class Replacing(Scaler):
        async def initialize(self) -> None:
            self.STATE = Own(7)  # type: ignore[assignment]

    unit = Replacing(1)
    await unit.setup()
    assert unit.STATE == Own(7)


def test_hooks_are_coroutine_functions_by_default() -> None:
    assert asyncio.iscoroutinefunction(ez.Unit.initialize)
    assert asyncio.iscoroutinefunction(ez.Unit.shutdown)


@pytest.mark.parametrize("hook", ["initialize", "shutdown"])
def test_a_hook_with_a_yield_is_refused(hook: str) -> None:
    async def asynchronous(self: Any) -> AsyncIterator[int]:
        yield 1

    def plain(self: Any) -> Any:
        yield 1

    for function in (asynchronous, plain):
        with pytest.raises(DeclarationError, match=rf"Wrong\.{hook}: it has a yield"):
            type("Wrong", (ez.Unit,), {hook: function})


# -- tasks --------------------------------------------------------------------------------------------------------


def test_tasks_main_and_threads_are_gathered() -> None:
    unit = placed(Scaler(2))
    assert list(Scaler.__tasks__) == ["scale", "watch"]
    assert Scaler.__main__ is Scaler.show
    assert Scaler.__threads__ == {}
    assert unit.tasks == {"scale": unit.scale, "watch": unit.watch} == tasks_of(unit)
    assert (unit.main(), main_of(unit)()) == ("main of A", "main of A")
    assert unit.threads == threads_of(unit) == {}


async def test_a_task_is_bound_to_its_unit() -> None:
    unit = Scaler(2)
    await unit.setup()
    found = [pair async for pair in unit.tasks["scale"](4)]
    assert found == [(unit.OUTPUT, 8), (unit.SECOND, 4)]
    assert unit.STATE.count == 3


def test_tasks_are_matched_with_the_streams_of_the_instance_by_name() -> None:
    unit = Scaler(2)
    assert subscribed(unit, unit.scale) is unit.INPUT
    assert published(unit, unit.scale) == [unit.SECOND, unit.OUTPUT]
    assert subscribed(unit, unit.watch) is None
    assert published(unit, unit.watch) == []


def test_a_method_that_is_overridden_must_be_decorated_again() -> None:
    unit = Heir()
    assert list(unit.tasks) == ["scale"]
    assert published(unit, unit.scale) == []
    assert unit.main is not None


def test_an_override_without_decorators_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    class Base(ez.Unit):
        @ez.task
        async def go(self) -> None:
            pass

        @ez.task
        async def rest(self) -> None:
            pass

    class Forgetful(Base):
        rest: Any = None  # on purpose

        async def go(self) -> None:
            pass

    assert [record.getMessage() for record in caplog.records] == [
        f"{Forgetful.__qualname__}.go will not run: it overrides a function with decorators, and has none itself"
    ]


def test_a_publisher_without_yield_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    class Silent(ez.Unit):
        OUTPUT = ez.OutputStream(int)

        @ez.publisher(OUTPUT)
        async def go(self) -> Any:
            return self.OUTPUT, 1

        @ez.publisher(OUTPUT)
        @abstractmethod
        async def leave_open(self) -> Any: ...

        @ez.publisher(OUTPUT)
        async def fill_in(self) -> Any:
            raise NotImplementedError

    assert [record.getMessage() for record in caplog.records] == [
        f"{Silent.__qualname__}.go publishes nothing: it has no yield"
    ]


def test_a_task_of_the_base_uses_the_stream_of_the_subclass() -> None:
    class Wide(Scaler):
        INPUT = ez.InputStream(int, leaky=True)

    unit = Wide(1)
    stream = subscribed(unit, unit.scale)
    assert stream is unit.INPUT
    assert stream.leaky


def test_several_tasks_may_subscribe_to_one_stream() -> None:
    class Twice(Scaler):
        @ez.subscriber(Scaler.INPUT)
        async def again(self, message: int) -> None:
            pass

    unit = Twice(1)
    assert [name for name, task in unit.tasks.items() if subscribed(unit, task) is unit.INPUT] == ["scale", "again"]


def test_methods_may_be_called_main_tasks_and_threads() -> None:
    class Named(ez.Unit):
        @ez.main
        def main(self) -> int:
            return 1

        @ez.task
        async def tasks(self) -> None:
            pass

        async def threads(self) -> None:
            pass

    unit = Named()
    main = main_of(unit)
    assert main is not None
    assert main() == 1
    assert list(tasks_of(unit)) == ["tasks"]
    assert threads_of(unit) == {}


def test_threads_are_gathered() -> None:
    with pytest.warns(DeprecationWarning, match="thread"):

        class Threaded(ez.Unit):
            @ez.thread
            def work(self) -> str:
                return "worked"

    assert {name: work() for name, work in Threaded().threads.items()} == {"work": "worked"}


def test_wrappers_keep_the_marks() -> None:
    def logged(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args)

        return wrapper

    class Wrapped(Scaler):
        scale = logged(Scaler.scale)

    unit = Wrapped(1)
    assert subscribed(unit, unit.tasks["scale"]) is unit.INPUT


def test_a_second_main_function_is_refused() -> None:
    with pytest.raises(Exception, match=r"Wrong: a unit can have one main function, this one has show, other"):

        class Wrong(Scaler):
            @ez.main
            def other(self) -> None:
                pass


def test_two_inherited_main_functions_are_refused() -> None:
    class Other(ez.Unit):
        @ez.main
        def show(self) -> None:
            pass

    with pytest.raises(Exception, match=r"Wrong\.show: it inherits two main functions, of Scaler and .*Other"):

        class Wrong(Scaler, Other):
            pass

    class Right(Scaler, Other):
        @ez.main
        def show(self) -> str:
            return "one"

    main = main_of(Right())
    assert main is not None
    assert main() == "one"


def test_a_main_function_inherited_twice_is_one() -> None:
    class Left(Scaler):
        pass

    class Right(Scaler):
        @ez.main
        def show(self) -> str:
            return "right"

    class Both(Left, Right):
        pass

    assert Both.__main__ is Right.show


def test_a_task_that_uses_a_stream_of_another_class_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"Wrong\.go: it uses <InputStream .*declares no such InputStream"):

        class Wrong(ez.Unit):
            @ez.subscriber(OTHER)
            async def go(self, message: int) -> None:
                pass

    with pytest.raises(DeclarationError, match=r"Swapped\.scale: it uses <InputStream INPUT builtins.int>"):

        class Swapped(Scaler):
            INPUT = ez.OutputStream(int)  # type: ignore[assignment]


def test_a_task_that_cannot_take_its_arguments_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"Deaf\.go: it is called with \(self, message\): too many"):

        class Deaf(ez.Unit):
            INPUT = ez.InputStream(int)

            @ez.subscriber(INPUT)
            async def go(self) -> None:
                pass

    with pytest.raises(DeclarationError, match=r"Needy\.go: it is called with \(self\): missing .*'message'"):

        class Needy(ez.Unit):
            @ez.task
            async def go(self, message: int) -> None:
                pass


@pytest.mark.parametrize("kind", [staticmethod, classmethod])
def test_a_task_whose_marks_are_out_of_reach_is_refused(kind: Any) -> None:
    async def go(message: int) -> None:
        pass

    with pytest.raises(DeclarationError, match=rf"Wrong\.go: the decorators of a task belong below @{kind.__name__}"):
        type("Wrong", (ez.Unit,), {"go": ez.task(kind(go))})


@pytest.mark.parametrize("kind", [staticmethod, classmethod])
async def test_static_and_class_methods_can_be_tasks(kind: Any) -> None:
    stream = ez.InputStream(int)

    async def go(*arguments: Any) -> int:
        return 2 * arguments[-1]

    unit: Any = type("Odd", (ez.Unit,), {"INPUT": stream, "go": kind(ez.subscriber(stream)(go))})()
    assert subscribed(unit, unit.tasks["go"]) is unit.INPUT
    assert await unit.tasks["go"](2) == 4


def test_a_task_that_is_a_plain_generator_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"Wrong\.go: a task is an async function"):

        class Wrong(ez.Unit):
            OUTPUT = ez.OutputStream(int)

            @ez.publisher(OUTPUT)
            def go(self) -> Any:
                yield self.OUTPUT, 1


def test_a_task_that_is_a_plain_function_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    class Odd(ez.Unit):
        @ez.task
        def go(self) -> None:
            pass

    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, f"{Odd.__qualname__}.go is no async function: write async def")
    ]


# -- bases --------------------------------------------------------------------------------------------------------


class Processor(ez.Unit, ABC, Generic[S]):
    INPUT = ez.InputStream(S)

    @abstractmethod
    def work(self, message: Any) -> S: ...

    @ez.subscriber(INPUT)
    async def on_message(self, message: Any) -> None:
        self.work(message)


class Doubler(Processor[int]):
    def work(self, message: Any) -> int:
        return 2 * message


def test_units_may_be_abstract_and_generic() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Processor()  # type: ignore[abstract]
    unit: Any = pickle.loads(pickle.dumps(Doubler()))
    assert list(unit.tasks) == ["on_message"]
    assert unit.INPUT.msg_type is S


if sys.version_info >= (3, 12):  # the syntax came with it

    def test_units_may_have_type_parameters() -> None:
        names: dict[str, Any] = {"ez": ez, "__name__": __name__}
        exec("class Base[T](ez.Unit):\n    INPUT = ez.InputStream(T)\nclass Whole(Base[int]):\n    pass", names)
        stream = pickle.loads(pickle.dumps(names["Whole"]().INPUT))
        assert (stream.name, stream.msg_type) == ("INPUT", "T")


def test_a_class_can_be_made_by_type() -> None:
    stream = ez.InputStream(int)

    async def go(self: Any, message: int) -> None:
        pass

    members = {"INPUT": stream, "go": ez.subscriber(stream)(go), "SETTINGS": Gain}
    unit: Any = type("Made", (ez.Unit,), members)(gain=3)
    assert unit.SETTINGS == Gain(3)
    assert subscribed(unit, unit.tasks["go"]) is unit.INPUT


def test_class_attributes_of_any_kind_are_left_alone() -> None:
    class Awkward:
        def __getattr__(self, name: str) -> Any:
            return name != "__isabstractmethod__"

    class Unit(ez.Unit):
        ODD = Awkward()
        LIMIT = 3
        NAMES = ("a", "b")

    assert Unit().tasks == {}


# -- copies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
async def test_copies_run_like_the_original(again: Any) -> None:
    unit = again(placed(Scaler(3)))
    await unit.setup()
    assert [pair async for pair in unit.scale(2)] == [(unit.streams["OUTPUT"], 6), (unit.streams["SECOND"], 2)]
    assert subscribed(unit, unit.tasks["scale"]) is unit.INPUT
    assert unit.address == "SYS/A"


def test_only_the_decorated_class_and_its_subclasses_want_a_process() -> None:
    @ez.process
    class Alone(Scaler):
        pass

    class Sub(Alone):
        pass

    assert [is_process(unit) for unit in (Scaler(), Alone(), Sub())] == [False, True, True]
