"""Processes of this host, as /proc shows them to this user; empty answers where there is no /proc."""

from __future__ import annotations

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
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return "gone"
    return _STATES.get(stat.rpartition(")")[2].split()[0], "")


def name_of(pid: int) -> str:
    """The command of a process, shortened; "" if it is not shown."""
    try:
        command = (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
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
    try:
        text = (PROC / str(pid) / "limits").read_text()
    except OSError:
        return None
    found = re.search(r"^Max open files +(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else None


def has_open(path: Path) -> bool:
    """Whether any process that is shown has this file open or mapped."""
    try:
        wanted = path.stat()
    except OSError:
        return False
    for pid in _pids():
        try:
            for descriptor in os.scandir(PROC / str(pid) / "fd"):
                status = os.stat(descriptor.path)
                if (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino):
                    return True
            if str(path) in (PROC / str(pid) / "maps").read_text():
                return True
        except OSError:
            continue
    return False


def _is_door(fields: list[str]) -> bool:
    return len(fields) > 7 and fields[7].startswith(DOOR_PREFIX) and bool(int(fields[3], 16) & 0x10000)


def _table(path: Path) -> Iterator[list[str]]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return
    yield from (line.split() for line in lines[1:])


def _pids() -> Iterator[int]:
    try:
        names = os.listdir(PROC)
    except OSError:
        return
    yield from (int(name) for name in names if name.isdecimal())


def _sockets() -> Iterator[tuple[int, str]]:
    """Every socket of every process that is shown: its process and its inode."""
    for pid in _pids():
        try:
            descriptors = os.listdir(PROC / str(pid) / "fd")
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                target = os.readlink(PROC / str(pid) / "fd" / descriptor)
            except OSError:
                continue
            if target.startswith("socket:["):
                yield pid, target[8:-1]
