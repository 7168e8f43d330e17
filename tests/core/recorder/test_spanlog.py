"""Spans that are kept as the rows they are made of, until somebody reads them."""

import tracemalloc
from typing import Any

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.recorder.calculated import Seeds, TraceIds, owners_in
from ezmsg.core.recorder.rowlog import BLOCK, RowArray, RowLog
from ezmsg.core.recorder.rows import (
    ATTRIBUTE,
    HOP,
    INDEX_SHIFT,
    PROCESS,
    PUBLISH,
    SAMPLED,
    SPAN,
    SPAN_ROW,
    are_followers,
    meta_word,
)
from ezmsg.core.recorder.spanlog import SpanLog, spans_of
from ezmsg.core.recorder.unmadelog import Part

PUBLISHER, EDGE = 2, 5
SEEDS = {PUBLISHER: Seeds(1 << 63, 2, 3, 4), EDGE: Seeds(5, 6, 7, (1 << 64) - 1)}
HOPS = meta_word(PROCESS, EDGE, ProfileChannelType.LOCAL, SAMPLED | HOP)
PUBLISHES = meta_word(PUBLISH, PUBLISHER, ProfileChannelType.TCP, SAMPLED)
RECEIVED = meta_word(PROCESS, EDGE, ProfileChannelType.TCP, SAMPLED)


def written(kinds: list[int], first: int, times: int = 1) -> Part:
    """Rows of messages that follow one another, as a ring has them."""
    rows = np.zeros((len(kinds) * times, 8), dtype=np.int64)
    rows[:, 0] = kinds * times
    rows[:, 1] = np.arange(first, first + len(rows))
    rows.view(np.float64)[:, 2:7] = 1.0, 2.0, 3.0, 4.0, 5.0
    rows[rows[:, 0] == HOPS, 7] = PUBLISHER
    return Part(rows, SEEDS)


def made(followers: list[int], first: int) -> RowArray:
    """Spans of a user, behind each so many attributes."""
    rows = np.zeros(sum(1 + count for count in followers), dtype=SPAN_ROW)
    at = 0
    for number, count in enumerate(followers):
        rows["meta"][at], rows["message_id"][at] = meta_word(SPAN, EDGE), first + number
        rows["meta"][at + 1 : at + 1 + count] = meta_word(ATTRIBUTE, EDGE)
        rows["message_id"][at + 1 : at + 1 + count] = np.arange(count)
        at += 1 + count
    return rows


KINDS = st.lists(st.sampled_from([HOPS, PUBLISHES, RECEIVED]), min_size=1, max_size=6)
STEPS = st.one_of(
    st.tuples(st.just("unmade"), KINDS, st.sampled_from([1, 3, 90, 300])),
    st.tuples(st.just("made"), st.lists(st.sampled_from([0, 1, 5, 400]), min_size=1, max_size=5)),
    st.tuples(st.just("read"), st.integers(0, 3000), st.sampled_from([0, 1, 2, 7, 600, 5000])),
    st.tuples(st.just("go on"), st.sampled_from([1, 3, 200, 5000])),
    st.tuples(st.just("as rows"), st.sampled_from([1, 3, 200, 5000])),
    st.just(("clear",)),
)


@given(
    st.lists(STEPS, max_size=30),
    st.sampled_from([1, 2, 7, BLOCK - 1, BLOCK, BLOCK + 3, 3 * BLOCK]),
    st.sampled_from([0, 1, BLOCK, 1000]),
)
# Rows that were never made lie in memory that others had, when all are cleared.
@example([*[("made", [BLOCK - 1])] * 2, ("made", [0] * 7), ("unmade", [HOPS], 9), ("clear",), ("made", [0])], 7, 0)
def test_a_log_reads_as_if_all_spans_had_been_made_at_once(steps: list[Any], limit: int, begin: int):
    plain, log = RowLog(SPAN_ROW, limit, are_followers, begin), SpanLog(limit, begin)
    position, number = begin, 0
    for step in steps:
        match step:
            case ("unmade", kinds, times):
                part = written(kinds, number, times)
                before = plain.end
                plain.append(spans_of(part))
                assert log.append_unmade(part) == plain.end - before
                number += len(part.rows)
            case ("made", followers):
                plain.append(made(followers, number))
                log.append(made(followers, number))
                number += len(followers)
            case ("read", where, count):
                agree(plain, log, where, count)
            case ("go on", count):
                position = agree(plain, log, position, count)
            case ("as rows", count):
                position = agree_as_rows(plain, log, position, count)
            case _:
                plain.clear()
                log.clear()
        assert (log.end, log.oldest) == (plain.end, plain.oldest)
    agree(plain, log, position, 10_000)
    agree(plain, log, 0, 10_000)


def agree(plain: RowLog, log: SpanLog, position: int, count: int) -> int:
    """Both find the same; returns where the next read begins."""
    expected, found = plain.read(position, count), log.read(position, count)
    assert found.rows.tobytes() == expected.rows.tobytes()
    assert found[1:] == expected[1:]
    return expected.position


def agree_as_rows(plain: RowLog, log: SpanLog, position: int, count: int) -> int:
    """What is found as rows is what is found as spans; returns where the next read begins."""
    found = log.find_unmade(position, count)
    if found is None:
        return position
    expected = plain.read(position, 100_000)
    assert found.cleared == expected.cleared
    # Of a hop whose publish is gone, the processing is, too.
    skipped = found.start - expected.start
    assert skipped in (0, 1)
    assert found.evicted == expected.evicted + skipped
    assert not skipped or expected.evicted
    spans = [spans_of(part) for part in found.parts]
    number = sum(map(len, spans))
    assert b"".join(part.tobytes() for part in spans) == expected.rows[skipped : skipped + number].tobytes()
    return found.start + number


def test_a_log_keeps_no_more_memory_than_its_spans_take_however_many_come_at_once():
    limit, rows = 1000, written([HOPS], 0, 100_000).rows
    owners = np.arange(1, len(rows) + 1)
    rows[:, 7] = owners
    sent, seeds = rows.tobytes(), dict.fromkeys(owners.tolist(), (1, 2, 3, 4))
    log = SpanLog(limit)
    tracemalloc.start()
    try:
        log.append_unmade(Part.read(bytes(bytearray(sent)), seeds))
        read = log.read(0, 1 << 30)
        assert read.rows["message_id"].tolist() == [
            row for row in range(len(rows) - limit // 2, len(rows)) for _ in "ab"
        ]
        assert read.evicted == 2 * len(rows) - limit
        del read
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 4 * limit * SPAN_ROW.itemsize


def test_spans_of_as_many_endpoints_as_there_are_rows_are_made_like_others():
    rows = written([HOPS, PUBLISHES], 0, 75_000).rows
    owners = np.arange(1, len(rows) + 1)
    rows[:, 0] += owners - (rows[:, 0] >> INDEX_SHIFT) << INDEX_SHIFT
    rows[:, 7] = owners
    seeds = {owner: Seeds(owner, owner + 1, owner + 2, owner + 3) for owner in owners.tolist()}
    assert owners_in(rows) == seeds.keys()
    spans = spans_of(Part(rows, seeds))
    for at in (0, 1, 2, len(spans) - 3, len(spans) - 2, len(spans) - 1):
        owner, number = at // 3 * 2 + (at % 3 == 2) + 1, int(spans["message_id"][at])
        ids = TraceIds.of(seeds[owner])
        expected = ids.process(number) if at % 3 == 1 else ids.publish(number)[:2]
        assert (spans["trace_id"][at].tobytes(), spans["span_id"][at]) == expected
