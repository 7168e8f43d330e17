from uuid import uuid4

from ezmsg.core import profiling
from ezmsg.core.profiling import ProfileRegistry, PublisherMetrics
from tests.core.profiling.recording import SECOND, publish


def is_root(metrics: PublisherMetrics, time: int) -> bool:
    """As the publisher does it, inline."""
    return time / 1e9 >= metrics.next_root_s and metrics.begin_root(time / 1e9)


def roots(metrics: PublisherMetrics, times: range) -> list[int]:
    found = []
    for number, time in enumerate(times):
        if is_root(metrics, time):
            found.append(time)
        publish(metrics, number, time)
    return found


def test_the_first_message_begins_a_trace_and_then_one_a_second(publisher):
    assert roots(publisher, range(0, 3 * SECOND, SECOND // 10)) == [0, SECOND, 2 * SECOND]


def test_every_publisher_has_its_own_rate(registry, publisher):
    other = registry.register_publisher(uuid4(), "OTHER", 8)
    assert is_root(publisher, 0)
    assert is_root(other, 0)


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
