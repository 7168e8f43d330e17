"""Finds what a test leaves behind: tasks, threads, processes, descriptors, shared memory and files.

``conftest.py`` takes a snapshot before each test, and compares when the test, its fixtures and its event
loop are done. Fixtures of a wider scope are in the snapshot already.
"""

import asyncio
import contextlib
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

# Threads and processes may need long on a busy machine; only a test that leaks waits for all of it.
SETTLE_S = 15.0
COLLECT_S = 0.5
SHARED_MEMORY = Path("/dev/shm")
DESCRIPTORS = Path("/proc/self/fd" if sys.platform == "linux" else "/dev/fd")
# Kept until exit by multiprocessing, by design: its heap, and the directory of its sockets.
MULTIPROCESSING_HEAP = "/dev/shm/pym-"
MULTIPROCESSING_DIR = "pymp-"
# What is ours has this in its name; others of the machine may leave behind what they like.
OURS = "ezmsg"
# Left behind on purpose, by the test of this guard in another process at the same time.
FORGOTTEN = "ezmsg-forgotten"


class UnfinishedTasks:
    """Tasks that were pending when their loop ended.

    A Runner cancels what is left before it closes its loop, so one has to look before it does.
    """

    def __init__(self) -> None:
        self._found: list[str] = []

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        runner_close, loop_close = asyncio.Runner.close, asyncio.BaseEventLoop.close

        def close_runner(runner: asyncio.Runner) -> None:
            with contextlib.suppress(RuntimeError):  # closed already
                loop = runner.get_loop()
                settle_until(lambda: not asyncio.all_tasks(loop), lambda s: spin(loop, s))
                self._note(loop)
            runner_close(runner)

        def close_loop(loop: asyncio.BaseEventLoop) -> None:
            self._note(loop)
            loop_close(loop)

        asyncio.Runner.close, asyncio.BaseEventLoop.close = close_runner, close_loop
        try:
            yield
        finally:
            asyncio.Runner.close, asyncio.BaseEventLoop.close = runner_close, loop_close

    def take(self) -> list[str]:
        found, self._found = self._found, []
        return found

    def _note(self, loop: asyncio.AbstractEventLoop) -> None:
        self._found += [f"{task.get_name()} running {task.get_coro()!r}" for task in asyncio.all_tasks(loop)]


@dataclass(frozen=True)
class Snapshot:
    """What exists at one moment. Each mapping goes from an identity to its description."""

    threads: dict[Any, str]
    pids: frozenset[int]
    descriptors: dict[Any, str]
    shared_memory: frozenset[str]
    files: frozenset[str]

    @classmethod
    def take(cls, temporary: Path) -> "Snapshot":
        return cls(
            threads={thread: repr(thread) for thread in threading.enumerate()},
            pids=frozenset(psutil.pids()),
            descriptors=dict(descriptors()),
            shared_memory=frozenset(shared_memory()),
            files=frozenset(files(temporary)),
        )


@dataclass
class Leaks:
    """What came between two snapshots and is still there."""

    threads: Sequence[str] = ()
    processes: Sequence[psutil.Process] = ()
    descriptors: Sequence[str] = ()
    shared_memory: Sequence[str] = ()
    files: Sequence[str] = ()
    tasks: Sequence[str] = ()

    @classmethod
    def between(cls, before: Snapshot, now: Snapshot, temporary: Path) -> "Leaks":
        return cls(
            threads=[now.threads[key] for key in now.threads.keys() - before.threads.keys()],
            processes=list(our_processes(now.pids - before.pids, temporary)),
            descriptors=[now.descriptors[key] for key in now.descriptors.keys() - before.descriptors.keys()],
            shared_memory=[
                name
                for name in now.shared_memory - before.shared_memory
                if not used_by_others(name, temporary)
                and not (name == FORGOTTEN and "PYTEST_XDIST_WORKER" in os.environ)
            ],
            files=sorted(now.files - before.files),
        )

    def __bool__(self) -> bool:
        return any(vars(self).values())

    def __str__(self) -> str:
        lines = [f"  {kind.replace('_', ' ')}: {item}" for kind, items in vars(self).items() for item in items]
        return "\n".join(["the test left behind", *lines])


def since(before: Snapshot, temporary: Path) -> Leaks:
    """Wait a moment for what is on its way out, and return what stays. Leaked processes are killed."""
    leaks = Leaks.between(before, Snapshot.take(temporary), temporary)
    if not leaks:
        return leaks

    collect_s = 0.0

    def is_settled() -> bool:
        nonlocal leaks, collect_s
        # Threads and processes end by themselves; what else is left may be garbage, which takes long to collect.
        if not (leaks.threads or leaks.processes) and time.monotonic() >= collect_s:
            gc.collect()
            collect_s = time.monotonic() + COLLECT_S
        leaks = Leaks.between(before, Snapshot.take(temporary), temporary)
        return not leaks

    settle_until(is_settled, time.sleep)
    for process in leaks.processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return leaks


def settle_until(is_done: Callable[[], bool], sleep: Callable[[float], None]) -> None:
    deadline = time.monotonic() + SETTLE_S
    while not is_done() and time.monotonic() < deadline:
        sleep(0.01)


def spin(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    loop.run_until_complete(asyncio.sleep(seconds))


def descriptors() -> Iterator[tuple[tuple[int, int, int], str]]:
    for name in os.listdir(DESCRIPTORS):
        try:
            status = os.fstat(int(name))
            target = os.readlink(DESCRIPTORS / name) if sys.platform == "linux" else ""
        except OSError:  # the one that listed the directory, and what other threads closed meanwhile
            continue
        if not target.startswith(MULTIPROCESSING_HEAP):
            yield (int(name), status.st_dev, status.st_ino), f"{name} {target}"


def shared_memory() -> Iterator[str]:
    for name in os.listdir(SHARED_MEMORY) if SHARED_MEMORY.exists() else ():
        if OURS in name:
            yield name


def files(directory: Path) -> Iterator[str]:
    for parent, directories, names in os.walk(directory):
        for name in directories + names:
            if not name.startswith(MULTIPROCESSING_DIR):
                yield os.path.join(parent, name)


def our_processes(pids: frozenset[int], temporary: Path) -> Iterator[psutil.Process]:
    """Descendants of this process, and orphans: they inherited the directory for temporary files."""
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if is_ours(process, temporary):
                yield process


def is_ours(process: psutil.Process, temporary: Path) -> bool:
    if os.getpid() in [process.pid, *(parent.pid for parent in process.parents())]:
        return True
    try:
        return process.environ().get("TMPDIR") == str(temporary)
    except psutil.Error:  # a stranger's, or gone
        return False


def used_by_others(name: str, temporary: Path) -> bool:
    """Whether a process that has nothing to do with this run of the tests maps that segment."""
    needle = f"{SHARED_MEMORY}/{name}"
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if needle in Path(f"/proc/{process.pid}/maps").read_text() and not is_ours(process, temporary):
                return True
    return False
