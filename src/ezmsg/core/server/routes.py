"""Process requests at the server: passed on to the owner of a unit, answered with what it says, or with why not."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from functools import partial

from ezmsg.core.errors import ConfigError, ConnectionLost, EzmsgError, TooManyProcessRequests
from ezmsg.core.graphmeta import ProcessControlErrorCode as Code
from ezmsg.core.net.connection import Connection
from ezmsg.core.net.loglimit import LogLimiter
from ezmsg.core.server.books.processes import ProcessBook
from ezmsg.core.server.books.requests import RequestBook, Ticket
from ezmsg.core.wire.records import ProcessRequest, ProcessResponse, Record


class RouteDesk:
    """Passes operations on. Payloads are never looked at.

    Args:
        processes: Who owns what.
        clients: The connection of each process, by its client id.
    """

    def __init__(self, processes: ProcessBook, clients: Mapping[str, Connection]) -> None:
        self._processes, self._clients = processes, clients
        self._log = LogLimiter()
        self._given_up: dict[Connection, set[asyncio.Future[Record]]] = {}
        self.requests = RequestBook()

    async def route(self, requester: Connection, request: ProcessRequest) -> Record:
        """Pass an operation on to the process that owns the unit (or that is named), and its answer back.

        Every failure is an answer, too. The owner goes on with what was not answered in time (its late answer is
        ignored); when the requester takes its request back, or is gone, the owner is told to stop.

        Raises:
            ConfigError: The timeout is no number of seconds.
        """
        if not 0 <= request.timeout_s < math.inf:
            raise ConfigError("timeout", request.timeout_s, "seconds, 0 or more")
        owner = request.process_id or self._processes.owner(request.unit_address)
        connection = self._clients.get(owner or "")
        if owner is None or connection is None:
            return _unroutable(request)
        try:
            ticket = self.requests.open(requester, owner, request.operation)
        except TooManyProcessRequests as error:
            self._log.warning(f"{error.code} {owner}", f"{request.operation} is not passed on: {error}")
            return _refusal(Code.TOO_MANY_REQUESTS, f"{request.operation} is not passed on: {error}", owner)
        try:
            asked = connection.request_nowait(request, revocable=True)
        except EzmsgError as error:
            self.requests.leave(ticket)
            self.requests.end(ticket)
            return _refusal(Code.ROUTE_WRITE_FAILED, f"Failed to route request {request.operation}: {error}", owner)
        asked.add_done_callback(partial(self._ended, ticket))
        try:
            await asyncio.wait([asked], timeout=request.timeout_s)
        except asyncio.CancelledError:
            asked.cancel()
            raise
        finally:
            self.requests.leave(ticket)
        if asked.done():
            return _outcome(asked, owner)
        self._give_up(requester, asked)
        return _refusal(
            Code.TIMEOUT,
            f"Timed out waiting for process response to {request.operation} after {request.timeout_s:g} s",
            owner,
        )

    def requester_gone(self, requester: Connection) -> None:
        """Tell owners to stop with what nobody will hear of; what was still waited for ends with its connection."""
        for asked in self._given_up.pop(requester, set()):
            asked.cancel()

    def _ended(self, ticket: Ticket, asked: asyncio.Future[Record]) -> None:
        self.requests.end(ticket)
        if not asked.cancelled():
            asked.exception()  # seen: nobody may wait for it any more

    def _give_up(self, requester: Connection, asked: asyncio.Future[Record]) -> None:
        """Wait no longer, but remember what the owner still does for a requester."""
        pending = self._given_up.setdefault(requester, set())
        pending.add(asked)

        def forget(asked: asyncio.Future[Record]) -> None:
            pending.discard(asked)
            if not pending and self._given_up.get(requester) is pending:
                del self._given_up[requester]

        asked.add_done_callback(forget)


def _unroutable(request: ProcessRequest) -> ProcessResponse:
    if request.process_id:
        text = f"There is no process {request.process_id}"
    else:
        text = f"No process owns unit {request.unit_address!r}"
    return _refusal(Code.UNROUTABLE_UNIT, text)


def _outcome(asked: asyncio.Future[Record], owner: str) -> Record:
    """What the owner answered, or why it did not."""
    try:
        response = asked.result()
    except ConnectionLost:
        return _refusal(Code.PROCESS_DISCONNECTED, "Owning process disconnected before response", owner)
    except Exception as error:  # the peer's, of any class
        return _refusal(Code.HANDLER_ERROR, f"process request handler failed: {error}", owner)
    if not isinstance(response, ProcessResponse):
        text = f"the process answered with {type(response).__name__}, not a ProcessResponse"
        return _refusal(Code.INVALID_RESPONSE, text, owner)
    return response


def _refusal(code: Code, error: str, owner: str | None = None) -> ProcessResponse:
    return ProcessResponse(False, error=error, error_code=code.value, process_id=owner)
