"""What is left of processes that stand still or are gone: units, sockets, shared memory, the journal of a server."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from uuid import UUID

from ezmsg.core.commands.checks.finding import Finding
from ezmsg.core.commands.checks.processes import described, doors, has_open, state_of
from ezmsg.core.commands.checks.server import Server
from ezmsg.core.commands.common import address_option
from ezmsg.core.errors import EzmsgError
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import SnapshotProcess
from ezmsg.core.net.address import Address
from ezmsg.core.segment import memory_directory
from ezmsg.core.server.journal import journal_path

TOPIC = "stale"
PING_TIMEOUT_S = 1.0
AT_ONCE = 50
SHOWN = 5


async def look_for_stale(address: Address | None, server: Server | None) -> list[Finding]:
    """Everything that is there for nobody.

    Args:
        address: Where a server should be; None if that is no address.
        server: The server that answers there, if one does.
    """
    findings = [*_sockets(), *_shared_memory()]
    if server is not None:
        findings += await _units(server)
    elif address is not None:
        findings += _journal(address)
    return findings or [Finding(TOPIC, "nothing", "ok", "no process stands still, and nothing is left of others")]


# -- units ------------------------------------------------------------------------------------------------------------


async def _units(server: Server) -> list[Finding]:
    try:
        async with GraphContext(server.address, auto_start=False) as context:
            processes = (await context.snapshot()).processes.values()
            at_once = asyncio.Semaphore(AT_ONCE)
            answers = await asyncio.gather(*(_answers(context, process.process_id, at_once) for process in processes))
    except (EzmsgError, OSError) as error:
        return [Finding(TOPIC, "units", "problem", f"the server could not be asked: {error}")]
    return [_silent(process) for process, is_there in zip(processes, answers, strict=True) if not is_there]


async def _answers(context: GraphContext, process_id: UUID, at_once: asyncio.Semaphore) -> bool:
    async with at_once:
        try:
            await context.process_ping(process_id=process_id, timeout=PING_TIMEOUT_S)
        except (RuntimeError, TimeoutError):
            return False
    return True


def _silent(process: SnapshotProcess) -> Finding:
    pid = process.pid or 0
    is_here = process.host == socket.gethostname() and pid > 0
    who = described(pid) if is_here else f"process {process.pid} on {process.host}"
    units = ", ".join(process.units[:SHOWN]) + (", …" if len(process.units) > SHOWN else "")
    facts = {"process_id": str(process.process_id), "pid": process.pid, "host": process.host, "units": process.units}
    text = f"{who} does not answer" + (f" and holds {units}" if units else "")
    return Finding(TOPIC, "process", "problem", text, _remedy(pid) if is_here else "end it on its host", facts)


def _remedy(pid: int) -> str:
    state = state_of(pid)
    if state == "stopped":
        return f"kill -CONT {pid} lets it go on; kill -9 {pid} ends it, and the server forgets its units"
    if state == "gone":
        return "its connection is all that is left: it goes in about a minute, or with ezmsg shutdown"
    return f"see what keeps its event loop; kill -9 {pid} ends it, and the server forgets its units"


# -- sockets ----------------------------------------------------------------------------------------------------------


def _sockets() -> list[Finding]:
    """Publishers of processes that stand still: who sends to them or waits for them is held up."""
    findings: list[Finding] = []
    for pid, count in sorted(doors().items()):
        if state := state_of(pid):
            publishers = "1 publisher" if count == 1 else f"{count} publishers"
            facts = {"pid": pid, "publishers": count, "state": state}
            text = f"{described(pid)}, holds the sockets of {publishers}"
            findings.append(Finding(TOPIC, "sockets", "problem", text, _remedy(pid), facts))
    return findings


# -- the journal ------------------------------------------------------------------------------------------------------


def _journal(address: Address) -> list[Finding]:
    """A server ended without deleting its journal: it was killed."""
    path = journal_path(address)
    if not path.exists():
        return []
    text = f"the last GraphServer at {address} did not end in order; its persistent edges are in {path}"
    remedy = f"ezmsg start{address_option(address)} has them again; rm {path} forgets them"
    return [Finding(TOPIC, "journal", "warning", text, remedy, {"path": str(path)})]


# -- shared memory ----------------------------------------------------------------------------------------------------


def _shared_memory() -> list[Finding]:
    """Files of named shared memory that no process has open: their GraphServer was killed."""
    if not Path("/proc/self/fd").exists():
        return []
    left = [path for path in sorted(Path(memory_directory()).glob("ezmsg-*")) if _is_ours(path) and not has_open(path)]
    if not left:
        return []
    size = sum(path.stat().st_size for path in left)
    names = " ".join(map(str, left))
    facts = {"paths": list(map(str, left)), "bytes": size}
    text = f"{len(left)} files of {size} bytes that no process has open: {names}"
    return [Finding(TOPIC, "shared memory", "warning", text, f"rm {names}", facts)]


def _is_ours(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_uid == os.geteuid()
    except OSError:
        return False
