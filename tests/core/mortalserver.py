"""A GraphServer of this process that can die without a word."""

from __future__ import annotations

from ezmsg.core.graphserver import GraphServer
from ezmsg.core.net.address import Address
from ezmsg.core.server.journal import Journal
from tests.ports import KeptPort


class MortalServer(GraphServer):
    """Dies as a process does that is killed: its peers lose their connections, and its journal stays."""

    _is_dying = False

    def die(self) -> None:
        self._is_dying = True
        self._journal = Journal()
        self.stop()

    async def _goodbye(self) -> None:
        if self._is_dying:
            for connection in self._peers:
                connection.abort()
        await super()._goodbye()


class Successors:
    """Servers at one address, one after the other."""

    def __init__(self) -> None:
        self._port = KeptPort()
        self.address: Address = self._port.address
        self.start()

    def start(self) -> None:
        self.server = MortalServer()
        self.server.start(self.address)

    def restart(self) -> None:
        self.server.die()
        self.start()

    def close(self) -> None:
        """End the last one; none follows."""
        self.server.stop()
        self._port.close()
