"""The process requests in flight, and how many there may be: so many stuck ones must not stop the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

from ezmsg.core.errors import TooManyProcessRequests
from ezmsg.core.graphmeta import BUILTIN_OPERATIONS
from ezmsg.core.wire.limits import ROUTED_AT_ONCE, ROUTED_PER_CLIENT


@dataclass(eq=False, slots=True)
class Ticket:
    """One request that was passed on. It counts for its requester while that waits, for its owner until that is done.

    A request that timed out is the one that waits no more while its owner still works.
    """

    lane: Lane
    requester: Hashable
    owner: str
    is_waited_for: bool = True
    is_worked_on: bool = True


# Who waits for fewer than so many finds room where others have taken all of theirs.
MODEST = 4


class Lane:
    """The requests of one kind, and the bounds for them.

    A quarter more than the bounds is kept for requesters who wait for few: those who ask much cannot shut them out.
    """

    def __init__(self, per_client: int, at_once: int) -> None:
        self._per_client, self._at_once = per_client, at_once
        self.waiting: Counter[Hashable] = Counter()
        self.working: Counter[str] = Counter()
        self.total = 0
        self.refused = 0

    def open(self, requester: Hashable, owner: str) -> Ticket:
        """Count a request, if it may be passed on."""
        waiting = self.waiting[requester]
        shares = 5 if waiting < MODEST else 4
        if self.working[owner] >= self._per_client * shares // 4:
            raise self._refusal(f"process {owner}", self._per_client)
        if waiting >= self._per_client:
            raise self._refusal("this requester", self._per_client)
        if self.total >= self._at_once * shares // 4:
            raise self._refusal("all clients of this GraphServer", self._at_once)
        self.waiting[requester] += 1
        self.working[owner] += 1
        self.total += 1
        return Ticket(self, requester, owner)

    def leave(self, ticket: Ticket) -> None:
        """Nobody waits for it any more."""
        if ticket.is_waited_for:
            ticket.is_waited_for = False
            self.total -= 1
            _decrease(self.waiting, ticket.requester)

    def end(self, ticket: Ticket) -> None:
        """Nobody works on it any more."""
        if ticket.is_worked_on:
            ticket.is_worked_on = False
            _decrease(self.working, ticket.owner)

    def _refusal(self, whose: str, limit: int) -> TooManyProcessRequests:
        self.refused += 1
        return TooManyProcessRequests(whose, limit, self.refused)


class RequestBook:
    """What is in flight, in two lanes: built-in operations find a way past handlers that are stuck.

    Args:
        per_client: Requests of one kind that one requester may wait for, and that one owner may work on.
        at_once: Requests of one kind that are waited for altogether.
    """

    def __init__(self, per_client: int = ROUTED_PER_CLIENT, at_once: int = ROUTED_AT_ONCE) -> None:
        self._builtin, self._handled = Lane(per_client, at_once), Lane(per_client, at_once)

    def __len__(self) -> int:
        return self._builtin.total + self._handled.total

    @property
    def refused(self) -> int:
        """Requests that were not passed on because there were too many."""
        return self._builtin.refused + self._handled.refused

    def working(self, owner: str) -> int:
        """Requests that an owner has not answered yet, whether or not somebody still waits for them."""
        return self._builtin.working[owner] + self._handled.working[owner]

    def open(self, requester: Hashable, owner: str, operation: str) -> Ticket:
        """A request is to be passed on.

        Raises:
            TooManyProcessRequests: There are too many of its requester, its owner, or altogether; it is counted.
        """
        lane = self._builtin if operation in BUILTIN_OPERATIONS else self._handled
        return lane.open(requester, owner)

    def leave(self, ticket: Ticket) -> None:
        """The requester got an answer, or is gone. Safe to call twice."""
        ticket.lane.leave(ticket)

    def end(self, ticket: Ticket) -> None:
        """The owner answered, or is gone. Safe to call twice."""
        ticket.lane.end(ticket)


def _decrease(counts: Counter[Hashable] | Counter[str], key: Hashable) -> None:
    counts[key] -= 1  # pyright: ignore[reportArgumentType] - the key comes from the same counter
    if not counts[key]:  # pyright: ignore[reportArgumentType]
        del counts[key]  # pyright: ignore[reportArgumentType]
