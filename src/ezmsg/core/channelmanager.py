"""The channels of this process: one for each publisher and event loop, shared by the subscribers there."""

from __future__ import annotations

import asyncio
import contextlib
import os
from uuid import uuid4
from weakref import WeakKeyDictionary

from ezmsg.core.errors import CannotConnect
from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.messagechannel import Channel
from ezmsg.core.net import forking
from ezmsg.core.net.address import boot_id
from ezmsg.core.transport import shm, tcp
from ezmsg.core.transport.local import DOORS, CrossLoopLink, LocalLink
from ezmsg.core.wire.records import PublisherRoute


async def connect_channel(route: PublisherRoute, channel: Channel, channel_id: str) -> None:
    """Connect a channel to a publisher of another process (or, without local delivery, of this one).

    Raises:
        ConnectionFailed: The publisher cannot be reached, or does not accept the channel.
    """
    if route.door and route.boot_id == boot_id():
        # Another network namespace of the same host has no such door: then TCP.
        with contextlib.suppress(CannotConnect):
            await shm.connect_channel(route, channel, channel_id)
            return
    await tcp.connect_channel(route, channel, channel_id)


class LoopChannels:
    """The channels of one event loop; touched on that loop only."""

    def __init__(self) -> None:
        # Connected or about to be, by publisher; one that ended gives its place to the next.
        self._channels: dict[str, Channel] = {}
        self._connecting: dict[Channel, asyncio.Task[None]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def open(self, route: PublisherRoute) -> Channel:
        """The channel of a publisher, connected; each call that returns wants its own `close`."""
        channel = self._channels.get(route.publisher_id)
        if channel is None or channel.is_ended:
            channel = Channel(route.publisher_id, route.topic, route.num_buffers)
            self._channels[route.publisher_id] = channel
            self._connecting[channel] = asyncio.create_task(
                self._connect(route, channel), name=f"open channel {route.topic}"
            )
        channel.users += 1
        try:
            # Shielded: another subscriber may wait for the same channel.
            await asyncio.shield(self._connecting[channel])
        except BaseException:
            self.close(channel)
            raise
        return channel

    def close(self, channel: Channel) -> None:
        """One user is done with the channel; the last one closes it."""
        channel.users -= 1
        if channel.users:
            return
        if self._channels.get(channel.publisher_id) is channel:
            del self._channels[channel.publisher_id]
        connecting = self._connecting.pop(channel)
        if connecting.done():
            channel.close()
        else:
            connecting.cancel()
        closing = asyncio.create_task(self._closed(channel, connecting), name=f"close channel {channel.topic}")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    @property
    def is_settled(self) -> bool:
        """Whether the channels that were closed are gone."""
        return not self._closing

    async def wait_closed(self) -> None:
        """Wait until the channels that were closed are gone."""
        while self._closing:
            await asyncio.wait(self._closing)

    async def _connect(self, route: PublisherRoute, channel: Channel) -> None:
        local = DOORS.get(route.publisher_id) if route.pid == os.getpid() else None
        if local is None:
            await connect_channel(route, channel, str(uuid4()))
            return
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

    async def _closed(self, channel: Channel, connecting: asyncio.Task[None]) -> None:
        """Wait until nothing is left of a channel; one that could not be connected has seen to that itself."""
        await asyncio.wait([connecting])
        if not connecting.cancelled() and connecting.exception() is None:
            channel.close()
            await channel.wait_closed()


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

    @property
    def is_settled(self) -> bool:
        """Whether `wait_closed` has nothing to wait for."""
        return self._here().is_settled

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
