"""The journal of a GraphServer: its persistent edges, in a file that outlives it when it does not end in order.

A server at an explicit address has one. It is deleted at an orderly end: who finds one succeeds a server that was lost.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterable
from pathlib import Path

import msgspec

from ezmsg.core import config
from ezmsg.core.net.address import Address

logger = logging.getLogger("ezmsg")

Edge = tuple[str, str]
# The file is written anew when it has this many lines, and several times as many as there are edges.
COMPACT_LINES = 1000
COMPACT_FACTOR = 4
FILE_BYTES_MAX = 64 << 20


class _Entry(msgspec.Struct, array_like=True):
    """One line: an edge came or went."""

    is_there: bool
    from_topic: str
    to_topic: str


class Journal:
    """Keeps track of persistent edges, on disk where there is a file. Whatever the disk does, the server goes on.

    Args:
        path: The file; None keeps nothing.

    Attributes:
        found: Whether a predecessor left a journal, that is, did not end in order.
        edges: The edges that are there.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.found = False
        self.edges: dict[Edge, None] = {}
        self._path = path
        self._lines = 0
        # A change could not be written: the file is written anew with the next.
        self._is_behind = False

    @classmethod
    def open(cls, address: Address) -> Journal:
        """The journal of the server at this address: the one its predecessor left, or a new one."""
        try:
            path = journal_path(address)
        except RuntimeError as error:  # a user without a home
            logger.warning("persistent edges will not survive a crash of this GraphServer: %s", error)
            return cls()
        self = cls(path)
        try:
            self._read(path)
            self._rewrite(path)
        except OSError as error:
            self._complain(error)
        return self

    def connected(self, from_topic: str, to_topic: str) -> None:
        """A persistent edge is there."""
        if (from_topic, to_topic) not in self.edges:
            self.edges[from_topic, to_topic] = None
            self._note(_Entry(True, from_topic, to_topic))

    def disconnected(self, from_topic: str, to_topic: str) -> None:
        """A persistent edge is gone."""
        if (from_topic, to_topic) in self.edges:
            del self.edges[from_topic, to_topic]
            self._note(_Entry(False, from_topic, to_topic))

    def delete(self) -> None:
        """The server ends in order: nobody shall succeed it, and nothing is written any more."""
        path, self._path = self._path, None
        if path is not None:
            with contextlib.suppress(OSError):
                path.unlink()

    # -- the file -----------------------------------------------------------------------------------------------------

    def _read(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                data = file.read(FILE_BYTES_MAX)
        except FileNotFoundError:
            return
        self.found = True
        decoder = msgspec.json.Decoder(_Entry)
        for number, line in enumerate(data.splitlines(), 1):
            try:
                entry = decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                # The last line of a server that was lost while it wrote.
                logger.warning("%s: line %d cannot be read, nor what follows: %s", path, number, error)
                return
            if entry.is_there:
                self.edges[entry.from_topic, entry.to_topic] = None
            else:
                self.edges.pop((entry.from_topic, entry.to_topic), None)

    def _rewrite(self, path: Path) -> None:
        """Replace the file by one of the edges that are there; it appears whole or not at all."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            _write(temporary, os.O_CREAT | os.O_TRUNC, (_Entry(True, *edge) for edge in self.edges))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        self._lines = len(self.edges)
        self._is_behind = False

    def _note(self, entry: _Entry) -> None:
        if self._path is None:
            return
        self._lines += 1
        try:
            if self._is_behind or self._lines > max(COMPACT_LINES, COMPACT_FACTOR * len(self.edges)):
                self._rewrite(self._path)
            else:
                # Not kept open: a process that is forked meanwhile has no business with it.
                _write(self._path, os.O_APPEND, [entry])
        except OSError as error:
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        if not self._is_behind:
            logger.warning("persistent edges may not survive a crash of this GraphServer: %s: %s", self._path, error)
        self._is_behind = True


def journal_path(address: Address) -> Path:
    """Where the journal of the server at this address is.

    Raises:
        RuntimeError: This user has no home.
    """
    name = f"{socket.gethostname()}-{address.host}-{address.port}".replace("/", "_").replace(":", "_")
    return config.user_state_dir() / "ezmsg" / "journal" / f"{name}.jsonl"


def _write(path: Path, flags: int, entries: Iterable[_Entry]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o600)
    with open(descriptor, "wb") as file:
        file.write(b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries))
