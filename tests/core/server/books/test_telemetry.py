from collections import Counter

import numpy as np
import pytest
from msgspec import structs

from ezmsg.core.errors import ExporterLeased, ProtocolError
from ezmsg.core.recorder.calculated import Seeds, TraceIds
from ezmsg.core.recorder.expand import expand_samples, expand_spans
from ezmsg.core.recorder.ids import hex_span_id
from ezmsg.core.recorder.past import is_past
from ezmsg.core.recorder.rows import (
    AGE,
    CHANNEL_SHIFT,
    CHANNELS,
    EXTENDED,
    HOP,
    INDEX_SHIFT,
    LEASE_TIME,
    LOCAL_BITS,
    METRICS,
    PROCESS,
    PUBLISH,
    ROW_WORDS,
    SAMPLE_ROW,
    SAMPLED,
    SPAN,
    SPAN_ROW,
    meta_word,
    selected_flags,
)
from ezmsg.core.server.books import closedendpoints, exporter
from ezmsg.core.server.books.profilestreams import ROWS_AT_ONCE
from ezmsg.core.server.books.telemetry import GONE, LEFT, TelemetryBook
from ezmsg.core.wire.limits import CONTROL_FRAME_BYTES
from ezmsg.core.wire.records import (
    CounterState,
    EndpointRecord,
    HistogramState,
    OpenProfilingStream,
    OpenTelemetry,
    OpenTelemetryReader,
    ProcessSamples,
    ProcessTelemetry,
    TelemetryBatch,
    encode_record,
)

MONO, UNIX = 5_000, 1_700_000_000_000_000_000
EXPORTER = OpenTelemetryReader("agent", 77)


def hello(link_id: str = "link", boot_id: str = "boot", mono_ns: int = MONO, unix_ns: int = UNIX) -> OpenTelemetry:
    return OpenTelemetry(10, "host", boot_id, "app", 1, mono_ns, unix_ns, link_id)


def endpoint(index: int, topic: str = "OUT") -> EndpointRecord:
    return EndpointRecord(index, topic, "IN", f"IN:{index}", "", 0)


def samples(*seqs: int, index: int = 1) -> bytes:
    rows = np.zeros(len(seqs), dtype=SAMPLE_ROW)
    rows["seq"], rows["index"], rows["metric"] = seqs, index, LEASE_TIME
    return rows.tobytes()


def spans(*ids: int, index: int = 1) -> bytes:
    rows = np.zeros(len(ids), dtype=SPAN_ROW)
    rows["span_id"], rows["meta"] = ids, meta_word(PROCESS, index)
    return rows.tobytes()


def histogram(index: int, count: int, name: str = "process") -> HistogramState:
    return HistogramState(index, name, count, 0, 0, 0, 0, 3, 0, [count])


def batch(seq: int = 0, process_id: str = "", **parts: object) -> TelemetryBatch:
    return TelemetryBatch(seq, process_id, mono_ns=6_000, **parts)  # type: ignore[arg-type]


def span_ids(telemetry: ProcessTelemetry | ProcessSamples) -> list[int]:
    data = telemetry.batch.spans if isinstance(telemetry, ProcessTelemetry) else telemetry.spans
    return np.frombuffer(data, dtype=SPAN_ROW)["span_id"].tolist()


def seqs(process: ProcessSamples) -> list[int]:
    return np.frombuffer(process.samples, dtype=SAMPLE_ROW)["seq"].tolist()


@pytest.fixture
def book() -> TelemetryBook:
    return TelemetryBook(limit=10)


def open_link(book: TelemetryBook, link_id: str = "link") -> None:
    book.link_opened(hello(link_id), MONO, UNIX)


# -- clocks -------------------------------------------------------------------------------------------------------


def test_all_processes_of_a_boot_get_the_anchor_of_the_first(book):
    first = book.link_opened(hello("a"), MONO + 10, UNIX + 10)
    second = book.link_opened(hello("b", mono_ns=MONO + 100, unix_ns=UNIX - 999), MONO + 100, UNIX + 100)
    assert first.anchor == second.anchor
    assert (first.anchor.mono_ns, first.anchor.unix_ns) == (MONO, UNIX)


def test_another_host_has_an_anchor_of_its_own_and_the_difference_of_clocks_is_known(book):
    open_link(book)
    other = book.link_opened(hello("b", "elsewhere", mono_ns=3, unix_ns=UNIX - 500), MONO, UNIX)
    assert (other.anchor.boot_id, other.anchor.mono_ns, other.anchor.unix_ns) == ("elsewhere", 3, UNIX - 500)
    assert book.clock_offsets_ns == {"boot": 0, "elsewhere": 500}


# -- processes ----------------------------------------------------------------------------------------------------


def test_a_process_counts_once_however_many_clients_and_links_it_has(book):
    open_link(book)
    for client in ("one", "two"):
        book.client_connected(client, 10, "host")
    book.client_connected("other", 11, "host")
    book.client_connected("elsewhere", 10, "away")
    assert book.processes() == ["away:10", "host:10", "host:11"]
    for client in ("one", "two", "other", "elsewhere"):
        book.client_gone(client, 0.0)
    assert book.processes() == ["host:10"]
    book.link_closed("link")
    assert book.processes() == []


# -- exporters ----------------------------------------------------------------------------------------------------


def take(book: TelemetryBook, limit: int = 1000) -> list[ProcessTelemetry]:
    """Take records, and settle what came with them at once."""
    taken = book.reader_take("x", limit)
    book.reader_acknowledged("x", len(taken), {told.link_id: len(span_ids(told)) for told in taken})
    return taken


def test_spans_that_nobody_has_settled_are_counted(book):
    open_link(book)
    book.batch("link", batch(spans=spans(1, 2, 3)))
    assert book.unexported == 3
    book.reader_open("x", EXPORTER)
    book.reader_take("x")
    assert book.unexported == 3
    book.reader_acknowledged("x", 1, {"link": 2})
    book.batch("link", batch(spans=spans(4)))
    assert book.unexported == 2


def test_one_exporter_per_graph(book):
    book.reader_open("x", EXPORTER)
    with pytest.raises(ExporterLeased, match="77") as refused:
        book.reader_open("y", OpenTelemetryReader("second", 78))
    assert (refused.value.code, refused.value.pid) == ("EXPORTER_LEASED", 77)
    book.reader_close("y")
    with pytest.raises(ExporterLeased):
        book.reader_open("y", EXPORTER)
    book.reader_close("x")
    book.reader_open("y", EXPORTER)


def test_a_process_without_units_reaches_the_exporter(book):
    book.reader_open("x", EXPORTER)
    open_link(book)
    book.batch("link", batch(endpoints=[endpoint(1)], spans=spans(1)))
    [told] = take(book)
    assert (told.link_id, told.hello, told.anchor.boot_id) == ("link", hello(), "boot")
    assert told.batch.endpoints == [endpoint(1)]
    assert span_ids(told) == [1]


def test_an_exporter_that_joins_is_told_everything_once(book):
    open_link(book)
    book.batch("link", batch(0, endpoints=[endpoint(1)], counters=[CounterState(1, {"consumed": 1})], labels={2: "a"}))
    book.batch("link", batch(1, endpoints=[endpoint(2)], counters=[CounterState(1, {"consumed": 5})], spans=spans(1)))
    book.batch("link", batch(2, histograms=[histogram(1, 3)], labels={3: "b"}, recorded={"row": 9}, spans=spans(2)))
    book.reader_open("x", EXPORTER)
    [told] = take(book)
    assert told.batch.endpoints == [endpoint(1), endpoint(2)]
    assert told.batch.counters == [CounterState(1, {"consumed": 5})]
    assert told.batch.histograms == [histogram(1, 3)]
    assert (told.batch.labels, told.batch.recorded) == ({2: "a", 3: "b"}, {"row": 9})
    assert span_ids(told) == [1, 2]
    assert take(book) == []


def test_an_exporter_is_told_what_changed(book):
    book.reader_open("x", EXPORTER)
    open_link(book)
    book.batch("link", batch(0, endpoints=[endpoint(1)], histograms=[histogram(1, 1)]))
    take(book)
    book.batch("link", batch(1, counters=[CounterState(1, {"consumed": 2})], spans=spans(7)))
    [told] = take(book)
    assert (told.hello, told.batch.endpoints, told.batch.histograms) == (None, [], [])
    assert told.batch.counters == [CounterState(1, {"consumed": 2})]
    assert span_ids(told) == [7]


def test_a_slow_exporter_gets_the_newest_state_and_all_spans(book):
    book.reader_open("x", EXPORTER)
    open_link(book)
    for number in range(1, exporter.UNACKNOWLEDGED + 1):
        book.batch("link", batch(number, histograms=[histogram(1, number)]))
        assert len(book.reader_take("x")) == 1
    for number in range(100, 105):
        book.batch("link", batch(number, histograms=[histogram(1, number)], spans=spans(number)))
        assert book.reader_take("x") == []
    book.reader_acknowledged("x", 1, {})
    [told] = book.reader_take("x")
    assert told.batch.histograms == [histogram(1, 104)]
    assert span_ids(told) == [100, 101, 102, 103, 104]


def test_spans_an_exporter_missed_are_counted_cumulatively(book):
    book.reader_open("x", EXPORTER)
    open_link(book)
    book.batch("link", batch(0, spans=spans(*range(15))))
    [first] = take(book)
    assert (span_ids(first), first.server_dropped) == (list(range(5, 15)), {"span:server_ring": 5})
    book.batch("link", batch(1, spans=spans(*range(15, 28))))
    [second] = take(book)
    assert (span_ids(second), second.server_dropped) == (list(range(18, 28)), {"span:server_ring": 8})


def test_many_spans_come_in_pieces(book, monkeypatch):
    monkeypatch.setattr(exporter, "SPANS_AT_ONCE", 4)
    open_link(book)
    book.batch("link", batch(0, endpoints=[endpoint(1)], spans=spans(*range(10)), final=True))
    book.link_closed("link")
    book.reader_open("x", EXPORTER)
    told = take(book)
    assert [span_ids(part) for part in told] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [(part.gone, part.batch.final) for part in told] == [(False, False), (False, False), (True, True)]


def test_processes_take_turns(book, monkeypatch):
    monkeypatch.setattr(exporter, "SPANS_AT_ONCE", 1)
    for link_id in "ab":
        open_link(book, link_id)
        book.batch(link_id, batch(0, spans=spans(1, 2)))
    book.reader_open("x", EXPORTER)
    assert [part.link_id for part in take(book)] == ["a", "b", "a", "b"]


def test_an_exporter_that_comes_back_goes_on_where_it_was(book):
    book.reader_open("x", EXPORTER)
    open_link(book)
    book.batch("link", batch(0, spans=spans(1, 2, 3)))
    [told] = book.reader_take("x")
    book.batch("link", batch(1, spans=spans(4, 5)))
    book.reader_take("x")  # it never sees this: the connection is lost
    book.reader_close("x")
    book.reader_open("x", OpenTelemetryReader("agent", 77, positions={"link": (told.position, 3)}))
    [again] = take(book)
    assert (span_ids(again), again.server_dropped, again.position) == ([4, 5], {}, 5)
    assert again.hello is not None
    book.reader_acknowledged("x", 1, {"link": 3})
    book.reader_close("x")
    book.reader_open("x", EXPORTER)
    assert take(book)[0].server_dropped == {}


def test_what_an_exporter_missed_while_it_was_away_is_counted(book):
    book.reader_open("x", EXPORTER)
    open_link(book)
    book.batch("link", batch(0, spans=spans(*range(8))))
    [told] = take(book)
    book.reader_close("x")
    book.batch("link", batch(1, spans=spans(*range(8, 24))))
    book.reader_open("x", OpenTelemetryReader("agent", 77, positions={"link": (told.position, 0)}))
    [again] = take(book)
    assert (span_ids(again), again.server_dropped) == (list(range(14, 24)), {"span:server_ring": 6})


def test_another_exporter_gets_nothing_twice_and_is_told_what_the_first_took_with_it(book):
    book.reader_open("x", EXPORTER)
    open_link(book)
    book.batch("link", batch(0, endpoints=[endpoint(1)], counters=[CounterState(1, {"sent": 5})], spans=spans(1, 2, 3)))
    book.reader_take("x")
    book.reader_acknowledged("x", 1, {"link": 1})
    book.reader_close("x")
    book.batch("link", batch(1, spans=spans(4)))
    book.reader_open("x", OpenTelemetryReader("agent", 78))
    [told] = take(book)
    assert (span_ids(told), told.server_dropped) == ([4], {"span:exporter_gone": 2})
    assert (told.batch.endpoints, told.batch.counters) == ([endpoint(1)], [CounterState(1, {"sent": 5})])
    book.reader_close("x")
    book.reader_open("x", OpenTelemetryReader("agent", 79))
    assert take(book)[0].server_dropped == {"span:exporter_gone": 2}


def test_spans_of_a_process_that_ended_are_lost_with_the_exporter_that_had_them(book):
    book.reader_open("x", EXPORTER)
    open_link(book)
    book.batch("link", batch(0, spans=spans(1, 2), final=True))
    book.link_closed("link")
    assert book.reader_take("x")[0].gone
    book.reader_close("x")
    book.reader_open("x", OpenTelemetryReader("agent", 78))
    assert take(book) == []
    open_link(book, "other")
    assert take(book) == []
    book.batch("other", batch(0))
    assert take(book)[0].server_dropped == {"span:exporter_gone": 2}


def test_a_closed_endpoint_is_told_with_its_last_values(book):
    book.reader_open("x", EXPORTER)
    open_link(book)
    book.batch("link", batch(0, endpoints=[endpoint(1)]))
    take(book)
    book.batch("link", batch(1, counters=[CounterState(1, {"consumed": 3})], closed=[1]))
    [told] = take(book)
    assert (told.batch.counters, told.batch.closed) == ([CounterState(1, {"consumed": 3})], [1])


def close_one(book, index):
    """An endpoint that opens, counts, and closes, all within one batch."""
    states = [CounterState(index, {"consumed": index})]
    book.batch("link", batch(index, endpoints=[endpoint(index)], counters=states, closed=[index]))


def test_an_exporter_that_comes_later_is_told_everything_that_closed_the_oldest_together(book, monkeypatch):
    monkeypatch.setattr(closedendpoints, "KEPT", 2)
    open_link(book)
    for index in range(1, 6):
        close_one(book, index)
    for _ in range(2):
        book.reader_open("x", EXPORTER)
        [told] = take(book)
        assert told.batch.closed == [4, 5]
        assert {counters.index: counters.values["consumed"] for counters in told.batch.counters} == {1: 6, 4: 4, 5: 5}
        assert [known.topic for known in told.batch.endpoints if is_past(known)] == ["OUT"]
        assert told.server_dropped == {}
        book.reader_close("x")


def test_an_exporter_that_comes_back_is_not_told_again_what_it_was_told_apart(book, monkeypatch):
    monkeypatch.setattr(closedendpoints, "KEPT", 2)
    book.reader_open("x", EXPORTER)
    open_link(book)
    for index in range(1, 4):
        close_one(book, index)
        take(book)
    book.reader_close("x")
    book.reader_open("x", structs.replace(EXPORTER, positions={"link": (0, 0)}))
    [told] = take(book)
    assert {counters.index for counters in told.batch.counters} == {2, 3}


def test_what_had_to_give_way_before_an_exporter_was_told_is_counted(book, monkeypatch):
    monkeypatch.setattr(closedendpoints, "KEPT", 2)
    open_link(book)
    book.reader_open("x", EXPORTER)
    for index in range(1, 6):
        close_one(book, index)
    assert take(book)[-1].server_dropped == {"endpoint:closed": 3}


def test_publishers_whose_last_values_gave_way_have_no_buffers(book, monkeypatch):
    monkeypatch.setattr(closedendpoints, "KEPT", 1)
    open_link(book)
    for index in (1, 2):
        closed = [] if index == 2 else [index]
        publisher = structs.replace(endpoint(index), num_buffers=32)
        book.batch("link", batch(index, endpoints=[publisher], closed=closed))
    close_one(book, 3)
    book.reader_open("x", EXPORTER)
    [told] = take(book)
    assert {known.index: known.num_buffers for known in told.batch.endpoints if known.index < 3} == {1: 0, 2: 32}


def test_closed_endpoints_that_an_exporter_was_told_give_way_without_a_loss(book, monkeypatch):
    monkeypatch.setattr(closedendpoints, "KEPT", 2)
    book.reader_open("x", EXPORTER)
    open_link(book)
    for index in range(1, 6):
        close_one(book, index)
        assert [told.batch.closed for told in take(book)] == [[index]]
    assert book.reader_take("x") == []
    close_one(book, 6)
    assert take(book)[0].server_dropped == {}


def test_many_closed_endpoints_are_told_in_several_records(book, monkeypatch):
    monkeypatch.setattr(exporter, "CLOSED_AT_ONCE", 2)
    open_link(book)
    for index in range(1, 6):
        close_one(book, index)
    book.reader_open("x", EXPORTER)
    told = take(book)
    assert [record.batch.closed for record in told] == [[1, 2], [3, 4], [5]]
    assert [state.values["consumed"] for record in told for state in record.batch.counters] == [1, 2, 3, 4, 5]
    # Rows of any of them may come first.
    assert [known.index for known in told[0].batch.endpoints] == [1, 2, 3, 4, 5]


def test_an_endpoint_that_is_told_open_again_is_closed_once(book):
    open_link(book)
    close_one(book, 1)
    close_one(book, 1)
    book.batch("link", batch(3, endpoints=[endpoint(1)], counters=[CounterState(1, {"consumed": 7})]))
    book.reader_open("x", EXPORTER)
    [told] = take(book)
    assert (told.batch.closed, told.batch.counters) == ([], [CounterState(1, {"consumed": 7})])


def test_the_end_of_a_process_is_told_and_then_it_is_forgotten(book):
    book.reader_open("x", EXPORTER)
    open_link(book)
    take(book)
    book.batch("link", batch(0, spans=spans(1)))
    book.link_closed("link")
    [told] = take(book)
    assert (told.gone, told.batch.final, span_ids(told)) == (True, False, [1])
    book.reader_close("x")
    book.reader_open("x", EXPORTER)
    assert take(book) == []


def test_a_process_that_ended_early_waits_for_an_exporter(book):
    open_link(book)
    book.batch("link", batch(0, counters=[CounterState(1, {"sent": 3})], final=True))
    book.link_closed("link")
    book.reader_open("x", EXPORTER)
    [told] = take(book)
    assert (told.gone, told.batch.final, told.server_dropped) == (True, True, {})
    assert told.hello == hello()


def test_a_process_that_ended_without_a_goodbye_lost_something_nobody_can_count(book):
    book.reader_open("x", EXPORTER)
    open_link(book)
    book.batch("link", batch(0, spans=spans(1)))
    take(book)
    book.link_closed("link")
    [told] = take(book)
    assert (told.gone, told.server_dropped) == (True, {"link:no_goodbye": 1})


def test_a_process_that_comes_back_has_lost_nothing(book):
    open_link(book)
    book.batch("link", batch(0, spans=spans(1)))
    book.link_closed("link")
    open_link(book)
    book.reader_open("x", EXPORTER)
    [told] = take(book)
    assert (told.gone, told.server_dropped) == (False, {})


def test_only_so_many_processes_that_ended_wait_and_the_others_are_counted(book):
    for number in range(GONE + 3):
        open_link(book, str(number))
        book.link_closed(str(number))
    book.reader_open("x", EXPORTER)
    told = take(book)
    told += take(book)
    assert [part.link_id for part in told] == [str(number) for number in range(3, GONE + 3)]
    assert sum(part.server_dropped.get("link:forgotten", 0) for part in told) == 3


def test_a_process_that_reconnects_goes_on_where_the_server_left_off(book):
    book.reader_open("x", EXPORTER)
    open_link(book)
    book.batch("link", batch(7, spans=spans(1)))
    take(book)
    assert book.link_opened(hello(), MONO, UNIX).last_seq == 7
    book.link_closed("link")  # the old connection, noticed late
    [again] = take(book)
    assert (again.gone, again.hello) == (False, hello())
    book.batch("link", batch(8, spans=spans(2)))
    [told] = take(book)
    assert span_ids(told) == [2]


def test_columns_that_are_no_rows_are_refused_and_change_nothing(book):
    open_link(book)
    no_metric, no_channel, no_kind = np.zeros(2, SAMPLE_ROW), np.zeros(2, SAMPLE_ROW), np.zeros(2, SPAN_ROW)
    no_metric["metric"][1] = len(METRICS)
    no_channel["channel"][1] = len(CHANNELS)
    no_kind["meta"][1] = PROCESS | len(CHANNELS) << CHANNEL_SHIFT
    for broken, why in [
        ({"spans": b"x" * 100}, "no rows"),
        ({"samples": b"x" * 65}, "no rows"),
        ({"selected": b"x" * 8}, "no rows"),
        ({"samples": no_metric.tobytes()}, "no metric 8"),
        ({"samples": no_channel.tobytes()}, "no kind of channel 4"),
        ({"spans": no_kind.tobytes()}, "no kind of channel 4"),
        ({"selected": no_kind["meta"][1].tobytes() + bytes(8 * ROW_WORDS - 8)}, "no kind of channel 4"),
        ({"selected": bytes(8 * ROW_WORDS)}, "owes no sample"),
        ({"selected": b"\x02\x01\xff\x00\x00\x00\x00\x80" + bytes(8 * ROW_WORDS - 8)}, "negative index"),
    ]:
        with pytest.raises(ProtocolError, match=why):
            book.batch("link", batch(3, counters=[CounterState(1, {})], **broken))
    assert book.link_opened(hello(), MONO, UNIX).last_seq == -1


@pytest.mark.parametrize(
    ("word", "why"),
    [
        (PROCESS, "has ids of its own"),
        (PROCESS | SAMPLED | EXTENDED, "has ids of its own"),
        (SPAN | SAMPLED, "no message of a trace"),
        (PUBLISH | HOP | SAMPLED, "no message of a trace"),
        (PROCESS | SAMPLED | -1 << INDEX_SHIFT, "no message of a trace"),
        (PROCESS | SAMPLED | len(CHANNELS) << CHANNEL_SHIFT, "no kind of channel 4"),
        (PROCESS | HOP | SAMPLED | LOCAL_BITS | 1 << INDEX_SHIFT, "ids of endpoint 2"),
        (PUBLISH | SAMPLED | 2 << INDEX_SHIFT, "ids of endpoint 2"),
    ],
)
def test_rows_of_which_no_span_can_be_made_are_refused(book, word: int, why: str):
    open_link(book)
    rows = np.zeros((3, ROW_WORDS), dtype=np.int64)
    rows[:, 0] = PUBLISH | SAMPLED | 1 << INDEX_SHIFT
    rows[1, 0], rows[1, 7] = word, 2
    with pytest.raises(ProtocolError, match=why):
        book.batch("link", batch(3, unmade=rows.tobytes(), seeds={1: (1, 2, 3, 4)}))
    assert book.link_opened(hello(), MONO, UNIX).last_seq == -1


@pytest.mark.parametrize("number", [0, -1, (1 << 63) - 1, -1 << 63])
def test_whatever_the_number_and_the_times_of_a_message_are_spans_are_made_of_its_rows(book, number: int):
    open_link(book)
    rows = np.zeros((3, ROW_WORDS), dtype=np.int64)
    rows[:, 0] = PUBLISH | SAMPLED, PROCESS | SAMPLED, PROCESS | HOP | LOCAL_BITS | SAMPLED
    rows[:, 1] = number
    rows.view(np.float64)[:, 2:7] = np.nan, np.inf, -np.inf, 1e300, -1e300
    seeds = Seeds((1 << 64) - 1, (1 << 64) - 1, 0, (1 << 64) - 1)
    book.batch("link", batch(unmade=rows.tobytes(), seeds={0: seeds}))
    book.reader_open("x", EXPORTER)
    [told] = take(book)
    ids = TraceIds.of(seeds)
    sent, processed = ids.publish(number)[:2], ids.process(number)
    assert [(span.trace_id, span.span_id) for span in expand_spans(told.batch.spans, {}, {}, told.anchor)] == [
        (trace_id.hex(), hex_span_id(span_id)) for trace_id, span_id in (sent, processed) * 2
    ]


def test_a_reader_nobody_opened_gets_nothing(book):
    open_link(book)
    assert book.reader_take("x") == []


# -- profiling streams --------------------------------------------------------------------------------------------


def stream(
    book: TelemetryBook, max_samples: int = 1000, ids: list[str] | None = None, empty: bool = False, spans: bool = False
) -> str:
    return book.stream_open(OpenProfilingStream(0.05, max_samples, ids, empty, spans))


def read(book: TelemetryBook, stream_id: str) -> dict[str, ProcessSamples]:
    told = book.stream_take(stream_id, 123.5, 9_000)
    assert told is None or told.unix_s == 123.5
    return {} if told is None else {process.process_id: process for process in told.processes}


@pytest.fixture
def client(book: TelemetryBook) -> str:
    book.client_connected("c", 10, "host")
    open_link(book)
    book.batch("link", batch(0, "c", endpoints=[endpoint(1), endpoint(2)], labels={5: "fft"}))
    return "c"


def test_every_stream_gets_everything_also_when_it_starts_late(book, client):
    early = stream(book)
    book.batch("link", batch(1, "c", samples=samples(1, 2)))
    assert seqs(read(book, early)["c"]) == [1, 2]
    late = stream(book)
    book.batch("link", batch(2, "c", samples=samples(3)))
    assert seqs(read(book, early)["c"]) == [3]
    assert seqs(read(book, late)["c"]) == [1, 2, 3]
    assert read(book, late) == {}


def test_samples_come_as_rows_that_make_them_too(book, client):
    rows = np.zeros((3, ROW_WORDS), dtype=np.int64)
    rows[:, 0] = meta_word(PROCESS, 2, flags=selected_flags(1 << LEASE_TIME | 1 << AGE, 1))
    rows[:, 1] = [2, 3, 4]
    book.batch("link", batch(1, "c", samples=samples(1), selected=rows[:2].tobytes()))
    one = stream(book, max_samples=4)
    book.batch("link", batch(2, "c", selected=rows[2:].tobytes()))
    assert seqs(read(book, one)["c"]) == [1, 2, 2, 3]
    told = read(book, one)["c"]
    assert (seqs(told), told.endpoints) == ([3, 4, 4], [endpoint(2)])
    book.batch("link", batch(3, selected=rows.tobytes()))
    assert book.reader_open("x", EXPORTER) is None
    assert take(book)[0].server_dropped == {"sample:no_client": 6}


def test_at_most_max_samples_of_each_process_come_at_once(book, client):
    book.client_connected("d", 11, "host")
    open_link(book, "other")
    book.batch("link", batch(1, "c", samples=samples(*range(5))))
    book.batch("other", batch(0, "d", samples=samples(*range(3))))
    one = stream(book, max_samples=2)
    found = [{key: seqs(value) for key, value in read(book, one).items()} for _ in range(3)]
    assert found == [{"c": [0, 1], "d": [0, 1]}, {"c": [2, 3], "d": [2]}, {"c": [4]}]


def test_a_batch_explains_itself(book, client):
    book.batch("link", batch(1, "c", samples=samples(1, index=2), spans=spans(9, index=1), dropped={"row:thinned": 3}))
    told = read(book, stream(book))["c"]
    assert (told.pid, told.host, told.mono_ns) == (10, "host", 6_000)
    assert told.endpoints == [endpoint(1), endpoint(2)]
    assert told.dropped == {"row:thinned": 3}
    endpoints = {known.index: known for known in told.endpoints}
    [sample] = expand_samples(told.samples, endpoints, told.labels)
    assert sample.endpoint_id == "IN:2"
    assert told.anchor is not None
    [span] = expand_spans(told.spans, endpoints, told.labels, told.anchor)
    assert (span.span_id, span.start_unix_ns) == (f"{9:016x}", UNIX - MONO)


def test_samples_of_an_endpoint_that_closed_can_still_be_explained(book, client):
    book.batch("link", batch(1, "c", samples=samples(1), closed=[1]))
    assert read(book, stream(book))["c"].endpoints == [endpoint(1)]


def test_samples_a_stream_missed_are_counted(book, client):
    book.batch("link", batch(1, "c", samples=samples(*range(13))))
    told = read(book, stream(book))["c"]
    assert (seqs(told), told.dropped) == (list(range(3, 13)), {"sample:server_ring": 3})


def test_what_a_stream_will_not_have_any_more_is_counted(book, client):
    stream_id = stream(book, max_samples=2, spans=True)
    book.batch("link", batch(0, client, samples=samples(*range(12)), spans=spans(1, 2, 3)))
    told = book.stream_take(stream_id, 0.0)
    assert (seqs(told.processes[0]), span_ids(told.processes[0])) == ([2, 3], [1, 2])
    [last] = book.stream_last(stream_id, 0.0).processes
    assert (seqs(last), span_ids(last)) == ([4, 5], [3])
    assert last.dropped == {"sample:server_ring": 2, "sample:server_stopped": 6}
    assert book.stream_last(stream_id, 0.0) is None


def test_spans_ride_along_with_samples_or_are_reason_enough(book, client):
    plain, eager = stream(book), stream(book, spans=True)
    book.batch("link", batch(1, "c", spans=spans(1)))
    assert read(book, plain) == {}
    assert span_ids(read(book, eager)["c"]) == [1]
    book.batch("link", batch(2, "c", spans=spans(2), samples=samples(1)))
    assert span_ids(read(book, plain)["c"]) == [1, 2]
    assert span_ids(read(book, eager)["c"]) == [2]


def test_a_client_without_endpoints_has_an_empty_entry_when_asked_for(book):
    book.client_connected("c", 10, "host")
    assert read(book, stream(book)) == {}
    told = read(book, stream(book, empty=True))["c"]
    assert (told.pid, told.host, told.samples, told.mono_ns) == (10, "host", b"", 9_000)


def test_unknown_processes_have_an_empty_entry_with_pid_minus_one(book, client):
    told = read(book, stream(book, ids=["nobody", "c"], empty=True))
    assert {process_id: process.pid for process_id, process in told.items()} == {"nobody": -1, "c": 10}
    assert told["nobody"].mono_ns > 0
    assert read(book, stream(book, ids=["nobody"])) == {}


def test_process_ids_restrict_a_stream(book, client):
    book.client_connected("d", 11, "host")
    open_link(book, "other")
    book.batch("link", batch(1, "c", samples=samples(1)))
    book.batch("other", batch(0, "d", samples=samples(2)))
    assert list(read(book, stream(book, ids=["d"]))) == ["d"]


def test_empty_batches_are_not_sent(book):
    assert book.stream_take(stream(book, empty=True), 1.0) is None


def test_of_a_client_that_left_streams_that_are_open_get_the_rest(book, client):
    book.batch("link", batch(1, "c", samples=samples(1)))
    one, other = stream(book), stream(book, ids=["d"])
    book.client_gone("c", 122.6)
    # On its way when the client left.
    book.batch("link", batch(2, "c", samples=samples(2)))
    assert seqs(read(book, one)["c"]) == [1, 2]
    book.batch("link", batch(3, "c", samples=samples(3)))
    assert seqs(read(book, one)["c"]) == [3]
    assert read(book, other) == {}


def test_a_client_that_left_is_not_known_to_later_streams_and_forgotten_when_it_was_read(book, client):
    book.batch("link", batch(1, "c", samples=samples(1)))
    one = stream(book, empty=True)
    book.client_gone("c", 122.5)
    assert read(book, stream(book, empty=True)) == {}
    assert seqs(read(book, one)["c"]) == [1]
    assert read(book, one) == {}
    # Since it left, so much time has passed that nothing more can come.
    book.batch("link", batch(2, "c", samples=samples(2)))
    assert read(book, one) == {}
    book.client_connected("e", 10, "host")
    book.batch("link", batch(3, "e", samples=samples(3)))
    assert seqs(read(book, one)["e"]) == [3]


def test_a_client_that_is_back_begins_anew(book, client):
    book.batch("link", batch(1, "c", samples=samples(1)))
    one = stream(book)
    assert seqs(read(book, one)["c"]) == [1]
    book.client_gone("c", 123.5)
    book.client_connected("c", 10, "host")
    book.batch("link", batch(2, "c", samples=samples(2)))
    assert seqs(read(book, one)["c"]) == [2]


def test_only_so_many_clients_that_left_are_kept_for_a_stream_that_stands_still(book):
    one = stream(book)
    open_link(book)
    for number in range(LEFT + 3):
        book.client_connected(str(number), 10, "host")
        book.batch("link", batch(number, str(number), samples=samples(number)))
        book.client_gone(str(number), 123.5)
    assert list(read(book, one)) == [str(number) for number in range(3, LEFT + 3)]


def test_samples_without_a_client_are_counted_for_the_exporter(book):
    book.reader_open("x", EXPORTER)
    open_link(book)
    book.batch("link", batch(0, samples=samples(1, 2)))
    [told] = take(book)
    assert told.server_dropped == {"sample:no_client": 2}


def test_a_stream_that_ended_is_forgotten(book, client):
    one = stream(book)
    book.stream_close(one)
    book.stream_close(one)
    book.batch("link", batch(1, "c", samples=samples(1)))
    assert list(read(book, stream(book))) == ["c"]


def test_what_was_delivered_and_dropped_is_what_came(book, client):
    one = stream(book, max_samples=3)
    came = delivered = 0
    dropped: dict[str, int] = {}
    for number in range(40):
        size = number % 7
        book.batch("link", batch(number, "c", samples=samples(*range(size))))
        came += size
        if number % 3 == 0:
            for told in read(book, one).values():
                delivered, dropped = delivered + len(seqs(told)), told.dropped
    while found := read(book, one):
        delivered, dropped = delivered + len(seqs(found["c"])), found["c"].dropped
    assert delivered + dropped["sample:server_ring"] == came


def test_an_exporter_and_a_stream_see_the_same_spans_id_for_id(book, client):
    book.reader_open("x", EXPORTER)
    one = stream(book, spans=True)
    book.batch("link", batch(1, "c", spans=spans(1, 2, 3)))
    exported = take(book)[-1]
    streamed = read(book, one)["c"]
    assert streamed.anchor is not None
    known = {known.index: known for known in exported.batch.endpoints}
    from_exporter = expand_spans(exported.batch.spans, known, exported.batch.labels, exported.anchor)
    known = {known.index: known for known in streamed.endpoints}
    assert from_exporter == expand_spans(streamed.spans, known, streamed.labels, streamed.anchor)
    assert [int(span.span_id, 16) for span in from_exporter] == [1, 2, 3]


def test_a_process_without_a_client_is_told_to_streams_of_spans_by_its_link_until_it_is_gone(book):
    book.client_connected("c", 11, "host")
    open_link(book)
    book.batch("link", batch(0, endpoints=[endpoint(1)]))
    plain, of_spans, of_link = (
        stream(book, empty=True),
        stream(book, spans=True),
        stream(book, ids=["link"], empty=True),
    )
    assert read(book, of_spans) == {}
    book.batch("link", batch(1, spans=spans(1, 2)))
    assert read(book, plain).keys() == {"c"}
    for of in (of_spans, of_link):
        told = read(book, of)
        assert (told.keys(), span_ids(told["link"]), told["link"].pid) == ({"link"}, [1, 2], 10)
    book.batch("link", batch(2, spans=spans(3), samples=samples(1)))
    book.batch("link", batch(3, "left", spans=spans(4)))
    assert book.link_closed("link")
    book.client_gone("link", 100.0)
    assert span_ids(read(book, of_spans)["link"]) == [3]
    assert read(book, stream(book, spans=True)) == {}
    assert read(book, plain).keys() == {"c"}


def test_spans_of_a_link_that_is_back_under_its_id_before_a_stream_read_them_are_told(book):
    of_spans = stream(book, spans=True)
    open_link(book)
    book.batch("link", batch(0, endpoints=[endpoint(1)], spans=spans(1, 2)))
    book.batch("link", batch(1, spans=spans(3), final=True))
    book.link_closed("link")
    book.client_gone("link", 123.4)
    open_link(book)
    book.batch("link", batch(2, endpoints=[endpoint(1)], spans=spans(4)))
    assert span_ids(read(book, of_spans)["link"]) == [1, 2, 3, 4]
    book.link_closed("link")
    book.client_gone("link", 100.0)
    assert read(book, of_spans) == {}
    assert read(book, stream(book, spans=True)) == {}


def test_a_batch_cannot_be_of_the_link_of_another_process(book):
    of_spans = stream(book, spans=True)
    open_link(book)
    open_link(book, "other")
    book.batch("link", batch(0, endpoints=[endpoint(1)], spans=spans(1)))
    book.batch("other", batch(0, "link", endpoints=[endpoint(1, "FAKE")], spans=spans(2)))
    told = read(book, of_spans)["link"]
    assert (span_ids(told), [known.topic for known in told.endpoints]) == ([1], ["OUT"])


def test_a_batch_of_many_processes_with_spans_fits_a_frame():
    book = TelemetryBook(limit=ROWS_AT_ONCE)
    of_spans = stream(book, ROWS_AT_ONCE, spans=True)
    for number in range(40):
        open_link(book, str(number))
        book.batch(str(number), batch(0, spans=spans(*range(1, ROWS_AT_ONCE + 1))))
    read_of: Counter[str] = Counter()
    while told := book.stream_take(of_spans, 123.5):
        assert len(encode_record(told)[1]) < CONTROL_FRAME_BYTES
        read_of.update({process.process_id: len(span_ids(process)) for process in told.processes})
    assert set(read_of.values()) == {ROWS_AT_ONCE}
    assert len(read_of) == 40


def test_an_exporter_that_came_back_hears_all_of_a_process_that_ends_and_begins_again(book):
    open_link(book)
    book.batch("link", batch(0, spans=spans(1, 2, 3, 4, 5, 6), final=True))
    book.link_closed("link")
    book.reader_open("x", OpenTelemetryReader("agent", 77, positions={"link": (5, 0)}))
    assert [span_ids(told) for told in take(book)] == [[6]]
    open_link(book)
    book.batch("link", batch(1, spans=spans(7, 8)))
    [told] = take(book)
    assert (span_ids(told), told.server_dropped) == ([7, 8], {})


def test_a_process_that_lost_its_link_goes_on_where_it_was_also_after_an_exporter_was_told(book):
    book.reader_open("x", EXPORTER)
    open_link(book)
    book.batch("link", batch(7, endpoints=[endpoint(1)], spans=spans(1)))
    book.batch("link", batch(8, closed=[1], counters=[CounterState(1, {"consumed": 3})]))
    book.batch("link", batch(8, spans=spans(*range(2, 13))))  # more than are kept
    take(book)
    book.link_closed("link")
    [gone] = take(book)
    assert (gone.gone, gone.server_dropped["span:server_ring"]) == (True, 2)
    assert book.link_opened(hello(), MONO, UNIX).last_seq == 8
    book.batch("link", batch(9, spans=spans(13)))
    [told] = take(book)
    # It takes the process for another one from now on: what that counted is told again, its spans are not.
    assert (span_ids(told), told.batch.closed, told.hello, told.gone) == ([13], [1], hello(), False)
    assert told.server_dropped == {}  # that was told with its end
    assert told.batch.counters == [CounterState(1, {"consumed": 3})]


def test_where_an_exporter_was_in_a_link_that_was_forgotten_means_nothing_to_the_next_of_its_id(book):
    book.reader_open("x", EXPORTER)
    open_link(book)
    book.batch("link", batch(0, spans=spans(1, 2, 3), final=True))
    book.link_closed("link")
    position = max(told.position for told in take(book))
    book.reader_close("x")
    open_link(book)
    book.batch("link", batch(1, spans=spans(4, 5, 6, 7)))
    book.reader_open("x", OpenTelemetryReader("agent", 77, positions={"link": (position, 0)}))
    [told] = take(book)
    assert (span_ids(told), told.server_dropped) == ([4, 5, 6, 7], {})
