"""How late event loops are: what runs in them without a break holds up everything else.

A timer in each loop that has endpoints of a graph, five times a second; not oftener, as it wakes loops that have
nothing else to do. A loop that sleeps in the operating system wakes up to a millisecond late by itself: asyncio rounds
up to whole ones.
"""

from __future__ import annotations

import asyncio
import re
import threading
from typing import Final
from uuid import UUID
from weakref import WeakKeyDictionary

from ezmsg.core.profiling import ProfileRegistry
from ezmsg.core.recorder.processscope import LOOP_LAG

INTERVAL_S: Final = 0.2
_NUMBER: Final = re.compile(r"[-_ ]?\d+( \(.*\))?$")


class LoopLag:
    """Measures the loops that endpoints were opened in, as long as one of these is open."""

    def __init__(self, registry: ProfileRegistry) -> None:
        self._registry = registry
        self._meters: WeakKeyDictionary[asyncio.AbstractEventLoop, _Meter] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def endpoint_changed(self, endpoint: UUID, is_open: bool) -> None:
        """An endpoint opened, in the loop that runs in this thread, or closed, anywhere."""
        with self._lock:
            if not is_open:
                for meter in self._meters.values():
                    meter.endpoints.discard(endpoint)
                return
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                return
            meter = self._meters.get(loop)
            if meter is None:
                meter = self._meters[loop] = _Meter(self._registry)
            meter.endpoints.add(endpoint)
        meter.start(loop)


class _Meter:
    """Lives in one loop, which it does not keep alive: only a timer of the loop knows it."""

    def __init__(self, registry: ProfileRegistry) -> None:
        self.endpoints: set[UUID] = set()
        self._registry = registry
        self._name = loop_name()
        self._is_running = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._is_running:
            self._is_running = True
            self._set_timer(loop)

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        due_s = loop.time() + INTERVAL_S
        loop.call_at(due_s, self._ring, due_s)

    def _ring(self, due_s: float) -> None:
        loop = asyncio.get_running_loop()
        if not self.endpoints:
            self._is_running = False
            return
        recorder = self._registry.recorder
        if recorder.level != "off":
            recorder.process.observe(LOOP_LAG, self._name, round((loop.time() - due_s) * 1e9))
        self._set_timer(loop)


def loop_name() -> str:
    """How the loop of this thread is called: as the thread, without the numbers that tell threads apart."""
    thread = threading.current_thread()
    if thread is threading.main_thread():
        return "main"
    return _NUMBER.sub("", thread.name) or "thread"
