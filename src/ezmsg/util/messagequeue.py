"""A queue between units that do not run at the same pace."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from copy import deepcopy
from typing import Any

import ezmsg.core as ez
from ezmsg.util.rate import Rate

logger = logging.getLogger("ezmsg")


class MessageQueueSettings(ez.Settings):
    """Settings of a MessageQueue."""

    maxsize: int = 0
    """Messages that wait in it at most; 0 for as many as there is memory for."""
    leaky: bool = False
    """Whether a full queue drops its oldest message; otherwise it holds publishers up."""
    log_above_n: int | None = None
    """Log a warning when more messages than this wait; None for never."""
    output_hz: float | None = None
    """Messages it publishes per second at most; None for as many as it can."""


class MessageQueueState(ez.State):
    """State of a MessageQueue."""

    msg_queue: asyncio.Queue[Any]
    dropped: int = 0
    """Messages that a full queue dropped."""
    is_long: bool = False
    """Whether more messages wait than is good."""


class MessageQueue(ez.Unit):
    """Publishes what it receives, in order, when it is taken: its publishers need not wait for its subscribers.

    Messages are copied when they enter, because their memory is used again once they are received.
    """

    SETTINGS = MessageQueueSettings
    STATE = MessageQueueState

    INPUT = ez.InputStream(Any)
    OUTPUT = ez.OutputStream(Any)

    async def initialize(self) -> None:
        """Make the queue."""
        self.STATE.msg_queue = asyncio.Queue(self.SETTINGS.maxsize)

    async def shutdown(self) -> None:
        """Say what was lost."""
        if self.STATE.dropped:
            logger.warning("%s dropped %d messages, because it was full", self.address, self.STATE.dropped)

    @ez.subscriber(INPUT)
    async def on_message(self, message: Any) -> None:
        """Put a message into the queue."""
        queue = self.STATE.msg_queue
        if self.SETTINGS.leaky and queue.full():
            queue.get_nowait()
            self.STATE.dropped += 1
            if self.STATE.dropped == 1:
                logger.warning("%s is full and drops its oldest messages", self.address)
        await queue.put(deepcopy(message))
        self._watch(queue.qsize())

    def _watch(self, size: int) -> None:
        limit = self.SETTINGS.log_above_n
        is_long = limit is not None and size > limit
        if is_long and not self.STATE.is_long:
            logger.warning("%s has %d messages waiting, more than %s", self.address, size, limit)
        self.STATE.is_long = is_long

    @ez.publisher(OUTPUT)
    async def send_message(self) -> AsyncIterator[Any]:
        """Publish what is in the queue."""
        rate = Rate(self.SETTINGS.output_hz) if self.SETTINGS.output_hz else None
        while True:
            message = await self.STATE.msg_queue.get()
            yield self.OUTPUT, message
            if rate is not None:
                await rate.sleep()
