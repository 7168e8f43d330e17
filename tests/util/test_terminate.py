"""Units that end a run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

import ezmsg.core as ez
from ezmsg.util.terminate import TerminateOnTimeout, TerminateOnTotal
from tests.core.rununits import Counter, Idle


class Numbers(ez.Unit):
    """Publishes a number on OUTPUT, and another on TOTAL."""

    OUTPUT = ez.OutputStream(int)
    TOTAL = ez.OutputStream(int)

    @ez.publisher(OUTPUT)
    @ez.publisher(TOTAL)
    async def publish(self) -> AsyncIterator[Any]:
        for number in range(3):
            yield self.OUTPUT, number
        yield self.TOTAL, 3


def test_a_run_ends_when_messages_stop_coming() -> None:
    source, end = Counter(count=2), TerminateOnTimeout(time=0.01, poll_rate=500.0)
    ez.run(SOURCE=source, IDLE=Idle(), END=end, connections=[(source.OUTPUT, end.INPUT)])


@pytest.mark.parametrize("total", [1, 3])
def test_a_run_ends_after_so_many_messages(total: int) -> None:
    source, end = Counter(count=3), TerminateOnTotal(total=total)
    ez.run(SOURCE=source, IDLE=Idle(), END=end, connections=[(source.OUTPUT, end.INPUT_MESSAGE)])


def test_the_total_can_come_after_the_messages() -> None:
    source, end = Numbers(), TerminateOnTotal()
    connections = [(source.OUTPUT, end.INPUT_MESSAGE), (source.TOTAL, end.INPUT_TOTAL)]
    ez.run(SOURCE=source, IDLE=Idle(), END=end, connections=connections)
