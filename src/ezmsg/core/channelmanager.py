"""The channels of this process: one for each publisher and event loop, shared by the subscribers there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from uuid import uuid4
from weakref import WeakKeyDictionary

from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.messagechannel import Channel
from ezmsg.core.net import forking
from ezmsg.core.net.address import boot_id
from ezmsg.core.transport.local import DOORS, CrossLoopLink, LocalLink
from ezmsg.core.transport.tcp import connect_channel
from ezmsg.core.wire.records import PublisherRoute


class LoopChannels:
    """The channels of one event loop; touched on that loop only."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[Channel, int]] = {}
        self._opening: dict[str, asyncio.Task[Channel]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def open(self, route: PublisherRoute) -> Channel:
        """The channel of a publisher, connected; each call wants its own `close`."""
        publisher_id = route.publisher_id
        while publisher_id not in self._open or self._open[publisher_id][0].is_ended:
            self._open.pop(publisher_id, None)
            opening = self._opening.get(publisher_id)
            if opening is None:
                opening = asyncio.create_task(self._connect(route), name=f"open channel {route.topic}")
                self._opening[publisher_id] = opening
                opening.add_done_callback(lambda _: self._opening.pop(publisher_id, None))
            # Shielded: another subscriber may wait for the same channel.
            await asyncio.shield(opening)
        channel, users = self._open[publisher_id]
        self._open[publisher_id] = (channel, users + 1)
        return channel

    def close(self, channel: Channel) -> None:
        """One user is done with the channel; the last one closes it."""
        known = self._open.get(channel.publisher_id)
        if known is not None and known[0] is channel:
            users = known[1] - 1
            if users > 0:
                self._open[channel.publisher_id] = (channel, users)
                return
            del self._open[channel.publisher_id]
        elif channel.has_subscribers:
            return
        channel.close()
        self._await_soon(channel.wait_closed())

    async def wait_closed(self) -> None:
        """Wait until the channels that were closed are gone."""
        while self._closing:
            await asyncio.wait(self._closing)

    async def _connect(self, route: PublisherRoute) -> Channel:
        channel = Channel(route.publisher_id, route.topic, route.num_buffers)
        local = DOORS.get(route.publisher_id) if route.pid == os.getpid() else None
        if local is None:
            inlet = await connect_channel(route, channel, str(uuid4()), same_host=route.boot_id == boot_id())
            channel.opened(inlet, ProfileChannelType.TCP)
        else:
            door, publisher_loop = local
            loop = asyncio.get_running_loop()
            if publisher_loop is loop:
                link = LocalLink(door, channel)
                link.attach()
                channel.opened(link, ProfileChannelType.LOCAL)
            else:
                link = CrossLoopLink(door, channel, publisher_loop, loop)
                channel.opened(link, ProfileChannelType.LOCAL)
                await link.attach_across()
        self._open[route.publisher_id] = (channel, 0)
        return channel

    def _await_soon(self, closing: Awaitable[None]) -> None:
        async def wait() -> None:
            await closing

        task = asyncio.create_task(wait())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class ChannelManager:
    """All channels of the process, by event loop."""

    def __init__(self) -> None:
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopChannels] = WeakKeyDictionary()

    def _here(self) -> LoopChannels:
        loop = asyncio.get_running_loop()
        channels = self._loops.get(loop)
        if channels is None:
            channels = self._loops[loop] = LoopChannels()
        return channels

    async def open(self, route: PublisherRoute) -> Channel:
        """The channel of a publisher on the running loop, connected; each call wants its own `close`."""
        return await self._here().open(route)

    def close(self, channel: Channel) -> None:
        """One user on the running loop is done with the channel; the last one closes it."""
        self._here().close(channel)

    async def wait_closed(self) -> None:
        """Wait until the channels closed on the running loop are gone."""
        await self._here().wait_closed()

    def clear(self) -> None:
        """Forget all, without telling anybody: for a forked child."""
        self._loops = WeakKeyDictionary()


CHANNELS = ChannelManager()


def _forget() -> None:
    CHANNELS.clear()
    DOORS.clear()


forking.on_fork(_forget)
