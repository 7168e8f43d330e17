"""What a channel keeps of one message while its subscribers hold it."""

from __future__ import annotations

from typing import Any

import msgspec

from ezmsg.core.errors import EzmsgError
from ezmsg.core.recorder.calculated import TraceIds
from ezmsg.core.wire.messages import Trace


class CacheMiss(EzmsgError, KeyError):
    """A message is no longer (or was never) held by this channel."""

    code = "CACHE_MISS"


class Shared:
    """What the subscribers of one channel share of a message: who holds it, a bit each, and its object once decoded."""

    __slots__ = ("holders", "obj")

    def __init__(self, holders: int) -> None:
        self.holders = holders
        self.obj: Any = None


class CachedMessage(msgspec.Struct, gc=False):
    """One message for one subscriber: the object, its context, and what is left to do when it is released.

    A struct, because one is made per message: it takes a third of the time of a class with slots. Setting its fields
    takes longer, so the message path sets none.

    Attributes:
        subscription: Through which it came, a `messagechannel.Subscription`.
        message_id: Its number.
        obj: The message, or a `transport.Undecoded`.
        origin_s: When its source published the first message of its chain, in seconds of CLOCK_MONOTONIC.
        publish_s: When it was published.
        channel_s: When it arrived here.
        size: Its bytes; 0 where the very object is handed over.
        trace: Trace id and publish span id when it is sampled, or what calculates them, where nobody shares it.
        shared: Set where several subscribers hold the message.
        publisher: The endpoint index of the publisher for which the receiver records the publish as well, from
            `publish_s` to `channel_s`; 0 where the publisher has done so itself.
    """

    subscription: Any
    message_id: int
    obj: Any
    origin_s: float
    publish_s: float
    channel_s: float
    size: int = 0
    trace: Trace | TraceIds | None = None
    shared: Shared | None = None
    publisher: int = 0
