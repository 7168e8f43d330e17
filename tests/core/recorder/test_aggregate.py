from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ezmsg.core.recorder.aggregate import Aggregator
from ezmsg.core.recorder.labels import Labels
from ezmsg.core.recorder.rows import ERROR, FOREIGN, INSTANT, NO_PREVIOUS
from ezmsg.core.wire.records import HistogramState
from tests.core.recorder.rowmaking import SHM, TCP, Row, process, publish, sampled, table, user_span


@pytest.fixture
def labels() -> Labels:
    return Labels()


@pytest.fixture
def aggregator(labels: Labels) -> Aggregator:
    made = Aggregator(labels)
    for index in (1, 2, 3):
        made.open(index)
    return made


def states(aggregator: Aggregator, index: int) -> dict[str, HistogramState]:
    found = map(aggregator.series.histograms.state, aggregator.series.of(index))
    return {f"{state.name}:{state.label}" if state.label else state.name: state for state in found}


def summary(state: HistogramState) -> tuple[int, int, int, int]:
    return state.count, state.sum_ns, state.min_ns, state.max_ns


def test_a_publish_counts_its_duration_and_only_waits_and_serializations_that_happened(aggregator: Aggregator):
    aggregator.add(table(publish(1, 0, 1000, 1300), publish(1, 1, 2000, 2100, wait=40, serialize=7)))
    found = states(aggregator, 1)
    assert summary(found["publish"]) == (2, 400, 100, 300)
    assert summary(found["backpressure"]) == (1, 40, 40, 40)
    assert summary(found["serialize"]) == (1, 7, 7, 7)


def test_serializations_are_told_apart_by_the_way_that_messages_leave(aggregator: Aggregator):
    rows = [publish(1, number, 1000 * number, serialize=7, way=way) for number, way in enumerate((SHM, TCP, TCP))]
    aggregator.add(table(*rows))
    found = states(aggregator, 1)
    assert summary(found["serialize:shm"]) == (1, 7, 7, 7)
    assert summary(found["serialize:tcp"]) == (2, 14, 7, 7)
    assert found["publish"].count == 3


def test_intervals_go_from_start_to_start_also_across_reads_and_per_publisher(aggregator: Aggregator):
    aggregator.add(table(publish(1, 0, 1000), publish(2, 0, 1500), publish(1, 1, 1100)))
    aggregator.add(table(publish(2, 1, 2500), publish(1, 2, 1400)))
    assert summary(states(aggregator, 1)["interval"]) == (2, 400, 100, 300)
    assert summary(states(aggregator, 2)["interval"]) == (1, 1000, 1000, 1000)


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(12)), st.lists(st.integers(1, 5), min_size=12), st.sets(st.integers(0, 11)))
def test_intervals_are_whole_in_whatever_order_and_portions_messages_are_heard_of(
    order: list[int], portions: list[int], carrying: set[int]
):
    made = Aggregator(Labels())
    for index in (1, 2):
        made.open(index)
    starts = [1000 * number * number for number in range(12)]
    while order:
        portion, order = order[: portions[0]], order[portions.pop(0) :]
        rows: list[Row | list[Row]] = []
        for number in portion:
            row, previous = publish(1, number, starts[number]), starts[number - 1] if number else NO_PREVIOUS
            rows += [sampled(row, 9, previous=previous) if number in carrying else row, publish(2, number, 7)]
        made.add(table(*rows))
    assert summary(states(made, 1)["interval"])[:2] == (11, starts[-1])
    assert summary(states(made, 2)["interval"])[:2] == (11, 0)


def test_no_interval_is_taken_across_a_lost_message(aggregator: Aggregator):
    aggregator.add(table(publish(1, 0, 1000), publish(1, 5, 9000), publish(1, 6, 9200)))
    assert summary(states(aggregator, 1)["interval"]) == (1, 200, 200, 200)


def test_of_a_program_that_counts_from_the_beginning_again_intervals_go_by_the_order_of_messages(
    aggregator: Aggregator,
):
    rows = [publish(1, turn % 5, 100 * turn, flags=INSTANT) for turn in range(10)]
    aggregator.add(table(*rows))
    assert summary(states(aggregator, 1)["interval"]) == (8, 800, 100, 100)


def test_a_row_that_carries_the_start_of_its_predecessor_has_an_interval_across_thinned_ones(aggregator: Aggregator):
    aggregator.add(
        table(sampled(publish(1, 4, 1000), 9, flags=0), sampled(publish(1, 8, 5000), 9, previous=4100, flags=0))
    )
    assert summary(states(aggregator, 1)["interval"]) == (1, 900, 900, 900)


def test_an_instant_publish_has_an_interval_but_no_duration(aggregator: Aggregator):
    aggregator.add(table(publish(1, 0, 10, flags=INSTANT), publish(1, 1, 30, flags=INSTANT)))
    assert set(states(aggregator, 1)) == {"interval"}


def test_an_edge_counts_age_transport_queue_and_process(aggregator: Aggregator):
    aggregator.add(table(process(2, 0, origin=100, published=150, channel=180, start=250, end=1000)))
    found = states(aggregator, 2)
    assert {name: state.sum_ns for name, state in found.items()} == {
        "age": 150,
        "transport": 30,
        "queue": 70,
        "process": 750,
    }


def test_times_of_another_host_are_counted_as_anomalies_and_not_compared(aggregator: Aggregator):
    aggregator.add(table(process(2, 0, origin=9_000, published=9_100, channel=180, start=250, end=1000, flags=FOREIGN)))
    assert set(states(aggregator, 2)) == {"queue", "process"}
    assert aggregator.anomalies(2) == (1, 0)


def test_an_origin_of_another_host_spoils_the_age_alone(aggregator: Aggregator):
    aggregator.add(table(process(2, 0, origin=-1, published=100, channel=180, start=250, end=1000)))
    assert set(states(aggregator, 2)) == {"transport", "queue", "process"}
    assert aggregator.anomalies(2) == (1, 0)


def test_negative_durations_are_counted_and_not_shown(aggregator: Aggregator):
    aggregator.add(table(process(2, 0, origin=500, published=190, channel=180, start=250, end=1000)))
    assert set(states(aggregator, 2)) == {"queue", "process"}
    assert aggregator.anomalies(2) == (0, 1)


def test_failures_are_a_series_of_their_own(aggregator: Aggregator, labels: Labels):
    code = labels.code("ValueError")
    rows = [process(2, 0, start=0, end=10), process(2, 1, start=20, end=50, flags=ERROR, label=code)]
    aggregator.add(table(*rows))
    found = states(aggregator, 2)
    assert found["process"].sum_ns == 10
    assert found["process:ValueError"].sum_ns == 30


def test_user_spans_are_counted_by_label(aggregator: Aggregator, labels: Labels):
    fft, fit = labels.code("fft"), labels.code("fit")
    aggregator.add(table(user_span(2, 0, 10, fft), user_span(2, 20, 50, fit), user_span(3, 60, 61, fft)))
    assert {name: state.sum_ns for name, state in states(aggregator, 2).items()} == {"span:fft": 10, "span:fit": 30}
    assert states(aggregator, 3)["span:fft"].count == 1


def test_histograms_are_cumulative(aggregator: Aggregator):
    for _ in range(3):
        aggregator.add(table(process(2, 0, start=0, end=1000)))
    state = states(aggregator, 2)["process"]
    assert (state.count, state.counts) == (3, [3])


def test_rows_of_an_endpoint_that_is_not_known_are_counted(aggregator: Aggregator):
    assert aggregator.add(table(publish(99, 0, 1), publish(1, 0, 1), process(5000, 0))) == 2


def test_a_closed_endpoint_leaves_nothing_to_its_successor(aggregator: Aggregator):
    aggregator.add(table(publish(1, 0, 1000, 1500), process(2, 0, origin=900, start=0, end=1)))
    aggregator.close(1)
    aggregator.close(2)
    assert aggregator.add(table(publish(1, 1, 2000))) == 1
    aggregator.open(200)
    aggregator.open(201)
    aggregator.add(table(publish(200, 1, 3000, 3001)))
    assert summary(states(aggregator, 200)["publish"]) == (1, 1, 1, 1)
    assert "interval" not in states(aggregator, 200)
    assert aggregator.anomalies(201) == (0, 0)


def test_many_endpoints_have_room(aggregator: Aggregator):
    for index in range(4, 200):
        aggregator.open(index)
    aggregator.add(table(*(process(index, 0, start=0, end=index) for index in range(4, 200))))
    assert [states(aggregator, index)["process"].sum_ns for index in range(4, 200)] == list(range(4, 200))


def exemplars(aggregator: Aggregator, index: int, name: str) -> Sequence[tuple[int, int, str, str]]:
    return states(aggregator, index)[name].exemplars


def test_exemplars_are_the_slowest_sampled_row_and_one_at_random(aggregator: Aggregator):
    rows = [sampled(process(2, n, start=0, end=duration), span_id=n) for n, duration in enumerate([20, 70, 10], 1)]
    aggregator.add(table(*rows, process(2, 4, start=0, end=5000)))
    slowest, chosen = exemplars(aggregator, 2, "process")
    assert slowest == (70, 70, "0123456789abcdeffedcba9876543210", "0000000000000002")
    assert chosen[0] in {20, 70, 10}


def test_a_slower_row_of_a_later_read_takes_the_place_of_the_slowest(aggregator: Aggregator):
    aggregator.add(table(sampled(publish(1, 0, 0, 50), 1)))
    aggregator.add(table(sampled(publish(1, 1, 100, 190), 2)))
    aggregator.add(table(sampled(publish(1, 2, 200, 230), 3)))
    assert exemplars(aggregator, 1, "publish")[0][0] == 90


def test_unsampled_rows_are_no_exemplars(aggregator: Aggregator):
    aggregator.add(table(publish(1, 0, 0, 50)))
    assert exemplars(aggregator, 1, "publish") == []


def test_every_histogram_of_a_message_has_exemplars_also_of_failures_and_user_spans(
    aggregator: Aggregator, labels: Labels
):
    error, label = labels.code("KeyError"), labels.code("fft")
    waited = sampled(publish(1, 0, 1000, 1300, wait=40, serialize=7), span_id=1)
    failed = sampled(process(2, 0, start=50, end=70, flags=ERROR, label=error), span_id=2)
    aggregator.add(table(waited, failed, sampled(user_span(2, start=50, end=80, label=label), span_id=3)))
    found = {**states(aggregator, 1), **states(aggregator, 2)}
    assert {name: int(state.exemplars[0][3], 16) for name, state in found.items()} == {
        **dict.fromkeys(("publish", "backpressure", "serialize"), 1),
        **dict.fromkeys(("age", "transport", "queue", "process:KeyError"), 2),
        "span:fft": 3,
    }
    assert found["backpressure"].exemplars[0][0] == 40
