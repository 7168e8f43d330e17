"""What the recorder needs to know of messages whose receivers record their publishes as well."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol


class PendingMessage(Protocol):
    """What is known of a message before its receiver is done with it."""

    message_id: int
    origin_s: float
    publish_s: float
    channel_s: float
    trace: Any
    publisher: int


class Holder(Protocol):
    """Who is to record publishes of messages that it has not let go of: those in its queue, and those taken from it.

    Holders of several publishers may share one queue.
    """

    @property
    def queue(self) -> deque[Any] | None:
        """Messages that wait."""
        ...

    @property
    def taken(self) -> Callable[[], Sequence[PendingMessage]]:
        """Tells, in any thread, messages that are handled."""
        ...


def nobody() -> None:
    """Nobody holds messages of a publisher."""
    return None
