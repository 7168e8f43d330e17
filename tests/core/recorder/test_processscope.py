"""What is measured of a process itself."""

from __future__ import annotations

import gc
import os
import threading

import pytest

from ezmsg.core.profiling import ProfileRegistry
from ezmsg.core.recorder import processscope
from ezmsg.core.recorder.processscope import FRESH_S, ProcessScope, system_values
from ezmsg.core.recorder.rows import SEPARATOR
from tests.core.forked import in_child


def test_a_duration_is_in_the_histogram_of_its_name_and_label() -> None:
    registry = ProfileRegistry()
    scope = registry.recorder.process
    scope.observe("loop_lag", "main", 5)
    scope.observe("loop_lag", "main", 7)
    scope.observe("loop_lag", "worker", -1)
    lags = registry.snapshot().process.loop_lag
    assert {name: (lag.count, lag.sum) for name, lag in lags.items()} == {
        "main": (2, pytest.approx(12e-9)),
        "worker": (1, 0.0),
    }


def test_durations_that_nobody_reads_are_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processscope, "DURATIONS", 2)
    registry = ProfileRegistry()
    for _ in range(5):
        registry.recorder.process.observe("loop_lag", "main", 1)
    snapshot = registry.snapshot()
    assert snapshot.process.loop_lag["main"].count == 2
    assert (snapshot.recorded["duration"], snapshot.dropped["duration:unread"]) == (5, 3)


def test_errors_of_tasks_are_counted_by_task_and_type_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processscope, "ERRORS", 2)
    scope = ProcessScope()
    for error in ("KeyError", "KeyError", "ValueError", "TypeError", "OSError"):
        scope.task_failed("U", "run", error)
    assert scope.counters(with_system=False) == {
        f"task_errors:{SEPARATOR.join(('U', 'run', 'KeyError'))}": 2,
        f"task_errors:{SEPARATOR.join(('U', 'run', 'ValueError'))}": 1,
        f"task_errors:{SEPARATOR.join(('other', 'other', 'other'))}": 2,
    }


def test_messages_that_were_not_logged_are_counted_by_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processscope, "LOGGERS", 1)
    registry = ProfileRegistry()
    registry.unlogged("ROOT/LOG")
    registry.unlogged("ROOT/LOG", 2)
    registry.unlogged("ROOT/MORE")
    counters = registry.recorder.process.counters(with_system=False)
    assert counters == {"unlogged:ROOT/LOG": 3, "unlogged:other": 1}


def test_the_operating_system_and_the_interpreter_are_asked() -> None:
    before = system_values()
    reader, writer = os.pipe()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    gc.collect()
    after = system_values()
    stop.set()
    thread.join()
    os.close(reader)
    os.close(writer)
    assert after["descriptors"] == before["descriptors"] + 2
    assert after["threads"] == before["threads"] + 1
    assert after["memory_bytes"] > 1_000_000
    assert after["cpu_user_ns"] >= before["cpu_user_ns"] > 0
    assert after["gc_collections:2"] > before["gc_collections:2"]


def test_the_system_is_not_asked_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [50.0]
    monkeypatch.setattr(processscope.time, "monotonic", lambda: now_s[0])
    scope = ProcessScope()
    before = scope.counters(with_system=True)
    gc.collect()
    assert scope.counters(with_system=True)["gc_collections:2"] == before["gc_collections:2"]
    now_s[0] += FRESH_S
    assert scope.counters(with_system=True)["gc_collections:2"] > before["gc_collections:2"]


def test_a_snapshot_tells_of_the_process() -> None:
    registry = ProfileRegistry()
    registry.task_failed("ROOT/SOURCE", "spin", "ValueError")
    registry.unlogged("ROOT/LOG", 2)
    registry.recorder.process.costs({"metrics": 0.25})
    process = registry.snapshot().process
    assert process.memory_bytes > 1_000_000
    assert process.threads >= 1
    assert process.cpu_user_seconds > 0
    assert process.gc_collections.keys() == {0, 1, 2}
    assert process.overhead == {"metrics": 0.25}
    assert process.task_errors == {("ROOT/SOURCE", "spin", "ValueError"): 1}
    assert process.unlogged == {"ROOT/LOG": 2}


def test_what_a_parent_collected_is_not_counted_in_a_forked_child() -> None:
    def collected_since() -> bool:
        before = system_values()["gc_collections:2"]
        gc.collect()
        return before == 0 and system_values()["gc_collections:2"] == 1

    gc.collect()
    assert in_child(collected_since)
