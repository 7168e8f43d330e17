"""A program that runs a graph, for tests that send it signals: `python shutdown_runner.py SCENARIO [METHOD [left]]`.

METHOD is `single` (all units in this process), or a start method of multiprocessing: then SOURCE, which does what the
scenario says, runs in a process of its own. With `left` both do, and the program ends without stopping them.

Lines on standard output tell what happens: `running`, `PID ADDRESS` of each unit when it works, `bye ADDRESS` when it
is shut down, `returned` when `run` is.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator
from typing import Any

import ezmsg.core as ez
from ezmsg.core.runtime import coordinator, loopthread, participant

if "PATIENT" in os.environ:
    # What ends in order may take long on a busy machine; only what never ends is given up as soon as users want.
    participant.GRACE_S = loopthread.GRACE_S = coordinator.REACT_S = coordinator.CLOSE_S = coordinator.EXIT_S = 40.0

warnings.filterwarnings("ignore", category=DeprecationWarning, message="thread is deprecated")


def say(*words: object) -> None:
    """One line, also from several processes at once."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Reporter(ez.Unit):
    """Says that it works, and that it was shut down."""

    async def shutdown(self) -> None:
        say("bye", self.address)

    def works(self) -> None:
        say(os.getpid(), self.address)


class Sink(Reporter):
    INPUT = ez.InputStream(int)

    async def initialize(self) -> None:
        self.received: list[int] = []

    @ez.subscriber(INPUT)
    async def receive(self, number: int) -> None:
        if not self.received:
            self.works()
        self.received.append(number)


class ReceivesUntilLast(Reporter):
    INPUT = ez.InputStream(int)

    async def initialize(self) -> None:
        self.received: list[int] = []

    @ez.subscriber(INPUT)
    async def receive(self, number: int) -> None:
        self.received.append(number)
        if number < 0:
            say("received", len(self.received))
            raise ez.Complete


class Publishes(Reporter):
    """Publishes until it is told to end; what its subclasses override decides what happens then."""

    OUTPUT = ez.OutputStream(int)

    @ez.publisher(OUTPUT)
    async def publish(self) -> AsyncIterator[Any]:
        self.works()
        number = 0
        while True:
            yield self.OUTPUT, number
            number += 1
            await asyncio.sleep(0.01)


class Completes(Publishes):
    @ez.publisher(Publishes.OUTPUT)
    async def publish(self) -> AsyncIterator[Any]:
        self.works()
        for number in range(99):
            yield self.OUTPUT, number
        yield self.OUTPUT, -1
        raise ez.Complete


class Terminates(Publishes):
    @ez.publisher(Publishes.OUTPUT)
    async def publish(self) -> AsyncIterator[Any]:
        self.works()
        yield self.OUTPUT, 0
        raise ez.NormalTermination


class RaisesWhenCancelled(Publishes):
    @ez.task
    async def publish(self) -> None:
        self.works()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RuntimeError("cancelled at a bad moment") from None


class IgnoresCancellation(Publishes):
    @ez.task
    async def publish(self) -> None:
        self.works()
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                say("ignored")


class WorksInThread(Publishes):
    """Waits for work in a thread that never ends, shielded."""

    @ez.task
    async def publish(self) -> None:
        self.works()
        await asyncio.shield(asyncio.to_thread(threading.Event().wait))


class HasThread(Publishes):
    """Has a worker thread that ends by itself."""

    async def initialize(self) -> None:
        self.has_ended = threading.Event()

    @ez.thread
    def work(self) -> None:
        self.works()
        self.has_ended.set()

    @ez.task
    async def publish(self) -> None:
        await asyncio.to_thread(self.has_ended.wait)
        raise ez.NormalTermination


class BlocksLoop(Publishes):
    @ez.task
    async def publish(self) -> None:
        self.works()
        time.sleep(3600)


class RunsMain(Publishes):
    """Has a `main` function that runs until it is interrupted."""

    @ez.main
    def main(self) -> None:
        try:
            self.works()
            threading.Event().wait()
        finally:
            say("main ended")


class SetsUpForever(Publishes):
    async def initialize(self) -> None:
        self.works()
        await asyncio.Event().wait()


def stall() -> None:
    say(os.getpid(), "starts")
    threading.Event().wait()


class Stall:
    """Its process never comes so far as to have its units."""

    def __reduce__(self) -> tuple[Any, ...]:
        return stall, ()


class StartsForever(Publishes):
    def __init__(self) -> None:
        super().__init__()
        self.stall = Stall()


class FailsInSetup(Publishes):
    async def initialize(self) -> None:
        raise ValueError("no such device")


class FailsInTask(Publishes):
    @ez.task
    async def publish(self) -> None:
        self.works()
        raise ValueError("no such sample")


class FailsInShutdown(Publishes):
    async def shutdown(self) -> None:
        raise ValueError("it does not want to end")


class TerminatesAndFailsInShutdown(Terminates):
    async def shutdown(self) -> None:
        raise ValueError("it does not want to end")


class ExitsProcess(Publishes):
    @ez.task
    async def publish(self) -> None:
        self.works()
        sys.exit(7)


SCENARIOS: dict[str, tuple[type[ez.Unit], type[ez.Unit]]] = {
    "publishes": (Publishes, Sink),
    "completes": (Completes, ReceivesUntilLast),
    "terminates": (Terminates, Sink),
    "raises": (RaisesWhenCancelled, Sink),
    "ignores": (IgnoresCancellation, Sink),
    "works": (WorksInThread, Sink),
    "thread": (HasThread, Sink),
    "blocks": (BlocksLoop, Sink),
    "main": (RunsMain, Sink),
    "sets-up": (SetsUpForever, Sink),
    "starts": (StartsForever, Sink),
    "fails-in-setup": (FailsInSetup, Sink),
    "fails-in-task": (FailsInTask, Sink),
    "fails-in-shutdown": (FailsInShutdown, Sink),
    "terminates-and-fails": (TerminatesAndFailsInShutdown, Sink),
    "exits": (ExitsProcess, Sink),
}


class Graph(ez.Collection):
    """SOURCE publishes to SINK."""

    def __init__(self, scenario: str, is_single: bool) -> None:
        super().__init__()
        source, sink = SCENARIOS[scenario]
        self._is_single = is_single
        for name, unit in (("SOURCE", source()), ("SINK", sink())):
            unit._set_name(name)
            self._components[name] = unit

    def network(self) -> ez.NetworkDefinition:
        source, sink = self._components["SOURCE"], self._components["SINK"]
        return [(source.streams["OUTPUT"], sink.streams["INPUT"])]

    def process_components(self) -> list[ez.Component]:
        return [] if self._is_single else [self._components["SOURCE"]]


def watch(runner: ez.GraphRunner) -> None:
    """Say when it is running."""
    while not runner.running:
        time.sleep(0.001)
    say("running")


def main(scenario: str, method: str = "single", left: str = "") -> None:
    if method != "single":
        multiprocessing.set_start_method(method)
    runner = ez.GraphRunner(SYSTEM=Graph(scenario, method == "single"))
    if left:
        runner.start()
        say("running")
        return
    threading.Thread(target=watch, args=[runner], daemon=True).start()
    runner.run_blocking()
    say("returned", *sorted(thread.name for thread in threading.enumerate() if not thread.daemon))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


if __name__ == "__main__":
    main(*sys.argv[1:])
