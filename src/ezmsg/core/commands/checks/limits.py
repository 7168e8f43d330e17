"""What this process, the server and the system may use: descriptors, shared memory, memory."""

from __future__ import annotations

import os
import resource

from ezmsg.core.commands.checks.finding import Finding, human_bytes
from ezmsg.core.commands.checks.processes import descriptor_limit_of, descriptors_of
from ezmsg.core.commands.checks.server import Server
from ezmsg.core.freememory import free_memory_bytes
from ezmsg.core.segment import memory_directory

TOPIC = "limits"
# An endpoint takes a connection to the server and one to each of its peers.
FEW_DESCRIPTORS = 256
SOME_DESCRIPTORS = 1024
LOW_MEMORY_BYTES = 64 << 20
CROWDED = 0.8


def look_at_limits(server: Server | None) -> list[Finding]:
    """What is bounded, and how near it is."""
    findings = [_descriptors(), _shared_memory(), _memory()]
    if server is not None and server.is_here:
        findings += _descriptors_of_server(server.peer.pid)
    return findings


def _descriptors() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = ["unlimited" if limit == resource.RLIM_INFINITY else str(limit) for limit in (soft, hard)]
    facts = {"soft": soft, "hard": hard}
    text = f"{shown[0]} per process (at most {shown[1]})"
    if soft == resource.RLIM_INFINITY or soft >= SOME_DESCRIPTORS:
        return Finding(TOPIC, "open files", "ok", text, facts=facts)
    return Finding(
        TOPIC, "open files", "problem" if soft < FEW_DESCRIPTORS else "warning",
        f"{text}; each publisher and subscriber takes several", "ulimit -n 4096", facts,
    )  # fmt: skip


def _descriptors_of_server(pid: int) -> list[Finding]:
    used, limit = descriptors_of(pid), descriptor_limit_of(pid)
    if used is None or limit is None:
        return []
    facts = {"used": used, "limit": limit}
    text = f"{used} of {limit} in use"
    if used < CROWDED * limit:
        return [Finding(TOPIC, "files of server", "ok", text, facts=facts)]
    remedy = "start the server with a higher limit: ulimit -n 4096"
    return [Finding(TOPIC, "files of server", "problem", text, remedy, facts)]


def _shared_memory() -> Finding:
    directory = memory_directory()
    facts: dict[str, object] = {"directory": directory, "memfd": hasattr(os, "memfd_create")}
    try:
        system = os.statvfs(directory)
    except OSError as error:
        text = f"{directory}: {error.strerror}"
        return Finding(TOPIC, "shared memory", "problem", text, "mount a tmpfs at /dev/shm", facts)
    size, free = system.f_blocks * system.f_frsize, system.f_bavail * system.f_frsize
    facts.update(size_bytes=size, free_bytes=free)
    text = f"{directory}: {human_bytes(free)} free of {human_bytes(size)}"
    if free >= LOW_MEMORY_BYTES:
        return Finding(TOPIC, "shared memory", "ok", text, facts=facts)
    remedy = f"remove what is not needed in {directory}, or enlarge it (docker: --shm-size)"
    return Finding(TOPIC, "shared memory", "warning", text, remedy, facts)


def _memory() -> Finding:
    free = free_memory_bytes()
    if free is None:
        return Finding(TOPIC, "memory", "info", "this system does not tell how much is free")
    facts = {"free_bytes": free}
    text = f"{human_bytes(free)} free, for large messages among others"
    if free >= LOW_MEMORY_BYTES:
        return Finding(TOPIC, "memory", "ok", text, facts=facts)
    return Finding(TOPIC, "memory", "problem", text, "end what needs it, or raise the limit of this container", facts)
