"""Records that answer any request, or go with any connection."""

from __future__ import annotations

from typing import Any

from ezmsg.core.wire.records.fields import Record

__all__ = ["CancelRequest", "Done", "GetServerStatus", "Goodbye", "Refusal", "ServerStatus"]


class Done(Record, frozen=True):
    """A request took effect and has nothing to tell."""


class Refusal(Record, frozen=True):
    """A request was refused: an `EzmsgError.code`, its text, and its fields."""

    code: str
    message: str
    fields: dict[str, Any] = {}


class Goodbye(Record, frozen=True):
    """The server ends in order: do not reconnect."""

    reason: str = ""


class CancelRequest(Record, frozen=True):
    """A notice: nobody waits any more for the answer to the request of this id on this connection; stop working on it.

    Only for requests that say so where they are sent; an answer may still come, and is ignored.
    """

    request_id: int


class GetServerStatus(Record, frozen=True):
    """Ask the server how it is, on any connection. It answers at once, so this tells as well that it lives."""


class ServerStatus(Record, frozen=True):
    """How a server is: `unix_ns` and `mono_ns` are its clocks, read together; the others count what it holds now.

    `epoch` tells one server from its successor, `exporters` is how many take its telemetry.
    """

    epoch: str
    unix_ns: int
    mono_ns: int
    started_unix_ns: int
    sessions: int
    publishers: int
    subscribers: int
    processes: int
    exporters: int
