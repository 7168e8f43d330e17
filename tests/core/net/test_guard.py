"""The rules for the peers of a server: what is held for them has a bound, and the one that most is held for goes."""

from __future__ import annotations

from ezmsg.core.errors import ServerFull
from ezmsg.core.net.guard import Guard
from ezmsg.core.wire.limits import HEAVY_BYTES


class FakePeer:
    """Remembers why it was dropped."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []

    def fail(self, error: Exception) -> None:
        self.errors.append(error)


def test_little_is_not_counted_and_what_was_read_is_given_back() -> None:
    guard, peer = Guard([], max_bytes=10 * HEAVY_BYTES), FakePeer()
    guard.holds(peer, HEAVY_BYTES - 1)
    assert guard.held_bytes == 0
    guard.holds(peer, 3 * HEAVY_BYTES)
    guard.holds(peer, 2 * HEAVY_BYTES)
    assert guard.held_bytes == 2 * HEAVY_BYTES
    guard.holds(peer, 0)
    assert guard.held_bytes == 0
    assert not peer.errors


def test_beyond_the_bound_those_go_that_most_is_held_for() -> None:
    guard = Guard([], max_bytes=10 * HEAVY_BYTES)
    small, large, larger = FakePeer(), FakePeer(), FakePeer()
    guard.holds(small, HEAVY_BYTES)
    guard.holds(large, 4 * HEAVY_BYTES)
    guard.holds(larger, 5 * HEAVY_BYTES)
    assert [small.errors, large.errors, larger.errors] == [[], [], []]
    guard.holds(small, 2 * HEAVY_BYTES)
    [error] = larger.errors
    assert isinstance(error, ServerFull)
    assert (error.size, error.used, error.limit) == (5 * HEAVY_BYTES, 6 * HEAVY_BYTES, 10 * HEAVY_BYTES)
    assert guard.held_bytes == 6 * HEAVY_BYTES
    assert [small.errors, large.errors] == [[], []]
