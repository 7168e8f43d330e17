"""Starts backend processes: before this process opens a socket or begins a thread for the run."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import socket
from collections.abc import Generator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import Protocol

from ezmsg.core.errors import NotSpawnable
from ezmsg.core.net.forking import held_back
from ezmsg.core.runtime.link import CoordinatorEnd, open_line
from ezmsg.core.runtime.members import BackendMember
from ezmsg.core.unit import Unit


class Launchable(Protocol):
    """A process that was not started."""

    @property
    def units(self) -> Sequence[Unit]:
        """What is to run in it."""
        ...

    def begin(self, line: socket.socket) -> BaseProcess:
        """Start it, with its end of the line to the coordinator."""
        ...


def launch(processes: Sequence[Launchable]) -> list[BackendMember]:
    """Start processes, by the start method that multiprocessing has now.

    Raises:
        NotSpawnable: Units cannot be pickled, and the start method needs that.
    """
    if not processes:
        return []
    if multiprocessing.get_start_method() != "fork":
        resource_tracker.ensure_running()  # starting it would let signals through
    members: list[BackendMember] = []
    try:
        with held_back(), _settled():
            for number, process in enumerate(processes, start=1):
                members.append(_start(process, number))
    except BaseException:
        for member in members:
            member.kill()
            member.process.join()
            member.close()
        raise
    return members


@contextlib.contextmanager
def _settled() -> Generator[None]:
    """Let the collectors of forked children pass over what they share with this process: else each copies all of it."""
    if multiprocessing.get_start_method() != "fork" or gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _start(process: Launchable, number: int) -> BackendMember:
    ours, theirs = open_line()
    with theirs:
        try:
            started = process.begin(theirs)
        except BaseException as error:
            ours.close()
            _explain(process, error)
            raise
    units = ", ".join(unit.address for unit in process.units)
    label = f"backend process {number} (pid {started.pid}), with units {units}"
    return BackendMember(started, CoordinatorEnd(ours), label)


def _explain(process: Launchable, error: BaseException) -> None:
    """Raise another error if this one came because units cannot be pickled."""
    if multiprocessing.get_start_method() == "fork":
        return
    for unit in process.units:
        try:
            ForkingPickler.dumps(unit)
        except Exception as reason:  # whatever the class of a user raises
            raise NotSpawnable([unit.address], f"{type(reason).__name__}: {reason}") from error
