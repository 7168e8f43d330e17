"""The old profiler, which writes to a file of its own; importing it has effects, so that each test is a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PRELUDE = """
import asyncio, logging, numpy as np
import ezmsg.util.profiler as profiler
from ezmsg.util.messages.axisarray import AxisArray

def message(offset):
    return AxisArray(np.zeros(4), ["time"], {"time": AxisArray.TimeAxis(2.0, offset)})
"""


def run(home: Path, code: str, **environment: str) -> str:
    """What a program prints that imports the profiler."""
    command = [sys.executable, "-W", "error", "-c", PRELUDE + code]
    kept = {name: os.environ[name] for name in ("PYTHONPATH", "TESTS_DEFAULT_PORT")}
    env = {"HOME": str(home), "EZMSG_LOGLEVEL": "DEBUG", **kept, **environment}
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout


def test_each_call_of_a_method_and_each_message_of_a_task_is_a_line_of_the_file(tmp_path: Path) -> None:
    code = """
import ezmsg.core as ez

profiler._setup_logger(append=True)
(handler,) = profiler.logger.handlers
print(profiler.logger.name, profiler.logger.level, type(handler).__name__, handler.level, handler.baseFilename)

class Mine:
    address = "SYSTEM/UNIT"
    @profiler.profile_method()
    def oldest(self, offset): return message(offset)
    @profiler.profile_method(trace_oldest=False)
    async def newest(self, offset): return message(offset)
    @profiler.profile_method()
    def nothing(self): return 5

mine = Mine()
assert mine.oldest(1.0).axes["time"].offset == 1.0
assert asyncio.run(mine.newest(1.0)).shape == (4,)
assert mine.nothing() == 5

class Source(ez.Unit):
    OUTPUT = ez.OutputStream(AxisArray)

    @ez.publisher(OUTPUT)
    @profiler.profile_subpub()
    async def publish(self):
        for offset in (1.0, 2.0):
            yield self.OUTPUT, message(offset)

ez.run(SOURCE=Source())
print(profiler.get_logger_path().read_text())
"""
    made, header, *written = run(tmp_path, code).splitlines()
    path = tmp_path / ".ezmsg" / "profiler" / "ezprofiler.log"
    assert made.split() == ["ezprofiler", "10", "FileHandler", "10", str(path)]
    assert header == "Time,Source,Topic,SampleTime,PerfCounter,Elapsed"
    lines = [line.split(",") for line in written if line]
    assert [line[1:4] for line in lines] == [
        ["__main__.Mine", "SYSTEM/UNIT", "1.0"],
        ["__main__.Mine", "SYSTEM/UNIT", "2.5"],
        ["__main__.Mine", "SYSTEM/UNIT", "None"],
        ["__main__.Source", "SOURCE", "1.0"],
        ["__main__.Source", "SOURCE", "2.0"],
    ]
    assert all(float(line[4]) > float(line[5]) / 1e3 > 0 for line in lines)


def test_nothing_is_written_unless_wanted_and_a_variable_names_the_file(tmp_path: Path) -> None:
    code = """
class Mine:
    @profiler.profile_method()
    def method(self): return 5
assert Mine().method() == 5
print(profiler.logger.level, profiler.get_logger_path().read_text())
"""
    path = tmp_path / "elsewhere" / "mine.log"
    assert (
        run(tmp_path, code, EZMSG_LOGLEVEL="WARNING", EZMSG_PROFILER=str(path)).strip()
        == "30 Time,Source,Topic,SampleTime,PerfCounter,Elapsed"
    )
    assert path.exists()


def test_a_file_that_cannot_be_had_is_reported(tmp_path: Path) -> None:
    (tmp_path / ".ezmsg").touch()
    assert run(tmp_path, "print(profiler.logger.handlers)").strip() == "[<NullHandler (DEBUG)>]"
