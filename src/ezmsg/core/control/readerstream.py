"""What a program reads with `async for`, and can ask why it ended."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Any, Protocol, TypeVar

logger = logging.getLogger("ezmsg")
V = TypeVar("V")


class Ending(Protocol):
    """What knows why a stream ends."""

    @property
    def ended(self) -> str:
        """Why there will be no more; empty while there may."""
        ...


class ReaderStream(AsyncGenerator[V, None]):
    """An async generator that says why it ended.

    Args:
        items: What it yields.
        ending: What knows why there are no more.
        name: How it is called in the log.
    """

    def __init__(self, items: AsyncGenerator[V, None], ending: Ending, name: str) -> None:
        self._items, self._ending, self._name = items, ending, name

    def __repr__(self) -> str:
        return f"<{self._name}{': ' + self.ended if self.ended else ''}>"

    @property
    def ended(self) -> str:
        """Why there will be no more; empty while there may be."""
        return self._ending.ended

    async def __anext__(self) -> V:
        try:
            return await anext(self._items)
        except StopAsyncIteration:
            if self.ended:
                logger.info("%s end: %s", self._name, self.ended)
            raise

    async def asend(self, value: Any) -> V:
        """As `anext`: nothing is sent into a stream."""
        return await self._items.asend(value)

    async def athrow(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
        /,
    ) -> V:
        """Raise an error where the stream waits."""
        error = typ() if isinstance(typ, type) else typ
        return await self._items.athrow(error)

    async def aclose(self) -> None:
        """Leave the stream."""
        await self._items.aclose()
