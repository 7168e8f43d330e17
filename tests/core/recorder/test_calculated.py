"""Ids that nobody has asked for before their rows are read."""

import numpy as np

from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.recorder.calculated import TraceIds, with_ids
from ezmsg.core.recorder.ring import Ring
from ezmsg.core.recorder.rows import (
    EXTENDED,
    HOP,
    INDEX_SHIFT,
    KIND_MASK,
    LABEL_BITS,
    LABEL_SHIFT,
    PROCESS,
    PUBLISH,
    PUBLISH_DELTA,
    SAMPLED,
    SERIALIZE,
    meta_word,
    selected_flags,
)
from ezmsg.core.recorder.samples import span_rows
from tests.core.recorder.rowmaking import TCP, Row, pairs, process, publish, sampled, table

EDGE = 5


def handed_over(publisher: int, number: int) -> Row:
    """A sampled message of one loop, as its receiver writes it."""
    meta = meta_word(PROCESS, EDGE, ProfileChannelType.LOCAL, HOP | SAMPLED)
    return (meta, number, 10, 20, 30, 40, 50, publisher)


def as_word(number: float) -> int:
    return int(np.float64(number).view(np.int64))


def room(rows: np.ndarray) -> np.ndarray:
    return np.empty((2 * len(rows), 8), dtype=np.int64)


def spans_of(rows: np.ndarray) -> np.ndarray:
    extended = np.flatnonzero(rows[:, 0] & EXTENDED)
    of_rows = np.concatenate((rows[extended], rows[extended + 1]), axis=1)
    made = span_rows(of_rows, np.empty((2 * len(of_rows), 16), dtype=np.int64))
    assert made is not None
    return made


def test_the_ids_of_rows_are_those_that_are_asked_for():
    ids = {2: TraceIds(), 3: TraceIds()}
    numbers = [0, 1, 7, (1 << 62) + 1]
    rows = table(*(handed_over(publisher, number) for number in numbers for publisher in ids))
    made, lost = with_ids(rows, ids.get, room(rows))
    assert lost == 0
    spans = spans_of(made)
    of_publishes, of_processes = spans[0::2], spans[1::2]
    for n, (number, publisher) in enumerate((number, publisher) for number in numbers for publisher in ids):
        trace_id, publish_id, parent_id, links = ids[publisher].publish(number)
        told, left = of_publishes[n], of_processes[n]
        assert (told["trace_id"].tobytes(), told["span_id"], told["parent_id"]) == (trace_id, publish_id, parent_id)
        assert (left["trace_id"].tobytes(), left["span_id"]) == ids[publisher].process(number)
        assert left["parent_id"] == publish_id
        assert (parent_id, links) == (0, ())
        words = ["message_id", "a", "b", "c", "d", "e", "f"]
        assert [int(told[word]) for word in words] == [number, 10, 20, 30, 0, 0, 0]
        assert [int(left[word]) for word in words] == [number, 10, 30, 30, 40, 50, 0]
        assert (told["meta"] >> INDEX_SHIFT, left["meta"] >> INDEX_SHIFT) == (publisher, EDGE)
        assert (told["fanout"], left["fanout"]) == (1, 0)
    assert len(np.unique(np.append(spans["span_id"], 0))) == len(spans) + 1


def test_rows_among_others_keep_their_places():
    ids = TraceIds()
    rows = table(publish(1, 0, 5), handed_over(2, 4), sampled(process(EDGE, 3), 8, 9), handed_over(2, 5))
    made, _ = with_ids(rows, {2: ids}.get, room(rows))
    of_rows = made[made[:, 0] & KIND_MASK != 15]
    assert of_rows[:, 1].tolist() == [0, 4, 3, 5]
    found = [(int(row["span_id"]), int(row["parent_id"])) for row in spans_of(made)]
    four, five = (((ids.publish(n)[1], 0), (ids.process(n)[1], ids.publish(n)[1])) for n in (4, 5))
    assert found == [*four, (8, 9), *five]


def test_a_publish_that_waited_says_for_whom_in_its_label():
    ids, blame = TraceIds(), 9
    label = blame << LABEL_SHIFT
    rows = table(*(publish(2, n, 5, wait=n, flags=SAMPLED | (label if n == 1 else 0), way=TCP) for n in range(3)))
    made, _ = with_ids(rows.copy(), {2: ids}.get, room(rows))
    spans = spans_of(made)
    assert spans["blame"].tolist() == [0, blame, 0]
    assert spans["d"].tolist() == [0, 1, 2]
    assert not (spans["meta"] & LABEL_BITS).any()
    # In a ring, it is one span like others, and owes no native sample, as what is selected does.
    ring = Ring(16)
    for row in rows.tolist():
        ring.put(*row[:2], *(word / 1e9 for word in row[2:7]), row[7])
        ring.marks = (ring.head, 0, ring.marks[2] + 1, 0)
    owed = 1 << PUBLISH_DELTA | 1 << SERIALIZE
    ring.put_selected(2, *publish(3, 0, 5, flags=selected_flags(owed, 1)))
    taken = ring.take()
    assert (taken.records, taken.lost, taken.lost_spans, taken.lost_samples) == (4, 0, 0, 0)


def test_what_goes_through_a_socket_says_whose_ids_it_has_by_what_it_is():
    ids = TraceIds()
    told = TraceIds(ids.told)
    out = (meta_word(PUBLISH, 2, TCP, SAMPLED), 4, as_word(3.0), 20, 30, 0, 5, 99)
    came = (meta_word(PROCESS, EDGE, TCP, SAMPLED), 4, 10, 20, 30, 40, 50, 99)
    others = ((*out[:1], 5, *out[2:]), publish(1, 0, 5), came)
    for rows in (table(out), table(came), table(out, *others)):
        made, lost = with_ids(rows, {2: ids, EDGE: told}.get, room(rows))
        assert lost == 0
        for span in spans_of(made):
            number = int(span["message_id"])
            publish_id = ids.publish(number)[1]
            trace_id, process_id = told.process(number)
            assert span["trace_id"].tobytes() == trace_id == ids.publish(number)[0]
            is_publish = int(span["meta"]) & KIND_MASK == PUBLISH
            expected = (publish_id, 0, 3) if is_publish else (process_id, publish_id, 0)
            assert (int(span["span_id"]), int(span["parent_id"]), int(span["fanout"])) == expected
            times = [20, 20, 30, 0, 5] if is_publish else [10, 20, 30, 40, 50]
            assert [int(span[word]) for word in "abcde"] == times
            assert int(span["f"]) == 99
    assert len({ids.process(4)[1], told.process(4)[1], ids.publish(4)[1]}) == 3


def test_what_is_of_a_publisher_not_known_is_a_row_and_its_spans_are_counted_as_lost():
    ids = TraceIds()
    rows = table(handed_over(2, 4), handed_over(9, 4), handed_over(9, 5))
    made, lost = with_ids(rows, {2: ids}.get, room(rows))
    assert lost == 4
    assert (made[:, 0] & SAMPLED != 0).tolist() == [True, False, False, False]
    assert len(spans_of(made)) == 2


def test_rows_whose_ids_are_written_are_left_as_they_are():
    rows = table(publish(1, 0, 5), sampled(process(EDGE, 3), 8, 9))
    made, lost = with_ids(rows, {}.get, room(rows))
    assert made is rows
    assert lost == 0
    assert len(pairs(publish(1, 0, 5))) == 0
