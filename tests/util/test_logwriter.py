"""Writing logs beside the event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ezmsg.core.profiling import PROFILES
from ezmsg.util.logwriter import LogWriter
from ezmsg.util.messagecodec import message_log


class Stubborn:
    """Can be written neither as a pickle nor as JSON."""

    def __reduce__(self) -> Any:
        raise TypeError("I will not be pickled")


class Pipe:
    """A file whose other end a test holds in its hands: it is as slow as the test."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def drain(self) -> threading.Thread:
        """Read all there is and will be, in a thread."""
        os.set_blocking(self._end, True)

        def read() -> None:
            while os.read(self._end, 1 << 20):
                pass

        thread = threading.Thread(target=read)
        thread.start()
        return thread

    def close(self) -> None:
        os.close(self._end)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    pipe = Pipe(tmp_path / "pipe")
    yield pipe
    pipe.close()


async def test_messages_are_in_all_files_that_are_open_when_they_come(tmp_path: Path) -> None:
    one, other = tmp_path / "deep" / "one", tmp_path / "other"
    writer = LogWriter("W")
    writer.write("before")
    assert await writer.open(one)
    writer.write(1)
    assert await writer.open(other)
    assert not await writer.open(one)
    writer.write(2)
    assert await writer.end(one)
    assert not await writer.end(one)
    assert list(message_log(one)) == [1, 2]
    writer.write(3)
    await writer.close()
    assert list(message_log(other)) == [2, 3]
    assert writer.lost == 0


async def test_what_is_written_is_what_it_was(tmp_path: Path) -> None:
    writer = LogWriter("W")
    await writer.open(tmp_path / "log")
    data = np.zeros(2)
    writer.write(data)
    data += 1
    await writer.close()
    assert next(message_log(tmp_path / "log")).tolist() == [0.0, 0.0]


async def test_with_a_period_everything_is_written_at_the_end_at_the_latest(tmp_path: Path) -> None:
    writer = LogWriter("W", write_period_s=3600.0)
    await writer.open(tmp_path / "log")
    for number in range(10):
        writer.write(number)
    await writer.close()
    assert list(message_log(tmp_path / "log")) == list(range(10))


async def test_with_a_period_what_waits_is_written_by_itself(tmp_path: Path) -> None:
    writer = LogWriter("W", write_period_s=0.01)
    await writer.open(tmp_path / "log")
    writer.write("message")
    async with asyncio.timeout(40):
        while list(message_log(tmp_path / "log")) != ["message"]:
            await asyncio.sleep(0.005)
    await writer.close()


async def test_what_a_slow_file_has_no_time_for_is_lost_and_counted(
    pipe: Pipe, caplog: pytest.LogCaptureFixture
) -> None:
    message, count = bytes(50_000), 40
    before = PROFILES.snapshot().process.unlogged.get("W", 0)
    writer = LogWriter("W", waiting_bytes=500_000)
    await writer.open(pipe.path)
    with caplog.at_level(logging.WARNING, "ezmsg"):
        for _ in range(count):
            writer.write(message)
        # As much as may wait, and what the thread has taken and is about to write.
        assert count - 25 < writer.lost < count
        reader = pipe.drain()
        await writer.close()
    reader.join()
    assert f"W lost {writer.lost} messages in all" in caplog.text
    assert "too slow" in caplog.text
    assert PROFILES.snapshot().process.unlogged["W"] == before + writer.lost


async def test_the_end_does_not_wait_for_ever(pipe: Pipe, caplog: pytest.LogCaptureFixture) -> None:
    writer = LogWriter("W")
    await writer.open(pipe.path)
    writer.write(bytes(1_000_000))
    await writer.close(grace_s=0.05)
    assert "could not finish its logs" in caplog.text
    pipe.drain().join()  # else the thread would be left


async def test_a_message_that_cannot_be_written_is_lost_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = LogWriter("W")
    await writer.open(tmp_path / "log")
    writer.write(Stubborn())
    writer.write(1)
    await writer.close()
    assert list(message_log(tmp_path / "log")) == [1]
    assert writer.lost == 1
    assert "I will not be pickled" in caplog.text


async def test_a_file_that_cannot_be_had_is_an_error_and_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    writer = LogWriter("W")
    for _ in range(2):
        with pytest.raises(OSError, match="file"):
            await writer.open(tmp_path / "file" / "log")
    await writer.open(tmp_path / "log")
    writer.write(1)
    await writer.close()
    assert list(message_log(tmp_path / "log")) == [1]
    with pytest.raises(OSError, match="has ended"):
        await writer.open(tmp_path / "late")


async def test_a_full_disk_ends_its_file_and_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    writer = LogWriter("W")
    with pytest.raises(OSError, match="No space left"):
        await writer.open(full)
    await writer.close()


async def test_a_log_that_is_replaced_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "log").write_text("old")
    writer = LogWriter("W")
    await writer.open(tmp_path / "log")
    await writer.close()
    assert list(message_log(tmp_path / "log")) == []
    assert "replaced by a new log" in caplog.text
