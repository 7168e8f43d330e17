"""What a channel keeps of one message while its subscribers hold it."""

from __future__ import annotations

from typing import Any

import msgspec

from ezmsg.core.errors import EzmsgError


class CacheMiss(EzmsgError, KeyError):
    """A message is no longer (or was never) held by this channel."""

    code = "CACHE_MISS"


class CachedMessage(msgspec.Struct, gc=False):
    """One message in one channel: the object, its context, and how many subscribers still hold it.

    `trace` is `(trace id, publish span id)` when the message is sampled, else None. Times are CLOCK_MONOTONIC ns: of
    its source (`origin_ns`), of the publisher (`publish_ns`) and of its arrival here (`channel_ns`). A struct, because
    one is made per message: it takes a third of the time of a class with slots.
    """

    message_id: int
    obj: Any
    origin_ns: int
    publish_ns: int
    channel_ns: int
    size: int
    trace: tuple[int, int] | None
    holders: int


class MessageContext:
    """The context of what is published while a sampled message is handled: its origin, trace and processing span."""

    __slots__ = ("origin_ns", "trace")

    def __init__(self, origin_ns: int, trace: tuple[int, int] | None) -> None:
        self.origin_ns = origin_ns
        self.trace = trace
