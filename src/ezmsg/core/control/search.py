"""What the links of a loop to a GraphServer share: one looks for a server that was lost, all hear when it has ended."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary, WeakValueDictionary

from ezmsg.core.control import dial
from ezmsg.core.errors import EzmsgError, ServerUnreachable
from ezmsg.core.net import forking
from ezmsg.core.net.address import Address
from ezmsg.core.net.loglimit import LogLimiter

logger = logging.getLogger("ezmsg")
# A process may have many places in the graph: one line for all of them.
LOG = LogLimiter()

# Between attempts to reach it: doubled after each, up to the most.
LOOK_FIRST_S = 0.05
LOOK_MOST_S = 0.25
# Links that connect at once: a server lets so many more peers wait before they have proved who they are.
DIALS_AT_ONCE = 32

_searches: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakValueDictionary[Address, Search]] = WeakKeyDictionary()


class Search:
    """The search of one loop for the server at one address; it lives while there is a link.

    A process may have hundreds of links: if each of them tried for itself, 500 would cost a fifth of a core for as long
    as the server is gone.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._is_found = False
        self._delay_s = LOOK_FIRST_S
        # Held by the link that looks.
        self._looking = asyncio.Lock()
        self._dialling = asyncio.Semaphore(DIALS_AT_ONCE)
        # Links that lost it, to be told if that was its end; and what it said at its end, and when.
        self._lost: set[Callable[[str], None]] = set()
        self._goodbye = ""
        self._goodbye_s = -math.inf

    @classmethod
    def of(cls, address: Address) -> Search:
        """The search of the running loop for the server at this address."""
        of_loop = _searches.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
        search = of_loop.get(address)
        if search is None:
            search = of_loop[address] = cls(address)
        return search

    def goodbye(self, reason: str) -> None:
        """The server said to a link that it ends: it has ended for those, too, whose connection was cut."""
        self._goodbye, self._goodbye_s = reason, asyncio.get_running_loop().time()
        while self._lost:
            self._lost.pop()(reason)

    def goodbye_since(self, time_s: float) -> str:
        """What the server said at its end, if that was since then; empty if it was not."""
        return self._goodbye if self._goodbye_s >= time_s else ""

    def looks(self, ended: Callable[[str], None]) -> None:
        """Call this with what the server said, should that have ended in order."""
        self._lost.add(ended)

    def looks_no_more(self, ended: Callable[[str], None]) -> None:
        """Do not call it any more."""
        self._lost.discard(ended)

    def lost(self) -> None:
        """The server is not there (any more)."""
        if self._is_found:
            self._is_found, self._delay_s = False, LOOK_FIRST_S

    @asynccontextmanager
    async def found(self) -> AsyncGenerator[None]:
        """Wait until the server is there, and until it is this link's turn to connect."""
        async with self._looking:
            while not self._is_found:
                # Processes do not come all at once.
                await asyncio.sleep(self._delay_s * random.uniform(0.5, 1.0))
                self._delay_s = min(2 * self._delay_s, LOOK_MOST_S)
                self._is_found = await self._look()
        async with self._dialling:
            yield

    async def _look(self) -> bool:
        """Whether a server of our graph is there."""
        try:
            sock, _ = await dial(self._address)
        except ServerUnreachable as absent:
            logger.debug("%s", absent)
        except (OSError, EzmsgError) as error:
            LOG.warning(f"stranger at {self._address}", f"no way back to {self._address} yet: {error}")
        else:
            sock.close()
            return True
        return False


forking.on_fork(_searches.clear)
