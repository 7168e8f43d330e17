"""The unit that logs messages."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import pytest

from ezmsg.util.messagecodec import MessageDecoder, message_log
from ezmsg.util.messagelogger import MessageLogger, log_object
from tests.util.conftest import Run
from tests.util.messages.signals import signal


def test_a_logged_object_has_the_time_it_was_logged_at() -> None:
    before = time.time()
    entry = json.loads(log_object(signal()), cls=MessageDecoder)
    assert before <= entry["ts"] <= time.time()
    assert entry["obj"] == signal()


async def test_messages_are_logged_and_passed_on(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.txt"
    logger = MessageLogger(output=path)
    async with run(logger) as rig:
        await rig.send("INPUT_MESSAGE", signal(), "text", 3)
        assert await rig.receive("OUTPUT_MESSAGE", 3) == [signal(), "text", 3]
    assert list(message_log(path)) == [signal(), "text", 3]
    assert logger.lost == 0


async def test_logs_begin_and_end_when_messages_say_so(run: Run, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    async with run(MessageLogger()) as rig:
        await rig.send("INPUT_MESSAGE", 1)
        await rig.send("INPUT_START", one)
        assert await rig.receive("OUTPUT_START") == [one]
        await rig.send("INPUT_MESSAGE", 2)
        await rig.send("INPUT_START", one, other)
        assert await rig.receive("OUTPUT_START") == [other]
        await rig.send("INPUT_MESSAGE", 3)
        await rig.send("INPUT_STOP", tmp_path / "never", one)
        assert await rig.receive("OUTPUT_STOP") == [one]
        assert list(message_log(one)) == [2, 3]
        await rig.send("INPUT_MESSAGE", 4)
    assert list(message_log(other)) == [3, 4]


async def test_a_log_that_cannot_be_written_is_reported_and_messages_go_on(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.ERROR, "ezmsg"):
        async with run(MessageLogger(output=tmp_path / "file" / "log")) as rig:
            await rig.send("INPUT_START", tmp_path / "file" / "log", tmp_path / "log")
            assert await rig.receive("OUTPUT_START") == [tmp_path / "log"]
            await rig.send("INPUT_MESSAGE", 1)
            assert await rig.receive("OUTPUT_MESSAGE") == [1]
    assert caplog.text.count("UNIT cannot log to") == 2
    assert list(message_log(tmp_path / "log")) == [1]
