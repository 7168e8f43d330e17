from ezmsg.otel.breaker import Breaker


def test_a_new_breaker_lets_through_at_once() -> None:
    assert Breaker().wait_s(100.0) == 0.0


def test_waits_double_from_one_second_to_thirty() -> None:
    breaker = Breaker()
    waits: list[float] = []
    for _ in range(7):
        breaker.failed(0.0)
        waits.append(breaker.wait_s(0.0))
    assert waits == [1, 2, 4, 8, 16, 30, 30]


def test_time_shortens_the_wait() -> None:
    breaker = Breaker()
    breaker.failed(10.0)
    assert breaker.wait_s(10.25) == 0.75
    assert breaker.wait_s(12.0) == 0.0


def test_only_changes_of_state_are_news() -> None:
    breaker = Breaker()
    assert [breaker.succeeded(), breaker.failed(0.0), breaker.failed(1.0)] == [False, True, False]
    assert [breaker.succeeded(), breaker.succeeded(), breaker.failed(2.0)] == [True, False, True]
    assert breaker.wait_s(2.0) == 1.0


def test_a_receiver_that_asks_for_more_time_gets_it_within_limits() -> None:
    breaker = Breaker()
    breaker.failed(0.0, 20.0)
    assert breaker.wait_s(0.0) == 20.0
    breaker.failed(20.0, 0.5)
    assert breaker.wait_s(20.0) == 2.0
    breaker.failed(30.0, 1e9)
    assert breaker.wait_s(30.0) == 300.0
    assert breaker.succeeded()
    assert breaker.wait_s(30.0) == 0.0
