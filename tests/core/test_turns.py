"""When it pays to look again before sleeping, on a loop that has nothing else to do."""

import asyncio

import pytest

from ezmsg.core import turns
from ezmsg.core.turns import (
    BREAK,
    CROWDED_S,
    LONGEST_BREAK,
    LONGEST_PAUSE,
    PAUSE,
    SLICE_S,
    SOON_S,
    TRIES,
    TURNS,
    Courtesy,
    Eagerness,
)

pytestmark = pytest.mark.usefixtures("core")


class Core:
    """A core, and how long others have it whenever they are let: what a real one does depends on who else is there."""

    def __init__(self) -> None:
        self.now_s = self.others_s = 0.0
        self.yielded = 0

    def sched_yield(self) -> None:
        self.yielded += 1
        self.now_s += self.others_s


@pytest.fixture
def core(monkeypatch):
    core = Core()
    monkeypatch.setattr(turns.os, "sched_yield", core.sched_yield)
    monkeypatch.setattr(turns, "perf_counter", lambda: core.now_s)
    return core


class Watched:
    """What somebody looks for: there at the nth look, counted from 1; never if None."""

    def __init__(self, there_at: int | None) -> None:
        self.looks = 0
        self._there_at = there_at

    def __call__(self) -> bool:
        self.looks += 1
        return self._there_at is not None and self.looks >= self._there_at


async def test_whoever_slept_long_or_never_does_not_look():
    eagerness, watched = Eagerness(), Watched(1)
    assert not await eagerness.sees(watched)
    eagerness.slept(2 * SOON_S)
    assert not await eagerness.sees(watched)
    assert watched.looks == 0


async def test_whoever_slept_for_a_moment_looks_until_it_is_there():
    eagerness, watched = Eagerness(), Watched(3)
    eagerness.slept(SOON_S / 2)
    assert await eagerness.sees(watched)
    assert watched.looks == 3


async def test_looking_gives_up_after_some_turns():
    eagerness, watched = Eagerness(), Watched(None)
    eagerness.slept(SOON_S / 2)
    assert not await eagerness.sees(watched)
    assert watched.looks == TURNS


async def test_after_tries_in_vain_it_pauses_and_then_tries_again():
    eagerness, watched = Eagerness(), Watched(None)
    eagerness.slept(SOON_S / 2)
    for _ in range(TRIES):
        await eagerness.sees(watched)
    for _ in range(PAUSE - 1):
        await eagerness.sees(watched)
    assert watched.looks == TRIES * TURNS
    await eagerness.sees(watched)
    assert watched.looks == (TRIES + 1) * TURNS


async def test_seeing_it_once_pays_for_all_tries_before():
    eagerness = Eagerness()
    eagerness.slept(SOON_S / 2)
    for _ in range(TRIES - 1):
        await eagerness.sees(Watched(None))
    assert await eagerness.sees(Watched(1))
    watched = Watched(None)
    for _ in range(TRIES + 1):
        await eagerness.sees(watched)
    assert watched.looks == TRIES * TURNS


async def test_whoever_shares_its_core_sleeps_at_once_and_for_longer_each_time(core):
    eagerness, watched = Eagerness(), Watched(None)
    eagerness.slept(SOON_S / 2)
    core.others_s = 2 * CROWDED_S
    for _ in range(1 + 2 * PAUSE):
        assert not await eagerness.sees(watched)
    assert watched.looks == 2
    for _ in range(4 * PAUSE):
        await eagerness.sees(watched)
    assert watched.looks == 3


async def test_on_a_core_that_is_always_crowded_it_looks_all_but_never(core):
    eagerness, watched = Eagerness(), Watched(None)
    eagerness.slept(SOON_S / 2)
    core.others_s = 2 * CROWDED_S
    while watched.looks < 10:
        await eagerness.sees(watched)
    for _ in range(LONGEST_PAUSE):
        await eagerness.sees(watched)
    assert watched.looks == 11


async def test_what_was_let_first_may_be_who_is_waited_for(core):
    eagerness = Eagerness()
    eagerness.slept(SOON_S / 2)
    core.others_s = 2 * CROWDED_S
    assert await eagerness.sees(Watched(1))
    core.others_s = 0.0
    watched = Watched(None)
    assert not await eagerness.sees(watched)
    assert watched.looks == TURNS


async def test_several_that_look_at_the_same_time_pause_as_well():
    eagerness, watched = Eagerness(), Watched(None)
    eagerness.slept(SOON_S / 2)

    async def look_often():
        for _ in range(2 * TRIES):
            await eagerness.sees(watched)

    await asyncio.gather(*(look_often() for _ in range(3)))

    assert watched.looks <= (TRIES + 2) * TURNS


def test_who_soon_gives_the_core_back_is_let_go_first_every_time(core):
    courtesy, core.others_s = Courtesy(), SLICE_S / 2
    for _ in range(3 * BREAK):
        courtesy.offer()
    assert core.yielded == 3 * BREAK


def test_who_computes_is_let_go_first_ever_more_rarely_until_it_is_gone(core):
    courtesy, core.others_s = Courtesy(), 2 * SLICE_S
    between: list[int] = []
    while not between or between[-1] < LONGEST_BREAK:
        before, offered = core.yielded, 0
        while core.yielded == before:
            courtesy.offer()
            offered += 1
        between.append(offered - 1)
    assert between[:4] == [0, BREAK, 2 * BREAK, 4 * BREAK]
    core.others_s = 0.0
    for _ in range(LONGEST_BREAK + 1):
        courtesy.offer()
    before = core.yielded
    courtesy.offer()
    assert core.yielded == before + 1
