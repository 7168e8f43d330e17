"""Is a server there, is it one of ours, and how is it?"""

from __future__ import annotations

import time
from dataclasses import dataclass

from ezmsg.core._version import __version__
from ezmsg.core.commands.checks.finding import Finding
from ezmsg.core.commands.checks.processes import described, listeners_on, state_of
from ezmsg.core.commands.common import address_option
from ezmsg.core.control import dial
from ezmsg.core.errors import (
    AuthenticationFailed,
    AuthKeyError,
    EzmsgError,
    ForeignPeer,
    HandshakeError,
    HandshakeTimeout,
    ServerUnreachable,
    VersionMismatch,
)
from ezmsg.core.graphserver import GraphService
from ezmsg.core.net.address import Address, boot_id, is_loopback
from ezmsg.core.wire.handshake import PeerInfo
from ezmsg.core.wire.records import ServerStatus

TOPIC = "server"


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers."""

    address: Address
    peer: PeerInfo
    status: ServerStatus

    @property
    def is_here(self) -> bool:
        """Whether it runs on this host."""
        return self.peer.boot_id == boot_id()


async def look_at_server(address: Address, named_by: str | None) -> tuple[Server | None, list[Finding]]:
    """The server at an address, if one answers, and what is to be said of it.

    Args:
        address: Where it should be.
        named_by: What says so; None if nothing does: then it need not be there.
    """
    is_needed, named_by = named_by is not None, named_by or "the default"
    where = f"{address} ({named_by})"
    facts: dict[str, object] = {"address": str(address), "named_by": named_by, "reachable": False}
    began_s = time.perf_counter()
    try:
        sock, peer = await dial(address)
        sock.close()
        took_s = time.perf_counter() - began_s
        status = await GraphService(address).status()
    except (EzmsgError, OSError, ValueError) as error:
        text, remedy = _explained(error, address)
        is_fine = not is_needed and isinstance(error, ServerUnreachable) and not _holders(address)
        state = "info" if is_fine else "problem"
        return None, [Finding(TOPIC, "address", state, f"{where}: {text}", remedy, {**facts, "error": str(error)})]
    up_s = (status.unix_ns - status.started_unix_ns) / 1e9
    facts.update(reachable=True, connect_ms=round(took_s * 1e3, 3), pid=peer.pid, version=peer.version, up_s=up_s)
    counts = {
        name: getattr(status, name) for name in ("sessions", "publishers", "subscribers", "processes", "exporters")
    }
    server = Server(address, peer, status)
    return server, [
        Finding(
            TOPIC, "address", "ok",
            f"{where} answers after {took_s * 1e3:.1f} ms: process {peer.pid}, up {_human_duration(up_s)}", facts=facts,
        ),
        _version(peer),
        Finding(TOPIC, "holds", "info", _counted(counts), facts=counts),
    ]  # fmt: skip


def _version(peer: PeerInfo) -> Finding:
    facts = {"ours": __version__, "server": peer.version}
    if peer.version == __version__:
        return Finding(TOPIC, "version", "ok", f"ezmsg {__version__}, as here", facts=facts)
    return Finding(
        TOPIC, "version", "warning", f"the server runs ezmsg {peer.version}, this is {__version__}",
        "install the same version everywhere, and start the server again", facts,
    )  # fmt: skip


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {name if number != 1 else _singular(name)}" for name, number in counts.items())


def _singular(name: str) -> str:
    return "process" if name == "processes" else name[:-1]


def _human_duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _holders(address: Address) -> list[int]:
    """Processes of this host that listen at an address."""
    return listeners_on(address.port) if is_loopback(address.host) else []


def _explained(error: Exception, address: Address) -> tuple[str, str]:
    """What went wrong, and what to do."""
    holders = _holders(address)
    holder = " and ".join(described(pid) for pid in holders) or "a process that is not shown to this user"
    match error:
        case ServerUnreachable() if not holders:
            start = f"ezmsg start{address_option(address)} starts one"
            remedy = f"{start}; programs that name no address, here or in the environment, start their own"
            return "nobody answers there", remedy
        case ServerUnreachable() | HandshakeTimeout():
            stopped = next((pid for pid in holders if state_of(pid)), None)
            remedy = f"kill -CONT {stopped} lets it go on" if stopped else "see what keeps it busy, or end it"
            return f"{holder} listens there and does not answer", remedy
        case AuthenticationFailed():
            return f"{holder} listens there and holds another key", "see the topic key; give both the same one"
        case VersionMismatch():
            return str(error), "install the same version everywhere, and start the server again"
        case ForeignPeer():
            return f"{holder} listens there and is no GraphServer", "take another address"
        case HandshakeError():
            return str(error), "if it is about TLS: see the topic key, and docs/howto/several-hosts.md"
        case AuthKeyError():
            return "it was not asked, as there is no usable key", "see the topic key"
        case _:
            return str(error), ""
