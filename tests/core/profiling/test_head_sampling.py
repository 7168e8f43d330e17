import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

from ezmsg.core import profiling
from ezmsg.core.graphmeta import ProfilingTraceControl
from ezmsg.core.profiling import ProfileRegistry, PublisherMetrics
from tests.core.profiling.recording import SECOND, publish


def is_root(metrics: PublisherMetrics, time: int) -> bool:
    """As the publisher does it, inline."""
    return time / 1e9 >= metrics.next_root_s and (metrics.begins_all or metrics.begin_root(time / 1e9))


def roots(metrics: PublisherMetrics, times: range) -> list[int]:
    found = []
    for number, time in enumerate(times):
        if is_root(metrics, time):
            found.append(time)
        publish(metrics, number, time)
    return found


def test_the_first_message_begins_a_trace_and_then_one_a_second(publisher):
    assert roots(publisher, range(0, 3 * SECOND, SECOND // 10)) == [0, SECOND, 2 * SECOND]


def test_only_a_publisher_of_which_every_message_begins_a_trace_is_not_asked(registry, publisher):
    def set_control(**how: float) -> bool:
        registry.set_trace_control(ProfilingTraceControl(True, metrics=[], **how))
        return publisher.begins_all

    assert not publisher.begins_all
    assert set_control(trace_ratio=1.0)
    assert not set_control(trace_ratio=0.5)
    assert not set_control(trace_rate=5.0)
    assert set_control(trace_ratio=1.0)
    publisher.thin_roots(1)
    assert not publisher.begins_all
    assert roots(publisher, range(4)) == [1, 3]
    publisher.thin_roots(0)
    assert publisher.begins_all
    assert roots(publisher, range(4)) == [0, 1, 2, 3]


def test_every_topic_has_its_own_rate(registry, publisher):
    other = registry.register_publisher(uuid4(), "OTHER", 8)
    assert is_root(publisher, 0)
    assert is_root(other, 0)


def test_the_publishers_of_a_topic_share_its_rate(registry, publisher):
    others = [registry.register_publisher(uuid4(), publisher.topic, 8) for _ in range(3)]
    begun = [
        (time, number)
        for time in range(0, 3 * SECOND, SECOND // 10)
        for number, metrics in enumerate([publisher, *others])
        if is_root(metrics, time)
    ]
    assert [time for time, _ in begun] == [0, SECOND, 2 * SECOND]
    assert is_root(others[2], 3 * SECOND)
    assert not is_root(publisher, 3 * SECOND)


def test_a_publisher_that_is_given_a_rate_of_its_own_has_it_beside_others(registry, publisher):
    other = registry.register_publisher(uuid4(), publisher.topic, 8)
    registry.set_trace_control(
        ProfilingTraceControl(True, metrics=[], trace_rate=8.0, publisher_endpoint_ids=[other.endpoint_id])
    )
    assert is_root(publisher, 0)
    assert len(roots(other, range(SECOND // 8, SECOND + 1, SECOND // 16))) == 8


def test_publishers_in_several_threads_share_the_rate_of_their_topic(registry):
    publishers = [registry.register_publisher(uuid4(), "T", 8) for _ in range(4)]
    ready = threading.Barrier(len(publishers))

    def publish_all(metrics: PublisherMetrics) -> int:
        ready.wait(30)
        return sum(is_root(metrics, time) for time in range(0, 100 * SECOND, SECOND // 10))

    with ThreadPoolExecutor(len(publishers)) as pool:
        assert sum(pool.map(publish_all, publishers)) <= 100


def test_a_topic_begins_anew_when_its_last_publisher_is_gone(registry):
    for _ in range(2):
        first, second = (registry.register_publisher(uuid4(), "T", 8) for _ in range(2))
        assert is_root(first, 0)
        registry.unregister_publisher(first.id)
        assert not is_root(second, 0)
        registry.unregister_publisher(second.id)


def test_the_rate_changes_while_running(registry, publisher):
    registry.set_trace_sampling(10.0)
    assert len(roots(publisher, range(0, SECOND, SECOND // 100))) == 10
    registry.set_trace_sampling(0.0)
    assert not is_root(publisher, 5 * SECOND)


def test_a_ratio_replaces_the_rate(registry, publisher):
    registry.set_trace_sampling(1.0, ratio=1.0)
    assert len(roots(publisher, range(50))) == 50
    registry.set_trace_sampling(1.0, ratio=0.0)
    assert not is_root(publisher, 9 * SECOND)


def test_with_a_small_ratio_the_first_message_is_sampled_all_the_same(registry, publisher):
    registry.set_trace_sampling(1.0, ratio=1e-12)
    assert roots(publisher, range(20)) == [0]


def test_nothing_begins_a_trace_at_level_off(registry, publisher):
    registry.set_level("off")
    assert not is_root(publisher, 0)
    registry.set_level("metrics")
    assert is_root(publisher, SECOND)


def test_rates_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("EZMSG_TRACE_RATE", "0")
    assert not is_root(ProfileRegistry().register_publisher(uuid4(), "T", 1), 0)
    monkeypatch.setenv("EZMSG_TRACE_RATIO", "1")
    assert is_root(ProfileRegistry().register_publisher(uuid4(), "T", 1), 0)


def test_ids_are_random_and_fit_their_bits():
    assert profiling.new_trace_id() != profiling.new_trace_id() != bytes(16)
    assert len(profiling.new_trace_id()) == 16
    assert 0 < profiling.new_span_id() < 1 << 64
    assert profiling.new_span_id() != profiling.new_span_id()
