"""Generators that are sent messages and yield messages, and a unit around one."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Generator
from functools import reduce, wraps
from typing import Any, ParamSpec, TypeVar

import ezmsg.core as ez

P = ParamSpec("P")
Y = TypeVar("Y")
S = TypeVar("S")


def consumer(func: Callable[P, Generator[Y, S, None]]) -> Callable[P, Generator[Y, S, None]]:
    """Decorate a generator function so that its generators can be sent a message at once.

    What they yield before the first one is dropped.
    """

    @wraps(func)
    def primed(*args: P.args, **kwargs: P.kwargs) -> Generator[Y, S, None]:
        generator = func(*args, **kwargs)
        next(generator)
        return generator

    return primed


def compose(*funcs: Generator[Any, Any, None]) -> Callable[[Any], Any]:
    """A function that sends a value to the first generator, what that yields to the second, and so on."""
    return lambda value: reduce(lambda sent, generator: generator.send(sent), funcs, value)


class GenState(ez.State):
    """The state of a unit around a generator."""

    gen: Generator[Any, Any, None]
    """Ready to be sent a message."""


class Gen(ez.Unit):
    """Sends each message to a generator, and publishes what it yields, unless that is None.

    Subclasses make the generator. When it ends, so does the task.
    """

    STATE = GenState

    INPUT = ez.InputStream(Any)
    OUTPUT = ez.OutputStream(Any)

    async def initialize(self) -> None:
        """Make the generator."""
        self.construct_generator()

    def construct_generator(self) -> None:
        """Assign a generator to `self.STATE.gen`; `self.SETTINGS` may say how. One made by `consumer` will do."""
        raise NotImplementedError(f"{type(self).__qualname__} does not override construct_generator()")

    @ez.subscriber(INPUT)
    @ez.publisher(OUTPUT)
    async def on_message(self, message: Any) -> AsyncIterator[Any]:
        """Publish what the generator makes of a message."""
        output = send(self.STATE.gen, message)
        if output is not None:
            yield self.OUTPUT, output


def send(generator: Generator[Any, Any, None], message: Any) -> Any:
    """What a generator yields for a message; one that has not started is started first.

    Raises:
        Complete: It has ended.
    """
    try:
        if inspect.isgenerator(generator) and inspect.getgeneratorstate(generator) == inspect.GEN_CREATED:
            next(generator)
        return generator.send(message)
    except StopIteration:
        raise ez.Complete from None
