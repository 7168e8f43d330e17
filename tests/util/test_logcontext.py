"""What a log keeps of a message beside itself, and what a replay makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ezmsg.core as ez
from ezmsg.core import config
from ezmsg.core.currentmessage import reset_current_message, set_current_message
from ezmsg.core.graphmeta import TraceSpan
from ezmsg.core.profiling import PROFILES, message_clock
from ezmsg.util.logcontext import Replayed, Roots, log_context
from ezmsg.util.messagecodec import LoggedMessage, message_log
from ezmsg.util.messagelogger import MessageLogger
from ezmsg.util.messagereplay import MessageReplay
from ezmsg.util.messages.chunker import ArrayChunker
from ezmsg.util.terminate import TerminateOnTotal

CHUNKS = 10
RECORDED = (b"\x01" * 16, 2)
TRACEPARENT = f"00-{'01' * 16}-{2:016x}-01"


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every message begins a trace."""
    monkeypatch.setenv("EZMSG_TRACE_RATIO", "1")
    PROFILES.set_trace_sampling(0, ratio=1.0)
    PROFILES.trace_batch(1_000_000)
    yield
    PROFILES.set_trace_sampling(config.trace_rate_hz())


def record(path: Path, source: ez.Unit, output: ez.OutputStream) -> list[dict[str, Any]]:
    """Log what a unit publishes."""
    logger, end = MessageLogger(output=path), TerminateOnTotal(total=CHUNKS)
    connections = [(output, logger.INPUT_MESSAGE), (logger.OUTPUT_MESSAGE, end.INPUT_MESSAGE)]
    ez.run(SOURCE=source, LOGGER=logger, END=end, connections=connections)
    return list(message_log(path, return_object=False))


def ids(traceparent: str) -> tuple[str, str]:
    _, trace_id, span_id, _ = traceparent.split("-")
    return trace_id, span_id


def test_a_replayed_run_is_traced_and_compares_with_the_recorded_one(traced: None, tmp_path: Path) -> None:
    chunker = ArrayChunker(data=np.arange(7 * CHUNKS), chunk_len=7)
    recorded = record(tmp_path / "recorded", chunker, chunker.OUTPUT_SIGNAL)
    replay = MessageReplay(filename=tmp_path / "recorded", rate=0.0, speed=2.0)
    replayed = record(tmp_path / "replayed", replay, replay.OUTPUT_MESSAGE)

    spans = {(span.trace_id, span.span_id): span for span in PROFILES.trace_batch(1_000_000).spans}
    assert len(recorded) == len(replayed) == CHUNKS
    for before, after in zip(recorded, replayed, strict=True):
        assert after["obj"] == before["obj"]
        # As old as it was, and the way through the replay on top of that.
        assert after["ts"] - after["origin"] >= before["ts"] - before["origin"] > 0
        processed = spans[ids(after["traceparent"])]
        published = spans[processed.trace_id, str(processed.parent_span_id)]
        assert (published.name, published.parent_span_id) == ("publish SOURCE/OUTPUT_MESSAGE", None)
        assert published.links == [ids(before["traceparent"])]
        assert _topic_of(spans[ids(before["traceparent"])]) == "SOURCE/OUTPUT_SIGNAL"


def _topic_of(span: TraceSpan) -> object:
    return span.attributes["messaging.destination.name"]


def test_outside_of_any_message_only_the_time_is_kept() -> None:
    found = log_context()
    assert (found.origin, found.traceparent) == (None, None)


def test_a_message_keeps_its_age_and_its_trace() -> None:
    message = Replayed(LoggedMessage("text", 100.0, 98.5, TRACEPARENT), is_traced=False)
    assert message_clock() - message.origin_s >= 1.5
    assert message.links == (RECORDED,)
    assert message.trace is not None
    assert message.trace[0] != RECORDED[0]
    token = set_current_message(message)
    try:
        found = log_context()
    finally:
        reset_current_message(token)
    assert found.origin is not None
    assert found.timestamp - found.origin >= 1.5


@pytest.mark.parametrize("traceparent", [None, "", "nonsense", f"01-{'01' * 16}-{2:016x}-01"])
def test_a_message_without_trace_and_origin_begins_where_it_is_replayed(traceparent: str | None) -> None:
    before_s = message_clock()
    message = Replayed(LoggedMessage("text", 100.0, None, traceparent), is_traced=False)
    assert before_s <= message.origin_s <= message_clock()
    assert (message.trace, message.links) == (None, ())
    assert Replayed(LoggedMessage("text", 100.0), is_traced=True).trace is not None


def test_traces_begin_as_often_as_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [Roots().begin(), Roots().begin()] == [True, True]
    roots = Roots()
    assert [roots.begin(), roots.begin()] == [True, False]
    monkeypatch.setenv("EZMSG_TRACE_RATE", "0")
    assert not Roots().begin()
    monkeypatch.setenv("EZMSG_TRACE_RATIO", "1")
    roots = Roots()
    assert [roots.begin(), roots.begin()] == [True, True]
