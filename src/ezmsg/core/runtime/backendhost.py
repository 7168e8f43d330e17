"""What happens in a backend process, around the part its units take in the run."""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
from collections.abc import Callable
from functools import partial

from ezmsg.core.net import forking
from ezmsg.core.runtime.link import BackendEnd
from ezmsg.core.runtime.loopthread import LoopThread
from ezmsg.core.runtime.mainthread import MainThread
from ezmsg.core.runtime.messages import Close, Command, Event, Leave, Left, Stop, Terminate, Up
from ezmsg.core.runtime.participant import Participant
from ezmsg.core.runtime.signals import prepare_backend
from ezmsg.core.telemetry import pump

# For units to end by themselves when the process that runs the graph is gone.
ORPHAN_S = 4.0
# For tasks that units began and left.
LOOP_S = 1.5
TELEMETRY_S = 0.5

Report = Callable[[Event], object]
MakeParticipant = Callable[[Report, LoopThread, MainThread], Participant]


def run_backend(sock: socket.socket, make: MakeParticipant, name: str, strict: bool) -> None:
    """Take part in a run, from the main thread of a process of its own, until it has ended.

    Args:
        sock: The line to the coordinator, owned from now on.
        make: Makes what takes part.
        name: Of the process, for telemetry.
        strict: As for a run.
    """
    main_thread = MainThread()
    line = BackendEnd(forking.track(sock))
    prepare_backend(main_thread, lambda reason: line.report(Terminate(reason)))
    pump.name_process(name)
    host = LoopThread("ezmsg units", strict=strict)
    host.start()
    participant = make(line.report, host, main_thread)
    # A spawned one is an interpreter that winds itself up, and finds what was left open.
    participant.ends_process = multiprocessing.get_start_method() == "fork"
    taking_part = host.submit(participant.take_part())
    taking_part.add_done_callback(lambda _: (host.end(), main_thread.end()))
    host.call(line.listen, participant.obey)
    line.watch(partial(_orphaned, host, participant))
    line.report(Up())
    main_thread.serve()
    host.stop(LOOP_S)
    pump.shutdown(TELEMETRY_S)
    line.report(Left())


def _orphaned(host: LoopThread, participant: Participant) -> None:
    """The process that runs the graph is gone: end in order, or else at once."""
    commands: tuple[Command, ...] = (Stop(is_interrupt=True), Close(), Leave(is_last=False))
    for command in commands:
        host.call(participant.obey, command)
    # A daemon: it does not keep a process that has ended.
    timer = threading.Timer(ORPHAN_S, os._exit, [1])
    timer.daemon = True
    timer.start()
