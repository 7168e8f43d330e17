"""When it pays to look again before sleeping, on a loop that has nothing else to do."""

from ezmsg.core.turns import PAUSE, SOON_S, TRIES, TURNS, Eagerness


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
