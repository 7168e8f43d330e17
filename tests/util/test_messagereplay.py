"""The unit that replays logs, and the one that keeps what it receives."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ezmsg.core as ez
from ezmsg.util.messagecodec import LogStart, log_line, message_log
from ezmsg.util.messagelogger import MessageLogger
from ezmsg.util.messagereplay import (
    FileReplayMessage,
    MessageCollector,
    MessageReplay,
    MessageReplaySettings,
    Pace,
    ReplayStatusMessage,
)
from ezmsg.util.messages.chunker import ArrayChunker
from ezmsg.util.terminate import TerminateOnTotal
from tests.util.conftest import Run
from tests.util.messages.signals import signal

MESSAGES = [signal(), "text", 3]
TIMES = [100.0, 100.004, 100.012]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log of three messages within 12 ms."""
    return logged(tmp_path / "log.txt", MESSAGES, TIMES)


def logged(path: Path, messages: list[Any], times: list[float]) -> Path:
    lines = [log_line(LogStart(), times[0])]
    lines += [log_line(message, time) for message, time in zip(messages, times, strict=True)]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_settings_are_a_file_to_replay() -> None:
    assert issubclass(MessageReplaySettings, (ez.Settings, FileReplayMessage))
    assert MessageReplaySettings(Path("a"), 2.0).rate == 2.0


@pytest.mark.parametrize("rate", [None, 0.0, 500.0])
async def test_a_log_is_replayed_with_its_status_and_total(run: Run, path: Path, rate: float | None) -> None:
    async with run(MessageReplay(filename=path, rate=rate, progress=True)) as rig:
        assert await rig.receive("OUTPUT_MESSAGE", 3) == MESSAGES
        assert await rig.receive("OUTPUT_TOTAL") == [3]
        # The first line of a log is no message.
        expected = [ReplayStatusMessage(path, number, 4) for number in range(5)]
        expected.append(ReplayStatusMessage(path, 4, 4, done=True))
        assert await rig.receive("OUTPUT_REPLAY_STATUS", 6) == expected


async def test_a_speed_that_is_none_is_reported(run: Run, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "ezmsg"):
        async with run(MessageReplay()) as rig:
            await rig.send("INPUT_FILE", FileReplayMessage(path, 0.0, speed=0.0), FileReplayMessage(path))
            assert await rig.receive("OUTPUT_TOTAL") == [3]
    assert "speed=0.0" in caplog.text


async def test_logs_are_replayed_one_after_the_other(run: Run, path: Path, tmp_path: Path) -> None:
    other = logged(tmp_path / "other", [7, 8], [1.0, 2.0])
    async with run(MessageReplay()) as rig:
        await rig.send("INPUT_FILE", FileReplayMessage(), FileReplayMessage(path, 0.0), FileReplayMessage(other))
        assert await rig.receive("OUTPUT_MESSAGE", 5) == [*MESSAGES, 7, 8]
        assert await rig.receive("OUTPUT_TOTAL", 2) == [3, 2]


async def test_a_replay_can_be_paused_and_stopped(run: Run, tmp_path: Path) -> None:
    long = logged(tmp_path / "long", [1, 2, 3], [0.0, 0.001, 3600.0])
    async with run(MessageReplay()) as rig:
        await rig.send("INPUT_PAUSED", True)
        await rig.send("INPUT_FILE", FileReplayMessage(long, 0.0), FileReplayMessage(long, 0.0))
        assert (await rig.receive("OUTPUT_REPLAY_STATUS", 2))[-1].idx == 1
        await rig.send("INPUT_PAUSED", False)
        assert await rig.receive("OUTPUT_MESSAGE", 2) == [1, 2]
        await rig.send("INPUT_STOP", False, True)
        assert await rig.receive("OUTPUT_TOTAL") == [2]
        assert (await rig.receive("OUTPUT_REPLAY_STATUS", 3))[-1] == ReplayStatusMessage(long, 3, 4, done=True)
        await rig.send("INPUT_FILE", FileReplayMessage(logged(tmp_path / "short", [4], [0.0])))
        assert await rig.receive("OUTPUT_MESSAGE") == [4]


async def test_lines_that_cannot_be_read_are_left_out_and_reported(
    run: Run, path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*text[:2], "broken\n", *text[2:]])[:-5])
    with caplog.at_level(logging.WARNING, "ezmsg"):
        async with run(MessageReplay(filename=tmp_path / "nothing")) as rig:
            await rig.send("INPUT_FILE", FileReplayMessage(path))
            assert await rig.receive("OUTPUT_TOTAL") == [2]
            assert await rig.receive("OUTPUT_MESSAGE", 2) == MESSAGES[:2]
    assert f"UNIT cannot replay {tmp_path / 'nothing'}" in caplog.text
    assert f"line 3 of {path} cannot be read" in caplog.text
    assert f"the last line of {path} is torn" in caplog.text


def test_what_a_run_logs_another_run_replays(tmp_path: Path) -> None:
    data = np.random.default_rng(1).normal(size=(100, 4))
    path = tmp_path / "log.txt"
    chunker, logger, end = ArrayChunker(data=data, chunk_len=7), MessageLogger(output=path), TerminateOnTotal(total=15)
    connections = [
        (chunker.OUTPUT_SIGNAL, logger.INPUT_MESSAGE),
        (logger.OUTPUT_MESSAGE, end.INPUT_MESSAGE),
    ]
    ez.run(CHUNKER=chunker, LOGGER=logger, END=end, connections=connections)

    replay, collector, end = MessageReplay(filename=path), MessageCollector(), TerminateOnTotal()
    connections = [
        (replay.OUTPUT_MESSAGE, collector.INPUT_MESSAGE),
        (collector.OUTPUT_MESSAGE, end.INPUT_MESSAGE),
        (replay.OUTPUT_TOTAL, end.INPUT_TOTAL),
    ]
    ez.run(REPLAY=replay, COLLECTOR=collector, END=end, connections=connections)

    assert collector.messages == list(message_log(path))
    assert np.array_equal(np.concatenate([message.data for message in collector.messages]), data)


# -- the pace, on a clock that tests move -----------------------------------------------------------------------------


class Clock:
    """A clock that moves when something waits for it, and notes for how long."""

    def __init__(self, pace: Pace, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 50.0
        pace._clock = lambda: self.now  # pyright: ignore[reportPrivateUsage]
        monkeypatch.setattr(asyncio, "timeout", self.timeout)

    def timeout(self, delay_s: float) -> Any:
        self.now += delay_s
        raise TimeoutError


@pytest.mark.parametrize(
    ("rate", "speed", "expected"),
    [
        (None, 1.0, [50.0, 50.0, 50.0]),
        (0.0, 1.0, [50.0, 50.5, 53.0]),
        (0.0, 2.0, [50.0, 50.25, 51.5]),
        (0.0, 0.5, [50.0, 51.0, 56.0]),
        (4.0, 2.0, [50.0, 50.25, 50.5]),
    ],
)
async def test_messages_are_due_when_the_rate_says(
    monkeypatch: pytest.MonkeyPatch, rate: float | None, speed: float, expected: list[float]
) -> None:
    pace = Pace()
    clock = Clock(pace, monkeypatch)
    pace.begin(rate, speed)
    due: list[float] = []
    for timestamp in (10.0, 10.5, 13.0):
        assert await pace.is_due(timestamp)
        due.append(clock.now)
    assert due == pytest.approx(expected)


async def test_a_late_message_does_not_hold_up_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace()
    clock = Clock(pace, monkeypatch)
    pace.begin(0.0)
    await pace.is_due(10.0)
    clock.now += 2.0
    await pace.is_due(11.0)
    assert clock.now == 52.0
    await pace.is_due(13.0)
    assert clock.now == 53.0


async def test_a_pause_moves_all_that_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace()
    clock = Clock(pace, monkeypatch)
    pace.begin(0.0)
    await pace.is_due(10.0)
    pace.pause(True)
    waiting = asyncio.create_task(pace.is_due(11.0))
    await asyncio.sleep(0)
    clock.now += 100.0
    pace.pause(False)
    assert await waiting
    assert clock.now == 151.0
    await pace.is_due(12.0)
    assert clock.now == 152.0
