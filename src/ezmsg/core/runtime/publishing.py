"""What tasks yield goes to publishers."""

from __future__ import annotations

import inspect
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Container
from types import CodeType
from typing import Any

from ezmsg.core.addressable import Addressable
from ezmsg.core.errors import InvalidResult, NotAddressed
from ezmsg.core.turns import ONE_TURN

logger = logging.getLogger("ezmsg")

Publish = Callable[[Any], Awaitable[None]]
"""Sends a message: `Publisher.broadcast`."""
Run = Callable[..., Awaitable[None]]
"""Runs a task, with the message it is for or without."""


class Outlets:
    """Where the tasks of this process can publish, by stream.

    Attributes:
        by_stream: How.
        exhausted: The code of generators that `publishing` exhausts or closes.
    """

    def __init__(self) -> None:
        self.by_stream: dict[Addressable, Publish] = {}
        self.exhausted: set[CodeType] = set()
        self._by_address: dict[str, Publish] = {}

    def add(self, stream: Addressable, publish: Publish) -> None:
        """What is yielded for `stream` is sent with `publish`."""
        self.by_stream[stream] = self._by_address[stream.address] = publish

    def find(self, stream: Any) -> Publish | None:
        """As `by_stream` has it, also for a copy of a stream; None for those of other processes."""
        try:
            return self._by_address.get(stream.address) if isinstance(stream, Addressable) else None
        except NotAddressed:
            return None

    def timed(self, name: str) -> Outlets:
        """The same, with a line in the log for each message: how long it took to publish."""
        outlets = Outlets()
        outlets.exhausted = self.exhausted
        for stream, publish in self.by_stream.items():
            outlets.add(stream, _timed(f"{name} on {stream.address}", publish))
        return outlets


def _timed(name: str, publish: Publish) -> Publish:
    async def timed(message: Any) -> None:
        began_s = time.perf_counter()
        await publish(message)
        logger.info("%s: publishing took %.3f ms", name, (time.perf_counter() - began_s) * 1e3)

    return timed


def spare_the_loop(exhausted: Container[CodeType | None]) -> None:
    """Have the running loop keep no list of generators that run to their end anyway, of which each message makes one.

    A loop closes what is on that list when it ends. To be put on it and taken off again costs a generator more than
    everything else: one µs of the seven that a unit takes for a message.
    """
    keep = sys.get_asyncgen_hooks().firstiter

    def began(generator: Any) -> None:
        try:
            if generator.ag_code in exhausted:
                return
        except AttributeError:
            pass  # Cython's have none
        if keep is not None:
            keep(generator)

    sys.set_asyncgen_hooks(firstiter=began)


def publishing(label: str, task: Callable[..., Any], outlets: Outlets) -> Run:
    """A task that publishes what it yields, and lets others run after each message.

    Args:
        label: `unit:name`.
        task: An async generator or coroutine function, or something else that returns what such a function does.
        outlets: Where it can publish; what is yielded for other streams is ignored, but told of once.
    """
    if inspect.iscoroutinefunction(task):
        return task
    publishes, find = outlets.by_stream, outlets.find
    is_told = False
    may_be_coroutine = not inspect.isasyncgenfunction(task)
    if not may_be_coroutine and (code := getattr(task, "__code__", None)) is not None:
        outlets.exhausted.add(code)

    async def run(*message: Any) -> None:
        nonlocal is_told
        outputs: Any = task(*message)
        if may_be_coroutine and not hasattr(outputs, "__aiter__"):
            if inspect.isawaitable(outputs):
                await outputs
            return
        try:
            async for output in outputs:
                try:
                    stream, obj = output
                    publish = publishes.get(stream) or find(stream)
                except (TypeError, ValueError) as error:
                    expected = "pairs (stream, message), as in: yield self.OUTPUT, message"
                    raise InvalidResult(label, error, expected) from None
                if publish is not None:
                    await publish(obj)
                    await ONE_TURN
                elif not is_told:
                    is_told = True
                    logger.warning("%s yields for %.100r, which is no output of this process: ignored", label, stream)
        except BaseException:
            await outputs.aclose()
            raise

    return run
