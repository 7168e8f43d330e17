"""Messages over TCP: between hosts, and where a publisher was told to use nothing else."""

from __future__ import annotations

import socket

from ezmsg.core.errors import HandshakeError
from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.net.address import Address, boot_id
from ezmsg.core.net.authkey import load_key
from ezmsg.core.net.dial import connect
from ezmsg.core.net.loglimit import LogLimiter
from ezmsg.core.transport import PublisherDoor, Receiver, Source
from ezmsg.core.transport.stream import DIAL_TIMEOUT_S, ChannelInlet, ChannelOutlet, join, opening_of
from ezmsg.core.wire.records import PublisherRoute

_LOG = LogLimiter()


async def welcome(door: PublisherDoor, _sock: socket.socket, peer: str) -> ChannelOutlet:
    """The publisher's end for a peer that came by TCP."""
    return ChannelOutlet(door, peer)


async def connect_channel(route: PublisherRoute, receiver: Receiver, channel_id: str) -> ChannelInlet:
    """Connect a channel to a publisher.

    Args:
        route: Where the publisher is.
        receiver: Gets the messages.
        channel_id: Names the channel to the publisher.

    Raises:
        ConnectionFailed: The publisher cannot be reached, or does not accept the channel.
    """
    try:
        sock, _ = await connect(Address(route.host, route.port), load_key(), DIAL_TIMEOUT_S)
    except HandshakeError as error:
        # A subscriber goes on trying, and only says that it cannot reach the publisher.
        _LOG.warning(error.code, f"no channel to the publisher on {route.topic}: {error}")
        raise
    is_foreign = route.boot_id != boot_id()
    inlet = ChannelInlet(receiver, opening_of(route, channel_id), Source(), is_foreign=is_foreign)
    await join(inlet, sock, ProfileChannelType.TCP, receiver)
    return inlet
