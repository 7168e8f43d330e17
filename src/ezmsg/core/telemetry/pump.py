"""The thread that carries what a process measured to its GraphServers. One per process, while it has endpoints.

`install()` hooks it into a registry: it starts with the first endpoint, ends with the last, and never keeps the
interpreter alive. An orderly exit says goodbye (`atexit`); children of multiprocessing skip that and call `shutdown`.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import os
import platform
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable
from functools import partial
from pathlib import Path
from typing import Final

from ezmsg.core import config
from ezmsg.core.net import forking
from ezmsg.core.net.address import Address, boot_id
from ezmsg.core.net.authkey import load_key
from ezmsg.core.net.dial import connect_blocking
from ezmsg.core.profiling import PROFILES, ProfileRegistry
from ezmsg.core.telemetry import extension
from ezmsg.core.telemetry.collect import Collector
from ezmsg.core.telemetry.link import Dial, Listener, TelemetryLink
from ezmsg.core.telemetry.looplag import LoopLag
from ezmsg.core.telemetry.operations import answer
from ezmsg.core.telemetry.overhead import Overhead
from ezmsg.core.wire.records import OpenTelemetry
from ezmsg.core.wire.records.fields import LONGEST_NAME

logger = logging.getLogger("ezmsg")

INTERVAL_S: Final = 0.5
CALM_S: Final = 5.0
CALM_INTERVAL_S: Final = 1.0
"""How often once nobody has opened or closed an endpoint, or asked for anything, for CALM_S. A turn takes a millisecond
or two, however little there is to read: where a process handles a hundred messages a second, a tenth of all it does."""
SHORTEST_S: Final = 0.005
PAUSE_S: Final = 100e-6
"""Between two steps of reading, some 0.2 ms each: a loop that wakes meanwhile waits for one of them, not for all. Long
enough for a thread that waits for the interpreter to wake up, and take it."""
RING_SHARE: Final = 0.5
"""No ring shall be fuller than this, at the rate of the last interval, when it is read next."""
EXIT_TIMEOUT_S: Final = 1.0

_started_unix_ns = time.time_ns()


def dial_server(graph: str, timeout_s: float) -> socket.socket:
    """An authenticated socket to the GraphServer at `host:port`.

    Raises:
        ConnectionFailed: There is none, or it does not let us in.
        AuthKeyError: There is no key.
    """
    return connect_blocking(Address.from_string(graph), load_key(), timeout_s)[0]


_name: str | None = None


def name_process(name: str | None) -> None:
    """Call this process so in telemetry, from its next link on; None for what it is called otherwise."""
    global _name
    _name = name


@contextlib.contextmanager
def named(name: str) -> Generator[None]:
    """Call this process so within the block."""
    before = _name
    name_process(name)
    try:
        yield
    finally:
        name_process(before)


def process_name(default: str | None = None) -> str:
    """What this process is called in telemetry: as it was named, else EZMSG_PROCESS_NAME, `default`, its script."""
    script = Path(sys.argv[0] if sys.argv else "").name
    name = _name or config.text("EZMSG_PROCESS_NAME") or default or script or "python"
    # The name of a file need not be text, and what is not cannot travel.
    return name[:LONGEST_NAME].encode(errors="replace").decode()


def say_hello(link_id: str) -> OpenTelemetry:
    """Who this process is."""
    return OpenTelemetry(
        pid=os.getpid(),
        host=os.uname().nodename,
        boot_id=boot_id(),
        process_name=process_name(),
        started_unix_ns=_started_unix_ns,
        mono_ns=time.perf_counter_ns(),
        unix_ns=time.time_ns(),
        link_id=link_id,
        runtime=f"{platform.python_implementation()} {platform.python_version()}",
    )


class TelemetryPump:
    """Links by graph address, and the thread that drives them.

    Args:
        registry: What to read.
        dial: How to reach a server.
        extend: Called with the first endpoint, in its thread; returns who else hears what the links tell.
    """

    def __init__(
        self,
        registry: ProfileRegistry,
        dial: Dial = dial_server,
        extend: Callable[[], Listener | None] = extension.load,
    ) -> None:
        self._registry, self._dial, self._extend = registry, dial, extend
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._lag = LoopLag(self._registry)
        self._waker: Waker | None = None
        self._links: dict[str, TelemetryLink] = {}
        self._thread: threading.Thread | None = None
        self._listener: Listener | None = None
        self._is_ending = False
        self._deadline_s = 0.0
        self._flushing: list[Callable[[], None]] = []
        # Graphs to which nothing is told any more, until their links are over.
        self._abandoned: set[str] = set()

    def install(self) -> None:
        """Start with the first endpoint of a graph, from now on."""
        self._registry.set_wake(self._wake_up)
        self._registry.set_flush(self.flush_soon)
        self._registry.set_first_endpoint_hook(self._graph_changed)
        self._registry.set_endpoint_hook(lambda endpoint, is_open: self._lag.endpoint_changed(endpoint, is_open))

    def flush_soon(self, done: Callable[[], None]) -> None:
        """Send what was recorded so far; `done` is called when that is done, or there is nobody to send to."""
        with self._lock:
            is_running = self._thread is not None
            if is_running:
                self._flushing.append(done)
        if is_running:
            self._wake_up()
        else:
            done()

    def flush(self, timeout_s: float = EXIT_TIMEOUT_S) -> bool:
        """Send what was recorded so far; whether that was done in time (or there was nobody to send to)."""
        done = threading.Event()
        self.flush_soon(done.set)
        return done.wait(timeout_s)

    def shutdown(self, timeout_s: float = EXIT_TIMEOUT_S) -> None:
        """Send the rest, say goodbye to every server, end the thread; does not wait for a server that is not there."""
        with self._lock:
            thread = self._thread
            self._is_ending, self._deadline_s = True, time.monotonic() + timeout_s
            if self._links and self._links.keys() <= self._abandoned:
                return  # nobody is left to hear anything
        self._wake_up()
        if thread is not None:
            thread.join(timeout_s)

    def abandon(self, graph: str) -> None:
        """Tell a graph nothing of the end of its endpoints here: it ends, too, and nobody is left to hear it."""
        with self._lock:
            if graph in self._links:
                self._abandoned.add(graph)

    def is_linking(self, graph: str) -> bool:
        """Whether a graph has a link that is not connected, or just about to be."""
        link = self._links.get(graph)
        return link is not None and link.socket is None

    def after_fork(self) -> None:
        """In a forked child: nothing is linked."""
        for link in self._links.values():
            link.close()
        self._begin()

    # -- called by the registry, in the threads of endpoints ----------------------------------------------------------

    def _graph_changed(self, graph: str, has_endpoints: bool) -> None:
        if has_endpoints:
            if self._thread is None:
                # Not in our own thread: a program may well be over before a large import is.
                self._listener = self._extend()
            with self._lock:
                if self._is_ending:
                    return
                # Its endpoints were closed: whose are opened now are of another graph at the address.
                self._abandoned.discard(graph)
                if graph not in self._links:
                    self._links[graph] = TelemetryLink(
                        graph, Collector(self._registry, graph, with_system=True, pause=self._pause), say_hello,
                        self._registry.set_anchor, partial(answer, self._registry, graph), self._dial,
                        listener=self._listener,
                    )  # fmt: skip
                if self._thread is None:
                    # A daemon: it must not keep the interpreter alive.
                    self._waker = Waker()
                    self._thread = threading.Thread(
                        target=self._run, args=[self._waker], name="ezmsg telemetry", daemon=True
                    )
                    self._thread.start()
        self._wake_up()

    def _wake_up(self) -> None:
        waker = self._waker
        if waker is not None:
            waker.wake()

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self, waker: Waker) -> None:
        pace = Pace(config.trace_push_interval_s())
        overhead = Overhead()
        is_forced = True
        while True:
            with self._lock:
                links, flushing = dict(self._links), self._flushing
                self._flushing = []
            if self._is_ending:
                for graph, link in links.items():
                    self._finish(graph, link)
                self._drop(links)
                wait_s, is_stuck = 0.0, False
            else:
                wait_s, is_stuck = self._step(links, pace, is_forced=is_forced)
                overhead.turn(self._registry.recorder)
            with self._lock:
                if is_stuck and self._links:
                    self._flushing += flushing
                else:
                    for done in flushing:
                        done()
                if not self._links:
                    self._thread = self._waker = None
                    for done in self._flushing:
                        done()
                    break
            is_forced = waker.wait(wait_s, links.values())
        waker.close()

    def _step(self, links: dict[str, TelemetryLink], pace: Pace, *, is_forced: bool) -> tuple[float, bool]:
        """One turn; returns how long until the next, and whether a server does not take what there is."""
        recorder = self._registry.recorder
        pace.turn(time.monotonic(), recorder.unread(), is_forced=is_forced)
        if self._abandoned:
            links = self._without_abandoned(links)
            if not links:
                return 0.0, False
        if not any(link.socket for link in links.values()):
            # No server listens: totals go on, rows wait in bounded stores.
            with recorder.reading:
                recorder.drain(self._pause)
        delays = [math.inf]
        for graph, link in links.items():
            is_wanted = self._registry.has_endpoints(graph) and not link.is_stale
            try:
                delays.append(link.step(rows_only=pace.is_rows_only, is_wanted=is_wanted))
            except Exception:
                logger.exception("the telemetry link to %s failed, and is given up", graph)
                link.abandon()
        self._drop({graph: link for graph, link in links.items() if link.is_over})
        is_stuck = any(link.is_stuck for link in links.values())
        return min(*delays, pace.wait_s(is_tracing=self._registry.trace_enabled())), is_stuck

    def _without_abandoned(self, links: dict[str, TelemetryLink]) -> dict[str, TelemetryLink]:
        # A link that went while there are endpoints would only come back.
        over = {
            graph: links[graph] for graph in links.keys() & self._abandoned if not self._registry.has_endpoints(graph)
        }
        for link in over.values():
            link.abandon()
        self._drop(over)
        return {graph: link for graph, link in links.items() if graph not in over}

    def _pause(self) -> None:
        # Not when nobody writes any more: somebody waits for the end of this process.
        if self._registry.has_any_endpoints and not self._is_ending:
            time.sleep(PAUSE_S)

    def _finish(self, graph: str, link: TelemetryLink) -> None:
        try:
            if graph in self._abandoned:
                link.abandon()
            else:
                link.finish(self._deadline_s)
        except Exception:
            logger.exception("a telemetry link could not say goodbye")
        link.close()

    def _drop(self, over: dict[str, TelemetryLink]) -> None:
        """Links that are over make room for new ones, which may have been asked for meanwhile."""
        for graph, link in over.items():
            with self._lock:
                if self._links.get(graph) is link:
                    del self._links[graph]
                    self._abandoned.discard(graph)
            if self._registry.has_endpoints(graph):
                self._graph_changed(graph, True)


class Waker:
    """Lets other threads, and servers that say something, end a wait."""

    def __init__(self) -> None:
        """Make it; close it."""
        with forking.no_fork():
            self._reader, self._writer = map(forking.track, socket.socketpair())
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def wake(self) -> None:
        """End the wait that is on, or the next one. May be called from any thread."""
        # Full means that it is woken already; closed, that nobody waits.
        with contextlib.suppress(OSError):
            self._writer.send(b"!")

    def wait(self, timeout_s: float, links: Iterable[TelemetryLink]) -> bool:
        """Wait until woken, until a link can go on, or so many seconds; whether it was woken."""
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        for link in links:
            if link.socket is not None:
                poll.register(link.socket, select.POLLIN | (select.POLLOUT if link.is_stuck else 0))
        poll.poll(max(0, math.ceil(timeout_s * 1000)))
        try:
            return bool(self._reader.recv(4096))
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Let go of the descriptors."""
        self._reader.close()
        self._writer.close()


class Pace:
    """How often rings are read: often enough that none fills up, and that a trace is seen soon."""

    def __init__(self, trace_interval_s: float) -> None:
        """Begin with a full turn."""
        self._trace_interval_s = trace_interval_s
        self._last_s = self._full_s = self._asked_s = -math.inf
        self._interval_s = self._limit_s = INTERVAL_S
        self.is_rows_only = False

    def turn(self, now_s: float, unread: float, *, is_forced: bool) -> None:
        """Rings are read now, the fullest being `unread` full (0 to 1); everything else is told once an interval."""
        elapsed_s, self._last_s = now_s - self._last_s, now_s
        if is_forced or elapsed_s == math.inf:
            self._asked_s = now_s
        self._interval_s = INTERVAL_S if now_s - self._asked_s < CALM_S else CALM_INTERVAL_S
        if unread > 0 and elapsed_s < math.inf:
            self._limit_s = max(SHORTEST_S, elapsed_s * RING_SHARE / unread)
        else:
            self._limit_s = self._interval_s
        self.is_rows_only = not is_forced and now_s - self._full_s < self._interval_s
        if not self.is_rows_only:
            self._full_s = now_s

    def wait_s(self, *, is_tracing: bool) -> float:
        """Seconds until the next turn."""
        return min(self._interval_s, self._limit_s, self._trace_interval_s if is_tracing else self._interval_s)


PUMP = TelemetryPump(PROFILES)


def install() -> None:
    """Carry what PROFILES measures to the GraphServers, from the first endpoint on."""
    PUMP.install()


def abandon(graph: str) -> None:
    """Tell a graph nothing of the end of its endpoints here: it ends, too, and nobody is left to hear it."""
    PUMP.abandon(graph)


def is_linking(graph: str) -> bool:
    """Whether telemetry may be on its way to a graph that it has not reached yet."""
    return PUMP.is_linking(graph)


def flush(timeout_s: float = EXIT_TIMEOUT_S) -> bool:
    """Send what was recorded so far; whether that was done in time."""
    return PUMP.flush(timeout_s)


def shutdown(timeout_s: float = EXIT_TIMEOUT_S) -> None:
    """Say goodbye to every server; for processes that end without `atexit`, as children of multiprocessing do."""
    PUMP.shutdown(timeout_s)


def _began_here() -> None:
    """In a forked child: what it measures begins with it."""
    global _started_unix_ns
    _started_unix_ns = time.time_ns()


forking.on_fork(_began_here)
forking.on_fork(PUMP.after_fork)
atexit.register(shutdown)
