"""How long a loop is kept awake after something came."""

import asyncio

import pytest

from ezmsg.core import turns
from ezmsg.core.net import attention
from ezmsg.core.net.attention import SOON_S, TURNS, Attention, attention_of


class Core:
    """The time, and how often others were let have the core."""

    def __init__(self) -> None:
        self.now_s, self.yields = 1.0, 0

    def sched_yield(self) -> None:
        self.yields += 1


@pytest.fixture
def core(monkeypatch):
    core = Core()
    monkeypatch.setattr(turns.os, "sched_yield", core.sched_yield)
    for module in (turns, attention):
        monkeypatch.setattr(module, "perf_counter", lambda: core.now_s)
    return core


async def some_turns() -> None:
    for _ in range(3 * TURNS):
        await asyncio.sleep(0)


async def test_what_comes_seldom_lets_the_loop_sleep(core):
    seldom = Attention()
    for _ in range(5):
        core.now_s += 2 * SOON_S
        seldom.heard(asyncio.get_running_loop())
        await some_turns()
    assert core.yields == 0


async def test_what_comes_often_keeps_the_loop_awake_for_some_turns(core):
    often, loop = Attention(), asyncio.get_running_loop()
    often.heard(loop)
    core.now_s += SOON_S / 2
    often.heard(loop)
    await some_turns()
    assert core.yields == TURNS - 1


async def test_what_comes_meanwhile_keeps_it_awake_for_longer(core):
    often, loop = Attention(), asyncio.get_running_loop()
    for _ in range(2):
        often.heard(loop)
    for _ in range(TURNS // 2):
        await asyncio.sleep(0)
    seen = core.yields
    often.heard(loop)
    await some_turns()
    assert core.yields == seen + TURNS - 1


async def test_connections_of_a_loop_share_it():
    loop = asyncio.get_running_loop()
    assert attention_of(loop) is attention_of(loop)
