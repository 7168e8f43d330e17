"""A queue between units."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

import ezmsg.core as ez
from ezmsg.util.messagequeue import MessageQueue
from tests.util.conftest import Run


@pytest.mark.parametrize("settings", [{}, {"maxsize": 1}, {"leaky": True}, {"output_hz": 1e4}])
async def test_messages_leave_the_queue_in_order(run: Run, settings: dict[str, Any]) -> None:
    async with run(MessageQueue(**settings)) as rig:
        await rig.send("INPUT", *range(20))
        assert await rig.receive("OUTPUT", 20) == list(range(20))


async def test_a_full_leaky_queue_drops_the_oldest_and_says_how_many(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    queue = MessageQueue(maxsize=3, leaky=True)
    queue.streams["OUTPUT"].num_buffers = 1  # type: ignore[attr-defined]
    with caplog.at_level(logging.WARNING, "ezmsg"):
        async with run(queue) as rig:
            # Nobody takes what is published: at most two are on their way, three wait.
            await rig.send("INPUT", *range(30))
            dropped = queue.STATE.dropped
            received = await rig.receive("OUTPUT", 30 - dropped)
    assert received[-3:] == [27, 28, 29]
    assert 25 <= dropped <= 27
    assert f"UNIT dropped {dropped} messages" in caplog.text


async def test_a_long_queue_is_reported_once(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    queue = MessageQueue(log_above_n=5)
    queue.streams["OUTPUT"].num_buffers = 1  # type: ignore[attr-defined]
    with caplog.at_level(logging.WARNING, "ezmsg"):
        async with run(queue) as rig:
            await rig.send("INPUT", *range(30))
            await rig.receive("OUTPUT", 30)
    assert caplog.text.count("UNIT has 6 messages waiting, more than 5") == 1


async def test_what_waits_is_not_what_its_sender_changes(run: Run) -> None:
    data = np.zeros(3)
    queue = MessageQueue()
    queue.streams["OUTPUT"].num_buffers = 1  # type: ignore[attr-defined]
    async with run(queue) as rig:
        await rig.send("INPUT", 1, 2, data)
        data += 1
        assert (await rig.receive("OUTPUT", 3))[-1].tolist() == [0.0, 0.0, 0.0]


def test_names_of_its_streams() -> None:
    assert isinstance(MessageQueue.INPUT, ez.InputStream)
    assert isinstance(MessageQueue.OUTPUT, ez.OutputStream)
