"""Process requests at the server: passed on to the owner of a unit, answered with what it says, or with why not."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from uuid import UUID

from ezmsg.core.errors import ConfigError, ConnectionLost, EzmsgError, TooManyProcessRequests
from ezmsg.core.graphmeta import ProcessControlErrorCode as Code
from ezmsg.core.net.connection import Connection
from ezmsg.core.net.deadlines import Deadline
from ezmsg.core.net.latereply import LateReply
from ezmsg.core.net.loglimit import LogLimiter
from ezmsg.core.server.books.meters import CONTROL, ServerMeters
from ezmsg.core.server.books.processes import ProcessBook
from ezmsg.core.server.books.requests import RequestBook, Ticket
from ezmsg.core.wire.records import ProcessRequest, ProcessResponse, Record

CODES = frozenset(code.value for code in Code)
REVOKED = "REVOKED"
"""The error of a request that its requester took back."""


class RouteDesk:
    """Passes operations on. Payloads are never looked at.

    Args:
        processes: Who owns what.
        clients: The connection of each process, by its client id.
        links: Its telemetry link, by the id of that: the way to a process without a client.
        meters: Told how long operations took.
    """

    def __init__(
        self,
        processes: ProcessBook,
        clients: Mapping[str, Connection],
        links: Mapping[str, Connection],
        meters: ServerMeters,
    ) -> None:
        self._processes, self._clients, self._links, self._meters = processes, clients, links, meters
        self._log = LogLimiter()
        self._given_up: dict[Connection, set[_Passage]] = {}
        self.requests = RequestBook()

    def route(self, requester: Connection, request: ProcessRequest) -> Record | LateReply:
        """Pass an operation on to the process that owns the unit (or that is named), and its answer back.

        Every failure is an answer, too. The owner goes on with what was not answered in time (its late answer is
        ignored); when the requester takes its request back, or is gone, the owner is told to stop.

        Raises:
            ConfigError: The timeout is no number of seconds.
        """
        if not 0 <= request.timeout_s < math.inf:
            raise ConfigError("timeout", request.timeout_s, "seconds, 0 or more")
        answer = self._pass_on(requester, request)
        if isinstance(answer, ProcessResponse):
            self._meters.took(CONTROL, request.operation, answer.error_code or "", 0)
        return answer

    def _pass_on(self, requester: Connection, request: ProcessRequest) -> ProcessResponse | LateReply:
        owner = request.process_id or self._processes.owner(request.unit_address)
        connection = self._clients.get(owner or "") or self._links.get(request.process_id)
        if owner is None or connection is None:
            return _unroutable(request)
        try:
            ticket = self.requests.open(requester, owner, request.operation)
        except TooManyProcessRequests as error:
            self._log.warning(f"{error.code} {owner}", f"{request.operation} is not passed on: {error}")
            return _refusal(Code.TOO_MANY_REQUESTS, f"{request.operation} is not passed on: {error}", owner)
        passage = _Passage(self, requester, connection, ticket)
        try:
            passage.begin(request)
        except EzmsgError as error:
            self.requests.leave(ticket)
            self.requests.end(ticket)
            return _refusal(Code.ROUTE_WRITE_FAILED, f"Failed to route request {request.operation}: {error}", owner)
        return passage.reply

    def requester_gone(self, requester: Connection) -> None:
        """Tell owners to stop with what nobody will hear of; what was still waited for ends with its connection."""
        for passage in self._given_up.pop(requester, set()):
            passage.take_back()

    def given_up(self, passage: _Passage) -> None:
        """Nobody waits any more, but remember what the owner still does for a requester."""
        self._given_up.setdefault(passage.requester, set()).add(passage)

    def answered(self, passage: _Passage, error: str) -> None:
        """The requester waits no more: it has an answer, or took its request back."""
        duration_ns = time.perf_counter_ns() - passage.began_ns
        self._meters.took(CONTROL, passage.operation, error, duration_ns)

    def ended(self, passage: _Passage) -> None:
        """The owner is done with it."""
        self.requests.end(passage.ticket)
        pending = self._given_up.get(passage.requester)
        if pending is not None:
            pending.discard(passage)
            if not pending:
                del self._given_up[passage.requester]


class _Passage:
    """One request on its way from its requester to the owner, and back."""

    __slots__ = ("_desk", "_owner", "_request_id", "_timer", "began_ns", "operation", "reply", "requester", "ticket")

    _request_id: int
    _timer: Deadline

    def __init__(self, desk: RouteDesk, requester: Connection, owner: Connection, ticket: Ticket) -> None:
        self._desk, self._owner = desk, owner
        self.requester, self.ticket = requester, ticket
        self.reply = LateReply(self._revoked)

    def begin(self, request: ProcessRequest) -> None:
        """Pass it on.

        Raises:
            EzmsgError: It cannot be written.
        """
        self.began_ns, self.operation = time.perf_counter_ns(), request.operation
        self._request_id = self._owner.ask(request, self._answered, revocable=True)
        self._timer = self._owner.deadlines.after(request.timeout_s, self._timed_out, request)

    def take_back(self) -> None:
        """Tell the owner to stop."""
        self._owner.take_back(self._request_id)
        self._desk.ended(self)

    def _leave(self) -> None:
        self._timer.cancel()
        self._desk.requests.leave(self.ticket)

    def _revoked(self) -> None:
        self._leave()
        self._desk.answered(self, REVOKED)
        self.take_back()

    def _answered(self, answer: Record | Exception) -> None:
        self._leave()
        self._desk.ended(self)
        outcome = _outcome(answer, self.ticket.owner)
        self._desk.answered(self, outcome.error_code or "")
        self.reply.give(outcome)

    def _timed_out(self, request: ProcessRequest) -> None:
        self._leave()
        self._desk.given_up(self)
        self._desk.answered(self, Code.TIMEOUT.value)
        text = f"Timed out waiting for process response to {request.operation} after {request.timeout_s:g} s"
        self.reply.give(_refusal(Code.TIMEOUT, text, self.ticket.owner))


def _unroutable(request: ProcessRequest) -> ProcessResponse:
    if request.process_id:
        text = f"There is no process {request.process_id}"
    else:
        text = f"No process owns unit {request.unit_address!r}"
    return _refusal(Code.UNROUTABLE_UNIT, text)


def _outcome(answer: Record | Exception, owner: str) -> ProcessResponse:
    """What the owner answered, or why it did not."""
    if isinstance(answer, ProcessResponse):
        if (answer.error_code is None or answer.error_code in CODES) and _is_id(answer.process_id, owner):
            return answer
        text = f"the process answered with code {answer.error_code!r:.50} and process id {answer.process_id!r:.50}"
        return _refusal(Code.INVALID_RESPONSE, text, owner)
    if isinstance(answer, ConnectionLost):
        return _refusal(Code.PROCESS_DISCONNECTED, "Owning process disconnected before response", owner)
    if isinstance(answer, Exception):  # the peer's, of any class
        return _refusal(Code.HANDLER_ERROR, f"process request handler failed: {answer}", owner)
    text = f"the process answered with {type(answer).__name__}, not a ProcessResponse"
    return _refusal(Code.INVALID_RESPONSE, text, owner)


def _is_id(process_id: str | None, owner: str) -> bool:
    """Whether requesters can read an id: a handler may say that somebody else answers."""
    if process_id is None or process_id == owner:
        return True
    try:
        UUID(process_id)
    except ValueError:
        return False
    return True


def _refusal(code: Code, error: str, owner: str | None = None) -> ProcessResponse:
    return ProcessResponse(False, error=error, error_code=code.value, process_id=owner)
