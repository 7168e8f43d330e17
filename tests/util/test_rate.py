"""Steady loops, on a clock that tests move."""

from __future__ import annotations

import asyncio
import time

import pytest

from ezmsg.util.rate import Rate


class Clock:
    """A clock that sleeping moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)
        monkeypatch.setattr(asyncio, "sleep", self.sleep_async)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_each_run_is_due_one_period_after_the_last(clock: Clock) -> None:
    rate = Rate(4.0)
    assert rate.remaining() == 0.25
    for number in range(1, 4):
        clock.now += 0.2  # what the loop does
        rate.sleep_sync()
        assert clock.now == 100.0 + number * 0.25


def test_a_run_that_took_too_long_is_made_up_for(clock: Clock) -> None:
    rate = Rate(4.0)
    clock.now += 0.625
    assert rate.remaining() == -0.375
    rate.sleep_sync()
    assert clock.now == 100.625
    rate.sleep_sync()
    rate.sleep_sync()
    assert clock.now == 100.75


def test_a_long_pause_is_not_made_up_for(clock: Clock) -> None:
    rate = Rate(4.0)
    clock.now += 10.0
    rate.sleep_sync()
    assert rate.remaining() == 0.25


async def test_waiting_lets_others_run() -> None:
    rate = Rate(1e9)
    turns: list[str] = []
    other = asyncio.get_running_loop().call_soon(turns.append, "other")
    await rate.sleep()
    assert turns == ["other"]
    other.cancel()


@pytest.mark.parametrize("hz", [0, -1.0, float("nan")])
def test_a_rate_is_above_0(hz: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Rate(hz)
