"""The processes of a graph, and which units each of them owns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ezmsg.core.errors import UnitAlreadyOwned
from ezmsg.core.server.books.budget import Budget
from ezmsg.core.wire.limits import ENTRY_BYTES, UNITS_BYTES
from ezmsg.core.wire.records import ProcessState


@dataclass
class ProcessEntry:
    """One connected ProcessControlClient; pid and host are None until it registers."""

    client_id: str
    pid: int | None = None
    host: str | None = None
    units: set[str] = field(default_factory=set[str])


class ProcessBook:
    """Who owns which unit. A unit has one owner at most.

    Args:
        max_bytes: How much the names of units may take.
    """

    def __init__(self, max_bytes: int = UNITS_BYTES) -> None:
        self.room = Budget("units", max_bytes)
        self._entries: dict[str, ProcessEntry] = {}
        self._owners: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, client_id: str) -> bool:
        return client_id in self._entries

    def connect(self, client_id: str) -> None:
        """A process is connected; it owns nothing yet."""
        self._entries[client_id] = ProcessEntry(client_id)

    def disconnect(self, client_id: str) -> ProcessEntry | None:
        """A process is gone, and with it its claims."""
        entry = self._entries.pop(client_id, None)
        if entry is not None:
            self.room.give(_size(entry.units))
            for unit in entry.units:
                del self._owners[unit]
        return entry

    def register(self, client_id: str, pid: int, host: str, units: Iterable[str]) -> bool:
        """Replace what a process owns; True when that changed anything.

        Raises:
            UnitAlreadyOwned: Another process owns one of the units; nothing was changed.
            ServerFull: There are too many units; nothing was changed.
        """
        wanted = set(units)
        self._refuse_conflicts("PROCESS_REGISTER", client_id, wanted)
        entry = self._entries[client_id]
        changed = self._own(entry, wanted)
        entry.pid, entry.host = pid, host
        return changed

    def update(self, client_id: str, added: Iterable[str], removed: Iterable[str]) -> bool:
        """Claim and give up units; True when that changed anything.

        Raises:
            UnitAlreadyOwned: Another process owns one of the added units; nothing was changed.
            ServerFull: There are too many units; nothing was changed.
        """
        entry = self._entries[client_id]
        wanted = (entry.units - set(removed)) | set(added)
        self._refuse_conflicts("PROCESS_UPDATE_OWNERSHIP", client_id, wanted)
        return self._own(entry, wanted)

    def owner(self, unit: str) -> str | None:
        """The client id of the process that owns a unit."""
        return self._owners.get(unit)

    def states(self) -> list[ProcessState]:
        """Every process, by client id, with its units sorted."""
        return [
            ProcessState(entry.client_id, entry.pid, entry.host, sorted(entry.units))
            for _, entry in sorted(self._entries.items())
        ]

    def conflicts(self, client_id: str, units: Iterable[str]) -> dict[str, str]:
        """Which of these units another process owns, and which process."""
        return {unit: self._owners[unit] for unit in units if self._owners.get(unit, client_id) != client_id}

    def _refuse_conflicts(self, operation: str, client_id: str, units: set[str]) -> None:
        if conflicts := self.conflicts(client_id, units):
            raise UnitAlreadyOwned(operation, conflicts)

    def _own(self, entry: ProcessEntry, units: set[str]) -> bool:
        if units == entry.units:
            return False
        self.room.take(_size(units), instead_of=_size(entry.units))
        for unit in entry.units - units:
            del self._owners[unit]
        for unit in units - entry.units:
            self._owners[unit] = entry.client_id
        entry.units = units
        return True


def _size(units: set[str]) -> int:
    return sum(len(unit.encode()) + ENTRY_BYTES for unit in units)
