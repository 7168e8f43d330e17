"""A pipeline: one daemon thread that exports one signal, and never makes anybody wait for it.

What is exported, and when, is for the two subclasses (`SpanPipeline`, `MetricPipeline`); here is what they share: the
thread, the circuit breaker, flushing and stopping within a given time even while an export hangs, and one log
line for each change between working and failing.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from ezmsg.otel.breaker import Breaker
from ezmsg.otel.ledger import Ledger
from ezmsg.otel.outcome import Outcome, Sender
from ezmsg.otel.settings import Signal

Batch = TypeVar("Batch")

logger = logging.getLogger("ezmsg.otel")


class Pipeline(ABC, Generic[Batch]):
    """Exports one signal through one sender."""

    def __init__(self, signal: Signal, sender: Sender[Batch], ledger: Ledger) -> None:
        self._signal: Signal = signal
        self._sender = sender
        self._ledger = ledger
        self._breaker = Breaker()
        # Guards what the thread and its callers share; also in the subclasses.
        self._changed = threading.Condition()
        self._flushes_asked = 0
        self._flushes_done = 0
        self._flushed_all = False
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name=f"ezmsg.otel {signal}", daemon=True)

    def start(self) -> None:
        """Begin to export."""
        self._thread.start()

    def flush(self, timeout_s: float) -> bool:
        """Export everything there is, with one try where the receiver was failing.

        Returns:
            Whether everything was taken in time.
        """
        with self._changed:
            self._flushes_asked = ticket = self._flushes_asked + 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._flushes_done >= ticket or not self._thread.is_alive(), timeout_s)
            return self._flushes_done >= ticket and self._flushed_all

    def stop(self, timeout_s: float) -> bool:
        """End the thread; what still waits is dropped and counted.

        Returns:
            Whether the thread has ended. One that hangs in an export is left behind: it is a daemon.
        """
        with self._changed:
            was_stopping, self._is_stopping = self._is_stopping, True
            self._changed.notify_all()
        self._join(timeout_s / 2)
        if not was_stopping:
            # Not before: an export under way may be about to succeed. One that hangs may end by this.
            self._sender.close()
        self._join(timeout_s / 2)
        self._drop_backlog()
        return not self._thread.is_alive()

    def _join(self, timeout_s: float) -> None:
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    @abstractmethod
    def _due_in_s(self, now_s: float) -> float:
        """How long until there is something to export; called with the lock held."""

    @abstractmethod
    def _backlog(self) -> int:
        """How many items wait; called with the lock held."""

    @abstractmethod
    def _drop_backlog(self) -> None:
        """Give up, and count, what waits."""

    @abstractmethod
    def _take(self) -> Batch | None:
        """The next batch, None when there is nothing to send after all; called without the lock."""

    @abstractmethod
    def _settle(self, batch: Batch, outcome: Outcome) -> None:
        """Note what became of a batch; called without the lock."""

    def _run(self) -> None:
        while self._wait_until_due():
            goal = self._flushes_asked
            ok = self._export_once()
            with self._changed:
                if goal > self._flushes_done and (not ok or self._backlog() == 0):
                    self._flushes_done, self._flushed_all = goal, ok
                    self._changed.notify_all()

    def _wait_until_due(self) -> bool:
        """Wait for something to do; False when the pipeline is stopping."""
        with self._changed:
            while not self._is_stopping:
                if self._flushes_asked > self._flushes_done:
                    return True
                now_s = time.monotonic()
                wait_s = max(self._due_in_s(now_s), self._breaker.wait_s(now_s))
                if wait_s <= 0:
                    return True
                self._changed.wait(min(wait_s, threading.TIMEOUT_MAX))
            return False

    def _export_once(self) -> bool:
        try:
            batch = self._take()
        except Exception as error:  # whatever processes told, the pipeline goes on
            logger.debug("%s could not be collected", self._signal, exc_info=True)
            self._note(Outcome("lost", "failed", f"{type(error).__name__}: {error}"))
            return False
        if batch is None or self._is_stopping:
            return True
        started_ns = time.monotonic_ns()
        try:
            outcome = self._sender.send(batch)
        except Exception as error:  # whatever an exporter raises, the pipeline goes on
            logger.debug("the exporter of %s raised", self._signal, exc_info=True)
            outcome = Outcome("lost", "failed", f"{type(error).__name__}: {error}")
        self._ledger.took(self._signal, time.monotonic_ns() - started_ns)
        self._note(outcome)
        self._settle(batch, outcome)
        return outcome.verdict == "taken"

    def _note(self, outcome: Outcome) -> None:
        if outcome.verdict == "taken":
            if self._breaker.succeeded():
                logger.warning("%s reach %s again", self._signal, self._sender.target)
            return
        if self._breaker.failed(time.monotonic(), outcome.retry_after_s) and not self._is_stopping:
            logger.warning(
                "%s do not reach %s: %s. Trying again, less and less often, up to every 30 s",
                self._signal,
                self._sender.target,
                outcome.detail or outcome.reason,
            )
