"""Notices that the host of a peer has vanished: power off, cable cut.

A connection on which nothing is under way is asked by keepalive probes (`address.tune_tcp`). With data under way Linux
sends no such probes; it repeats the data for a quarter of an hour, and a publisher waits as long for its slots. The
option TCP_USER_TIMEOUT bounds that, but it also ends connections to peers that are there and only take nothing for a
while, such as a program that computes, or stands in a debugger. So each end of a connection looks now and then whether
what it sent is answered at all. (The system asks a peer that takes nothing ever more seldom, at last every two minutes:
where one vanishes that has taken nothing for minutes, it is two such questions until that is noticed.)
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable

# Of struct tcp_info: how often data was repeated, and how often the peer was asked whether its window is still closed,
# each since the last answer; and how long ago that was, in ms.
_COUNTS = struct.Struct("2xBB")
_LAST_ANSWER = struct.Struct("56xI")
LOOKS = 6
"""Within the time that a host may be silent."""


def can_watch(sock: socket.socket) -> bool:
    """Whether this system tells what `PeerWatch` wants to know."""
    return hasattr(socket, "TCP_INFO") and sock.family in (socket.AF_INET, socket.AF_INET6)


class PeerWatch:
    """Watches one TCP connection of the running loop.

    Args:
        sock: The connection.
        timeout_s: How long the host may be silent.
        on_vanished: Called once, with the reason, when it was.
    """

    def __init__(self, sock: socket.socket, timeout_s: float, on_vanished: Callable[[OSError], None]) -> None:
        self._sock = sock
        self._timeout_ms = timeout_s * 1000
        self._interval_s = timeout_s / LOOKS
        self._on_vanished = on_vanished
        self._is_suspected = False
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._interval_s, self._look)

    def _look(self) -> None:
        unanswered_ms = self._unanswered_ms()
        # A peer whose window is closed is asked less and less often, and may be seen just while a question is on its
        # way: only one that is still unanswered at the next look counts.
        if self._is_suspected and unanswered_ms >= self._timeout_ms:
            self._on_vanished(TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))
            return
        self._is_suspected = unanswered_ms >= self._timeout_ms / LOOKS
        self._timer = self._loop.call_later(self._interval_s, self._look)

    def _unanswered_ms(self) -> int:
        """How long ago the peer answered for the last time; 0 when it owes no answer."""
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_ANSWER.size)
        except OSError:
            return 0
        repeated, asked = _COUNTS.unpack_from(info)
        # The answer may come before the question is counted: one is none.
        return _LAST_ANSWER.unpack(info)[0] if repeated or asked > 1 else 0

    def cancel(self) -> None:
        """Watch no more."""
        self._timer.cancel()
