"""A gate for messages."""

from __future__ import annotations

from typing import Any

import pytest

from ezmsg.util.messagegate import GateMessage, MessageGate
from tests.util.conftest import Run

OPEN, CLOSE = GateMessage(True), GateMessage(False)
LAST = -1


@pytest.mark.parametrize(
    ("settings", "sent", "expected"),
    [
        ({}, [1, OPEN, 2, 3, CLOSE, 4], [2, 3]),
        ({"start_open": True}, [1, CLOSE, 2, OPEN, 3], [1, 3]),
        ({"start_open": True, "default_after": 2}, [1, 2, 3], [1, 2]),
        ({"default_open": True, "default_after": 2}, [1, 2, 3, CLOSE, 4, 5, 6], [3, 6]),
        ({"default_after": 2}, [OPEN, 1, 2, 3, OPEN, 4, 5, 6], [1, 2, 4, 5]),
        ({"default_after": 0}, [OPEN, 1, 2], [1]),
    ],
)
async def test_messages_pass_while_the_gate_is_open(
    run: Run, settings: dict[str, Any], sent: list[Any], expected: list[int]
) -> None:
    async with run(MessageGate(**settings)) as rig:
        for message in [*sent, OPEN, LAST]:
            await rig.send("INPUT_GATE" if isinstance(message, GateMessage) else "INPUT", message)
        assert await rig.receive("OUTPUT", len(expected) + 1) == [*expected, LAST]
