"""Messages in the log."""

from __future__ import annotations

import logging

import pytest

from ezmsg.util.debuglog import DebugLog
from tests.util.conftest import Run


@pytest.mark.parametrize(
    ("max_length", "line"),
    [(None, "NAME - msg='" + "a" * 1000 + "'"), (20, "NAME - msg='aaaaaaaa ... [truncated]")],
)
async def test_messages_are_logged_and_passed_on(
    run: Run, caplog: pytest.LogCaptureFixture, max_length: int | None, line: str
) -> None:
    with caplog.at_level(logging.INFO, "ezmsg"):
        async with run(DebugLog(name="NAME", max_length=max_length)) as rig:
            await rig.send("INPUT", "a" * 1000)
            assert await rig.receive("OUTPUT") == ["a" * 1000]
    assert line in caplog.messages
