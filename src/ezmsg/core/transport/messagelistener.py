"""Where channels of other processes reach a publisher: on TCP, and on a Unix door of this host."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable

from ezmsg.core import config
from ezmsg.core.net.address import Address
from ezmsg.core.net.authkey import load_key
from ezmsg.core.net.door import open_door
from ezmsg.core.net.listener import Listener, bind_tcp
from ezmsg.core.transport.stream import LINGER_S, ChannelOutlet
from ezmsg.core.wire.handshake import PeerInfo

logger = logging.getLogger("ezmsg")

Welcome = Callable[[socket.socket, str], Awaitable[ChannelOutlet]]
"""Makes the outlet of a peer that came in through a socket; it may talk over the socket first."""


class MessageListener:
    """Where channels of other processes reach a publisher."""

    def __init__(self, address: Address, door: str) -> None:
        self.address = address
        self.door = door
        self._listener: Listener | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._outlets: set[ChannelOutlet] = set()

    @classmethod
    async def open(
        cls, name: str, host: str | None, port: int | None, welcome: Welcome, *, with_door: bool
    ) -> MessageListener:
        """Listen on TCP and, where the host has such a thing and it is wanted, on a Unix door.

        Args:
            name: What the publisher is called in the log.
            host: Interface; None for loopback.
            port: None for the first free one from EZMSG_PUBLISHER_PORT_START.
            welcome: Makes an outlet for each peer.
            with_door: Whether to offer the door.

        Raises:
            OSError: The address cannot be bound.
            InsecureBind: `host` is not loopback and no key was configured.
        """
        key = load_key()
        tcp = bind_tcp(
            host or config.DEFAULT_HOST, port, key,
            search_from=config.publisher_port_start(), skip={config.GRAPHSERVER_PORT_DEFAULT},
        )  # fmt: skip
        sockets = [tcp]
        door_name = ""
        if with_door:
            door_socket, door_name = open_door()
            if door_socket is not None:
                sockets.append(door_socket)
        self = cls(Address(*tcp.getsockname()[:2]), door_name)
        loop = asyncio.get_running_loop()

        def on_peer(sock: socket.socket, info: PeerInfo, peer: str) -> None:
            task = loop.create_task(self._serve(welcome, sock, peer), name=f"channel to {peer}")
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

        self._listener = await Listener.start(sockets, key, on_peer, name=name)
        return self

    async def _serve(self, welcome: Welcome, sock: socket.socket, peer: str) -> None:
        try:
            outlet = await welcome(sock, peer)
        except OSError as error:
            logger.debug("%s hung up before its channel was open: %s", peer, error)
            sock.close()
            return
        except BaseException:
            sock.close()
            raise
        await outlet.attach(sock)
        self._outlets.add(outlet)
        try:
            await outlet.wait_closed()
        finally:
            self._outlets.discard(outlet)

    async def close(self) -> None:
        """Accept nobody any more, and wait until every channel got what was sent to it and is closed."""
        assert self._listener is not None
        await self._listener.close()
        while self._serving:
            for outlet in self._outlets:
                outlet.close_soon()
            await asyncio.wait(self._serving, return_when=asyncio.FIRST_COMPLETED, timeout=LINGER_S)
