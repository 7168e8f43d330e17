"""Processes of this host, as /proc shows them to this user; empty answers where there is no /proc."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
DOOR_PREFIX = "@ezmsg-"
_LISTENING = "0A"
_STATES = {"T": "stopped", "t": "stopped by a debugger", "Z": "dead, and not yet waited for"}


def state_of(pid: int) -> str:
    """What keeps a process from running: `gone`, `stopped`, …; "" if nothing does."""
    if not (PROC / "self").exists():
        return ""
    stat = _text(PROC / str(pid) / "stat")
    return _STATES.get(stat.rpartition(")")[2].split()[0], "") if stat else "gone"


def name_of(pid: int) -> str:
    """The command of a process, shortened; "" if it is not shown."""
    command = _text(PROC / str(pid) / "cmdline").replace("\0", " ").strip()
    return command if len(command) <= 60 else command[:57] + "..."


def described(pid: int) -> str:
    """A process for people."""
    name, state = name_of(pid), state_of(pid)
    return f"process {pid}" + (f" ({name})" if name else "") + (f", {state}" if state else "")


def listeners_on(port: int) -> list[int]:
    """The processes that listen on a TCP port."""
    inodes = {
        fields[9]
        for table in ("tcp", "tcp6")
        for fields in _table(PROC / "net" / table)
        if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port
    }
    return sorted({pid for pid, inode in _sockets() if inode in inodes})


def doors() -> dict[int, int]:
    """How many publishers (their Unix doors) each process offers."""
    # Flag 0x10000: it listens; other lines are connections through it.
    inodes = {fields[6] for fields in _table(PROC / "net" / "unix") if _is_door(fields)}
    counted: dict[int, int] = {}
    for pid, inode in _sockets():
        if inode in inodes:
            counted[pid] = counted.get(pid, 0) + 1
    return counted


def descriptors_of(pid: int) -> int | None:
    """How many descriptors a process has open; None if it is not shown."""
    try:
        return len(os.listdir(PROC / str(pid) / "fd"))
    except OSError:
        return None


def descriptor_limit_of(pid: int) -> int | None:
    """How many it may have; None if it is not shown, or there is no limit."""
    found = re.search(r"^Max open files +(\d+)", _text(PROC / str(pid) / "limits"), re.MULTILINE)
    return int(found[1]) if found else None


def has_open(path: Path) -> bool:
    """Whether any process that is shown has this file open or mapped."""
    try:
        wanted = path.stat()
    except OSError:
        return False
    return any(_has(pid, wanted) or str(path) in _text(PROC / str(pid) / "maps") for pid in _pids())


def _has(pid: int, wanted: os.stat_result) -> bool:
    directory = PROC / str(pid) / "fd"
    for name in _names(directory):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(directory / name), wanted):
                return True
    return False


def _is_door(fields: list[str]) -> bool:
    return len(fields) > 7 and fields[7].startswith(DOOR_PREFIX) and bool(int(fields[3], 16) & 0x10000)


def _table(path: Path) -> list[list[str]]:
    return [line.split() for line in _text(path).splitlines()[1:]]


def _text(path: Path) -> str:
    """What a file of /proc says; "" if it is not shown, or gone."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _pids() -> list[int]:
    return [int(name) for name in _names(PROC) if name.isdecimal()]


def _sockets() -> Iterator[tuple[int, str]]:
    """Every socket of every process that is shown: its process and its inode."""
    for pid in _pids():
        directory = PROC / str(pid) / "fd"
        for name in _names(directory):
            with contextlib.suppress(OSError):
                target = os.readlink(directory / name)
                if target.startswith("socket:["):
                    yield pid, target[8:-1]
