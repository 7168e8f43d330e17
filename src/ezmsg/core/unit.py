"""Units, the components that run."""

from __future__ import annotations

import inspect
import logging
from types import FunctionType
from typing import Any, cast

from ezmsg.core.addressable import label
from ezmsg.core.component import Component, ComponentMeta
from ezmsg.core.declaration import attributes, refuse
from ezmsg.core.decorators import (
    LEAKY_ATTR,
    MAIN_ATTR,
    MAX_QUEUE_ATTR,
    PROCESS_ATTR,
    PUBLISHES_ATTR,
    SUBSCRIBES_ATTR,
    TASK_ATTR,
    THREAD_ATTR,
    TIMEIT_ATTR,
    WORK_ATTRS,
    ZERO_COPY_ATTR,
    Function,
    is_marked,
    main,
    process,
    publisher,
    subscriber,
    task,
    thread,
    timeit,
)
from ezmsg.core.errors import DeclarationError, SettingsNotApplied, StateNotInitialized
from ezmsg.core.state import missing_field, new_state
from ezmsg.core.stream import InputStream, OutputStream, Stream, type_name

__all__ = [
    "LEAKY_ATTR",
    "MAIN_ATTR",
    "MAX_QUEUE_ATTR",
    "PROCESS_ATTR",
    "PUBLISHES_ATTR",
    "SUBSCRIBES_ATTR",
    "TASK_ATTR",
    "THREAD_ATTR",
    "TIMEIT_ATTR",
    "ZERO_COPY_ATTR",
    "Unit",
    "UnitMeta",
    "is_process",
    "main",
    "main_of",
    "process",
    "published",
    "publisher",
    "subscribed",
    "subscriber",
    "task",
    "tasks_of",
    "thread",
    "threads_of",
    "timeit",
]

logger = logging.getLogger("ezmsg")


class UnitMeta(ComponentMeta):
    """Gathers tasks, threads and the main function of a unit's class."""

    __tasks__: dict[str, Function]
    __main__: Function | None
    __threads__: dict[str, Function]

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], /, **kwargs: Any) -> None:
        super().__init__(name, bases, namespace, **kwargs)
        for field, stream in cls.__streams__.items():
            if not isinstance(stream, (InputStream, OutputStream)):
                raise DeclarationError(
                    cls, field, f"Units may only declare InputStream and OutputStream, not {type(stream).__name__}"
                )
        cls.__tasks__ = attributes(cls, lambda value: is_marked(value, TASK_ATTR))
        cls.__threads__ = attributes(cls, lambda value: is_marked(value, THREAD_ATTR))
        cls.__main__ = _the_main(cls)
        generators = (inspect.isgeneratorfunction, inspect.isasyncgenfunction)
        refuse(cls, ("initialize", "shutdown"), generators, "it has a yield, so that it would never run")
        for field, function in cls.__tasks__.items():
            _check_streams(cls, field, function)
            _check_call(cls, field, function)
        _warn_of_lost_tasks(cls)
        for child in attributes(cls, lambda value: isinstance(value, Component)):
            logger.warning("%s.%s will not run: only a Collection has components", cls.__qualname__, child)


def _warn_of_lost_tasks(cls: UnitMeta) -> None:
    for name, value in vars(cls).items():
        if isinstance(value, FunctionType) and not any(is_marked(value, mark) for mark in WORK_ATTRS):
            inherited = next((vars(base)[name] for base in cls.__mro__[1:] if name in vars(base)), None)
            if any(is_marked(inherited, mark) for mark in WORK_ATTRS):
                text = "%s.%s will not run: it overrides a function with decorators, and has none itself"
                logger.warning(text, cls.__qualname__, name)


def _the_main(cls: UnitMeta) -> Function | None:
    found = attributes(cls, lambda value: is_marked(value, MAIN_ATTR))
    if len(found) > 1:
        raise DeclarationError(cls, None, f"a unit can have one main function, this one has {', '.join(found)}")
    for name, function in found.items():
        owner = next(base for base in cls.__mro__ if name in vars(base))
        for base in cls.__mro__:
            if is_marked(vars(base).get(name), MAIN_ATTR) and not issubclass(owner, base):
                raise DeclarationError(
                    cls, name, f"it inherits two main functions, of {owner.__qualname__} and {base.__qualname__}"
                )
        return function
    return None


def _check_streams(cls: UnitMeta, name: str, function: Function) -> None:
    source: InputStream | None = getattr(function, SUBSCRIBES_ATTR, None)
    streams: list[Stream] = [*getattr(function, PUBLISHES_ATTR, ())] + ([] if source is None else [source])
    for stream in streams:
        kind = InputStream if stream is source else OutputStream
        if not isinstance(cls.__streams__.get(label(stream)), kind):
            raise DeclarationError(cls, name, f"it uses {stream!r}, but the class declares no such {kind.__name__}")


def _check_call(cls: UnitMeta, name: str, function: Function) -> None:
    if not is_marked(getattr(cls, name), TASK_ATTR):
        raise DeclarationError(cls, name, f"the decorators of a task belong below @{type(function).__name__}")
    if not isinstance(function, FunctionType):
        return
    if inspect.isgeneratorfunction(function):
        raise DeclarationError(cls, name, "a task is an async function: write async def")
    if not (inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)):
        logger.warning("%s.%s is no async function: write async def", cls.__qualname__, name)
    # Of a base class, for others to fill in.
    is_abstract = getattr(function, "__isabstractmethod__", "NotImplementedError" in function.__code__.co_names)
    if hasattr(function, PUBLISHES_ATTR) and inspect.iscoroutinefunction(function) and not is_abstract:
        logger.warning("%s.%s publishes nothing: it has no yield", cls.__qualname__, name)
    arguments = ["self", "message"] if hasattr(function, SUBSCRIBES_ATTR) else ["self"]
    try:
        inspect.signature(function, follow_wrapped=False).bind(*arguments)
    except TypeError as error:
        raise DeclarationError(cls, name, f"it is called with ({', '.join(arguments)}): {error}") from error


class Unit(Component, metaclass=UnitMeta):
    """A component that runs: its tasks receive from its input streams and publish on its output streams."""

    async def setup(self) -> None:
        """Make the state and initialize the unit, in the process it runs in.

        Raises:
            SettingsNotApplied: It has no settings.
            StateNotInitialized: A field of its state has no value afterwards.
        """
        self.STATE = new_state(type(self).__state_type__)
        if self.SETTINGS is None:
            raise SettingsNotApplied(label(self), type_name(type(self).__settings_type__))
        outcome: Any = self.initialize()
        if inspect.isawaitable(outcome):
            await outcome
        if (field := missing_field(self.STATE)) is not None:
            raise StateNotInitialized(label(self), field)

    async def initialize(self) -> None:
        """Called once in the process of the unit, before its streams are opened; may be a plain function."""

    async def shutdown(self) -> None:
        """Called once in the process of the unit when all has ended; may be a plain function."""

    @property
    def tasks(self) -> dict[str, Function]:
        """Its tasks by name."""
        return tasks_of(self)

    @property
    def main(self) -> Function | None:
        """What it runs in the main thread of its process."""
        return main_of(self)

    @property
    def threads(self) -> dict[str, Function]:
        """What it runs in worker threads, by name."""
        return threads_of(self)


# -- what a unit runs: its own methods may be called `main`, `tasks`, `threads` ---------------------------------------


def tasks_of(unit: Unit) -> dict[str, Function]:
    """The tasks of a unit by name, bound."""
    return {name: getattr(unit, name) for name in type(unit).__tasks__}


def threads_of(unit: Unit) -> dict[str, Function]:
    """The worker functions of a unit by name, bound."""
    return {name: getattr(unit, name) for name in type(unit).__threads__}


def main_of(unit: Unit) -> Function | None:
    """The main function of a unit, bound; None if it has none."""
    name = main_name(type(unit))
    return None if name is None else getattr(unit, name)


def main_name(cls: type[Unit]) -> str | None:
    """The attribute that holds the main function of a class of units."""
    return next((name for name in attributes(cls, lambda value: is_marked(value, MAIN_ATTR))), None)


def subscribed(unit: Unit, task: Function) -> InputStream | None:
    """The stream of this unit that one of its tasks receives from."""
    stream = getattr(task, SUBSCRIBES_ATTR, None)
    return None if stream is None else cast(InputStream, unit.streams[stream.name])


def published(unit: Unit, task: Function) -> list[OutputStream]:
    """The streams of this unit that one of its tasks publishes on."""
    return [cast(OutputStream, unit.streams[stream.name]) for stream in getattr(task, PUBLISHES_ATTR, ())]


def is_process(component: Component) -> bool:
    """Whether its class asks for a process of its own."""
    return bool(getattr(type(component), PROCESS_ATTR, False))
