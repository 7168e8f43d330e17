"""What strangers cause is logged once in a while."""

from ezmsg.core.net.loglimit import LogLimiter


def test_lines_of_one_reason_are_limited_and_counted(caplog) -> None:
    now_s = 100.0
    log = LogLimiter(5.0, clock=lambda: now_s)
    for number in range(10):
        log.warning("A", f"line {number}")
    log.warning("B", "another reason")
    now_s = 105.0
    log.warning("A", "line 10")
    log.flush()
    log.warning("A", "afresh")
    assert caplog.messages == ["line 0", "another reason", "line 10 (and 9 more like it)", "afresh"]


def test_what_was_left_out_at_the_end_is_told(caplog) -> None:
    log = LogLimiter(5.0, clock=lambda: 100.0)
    for number in range(3):
        log.warning("A", f"line {number}")
    log.flush()
    assert caplog.messages == ["line 0", "line 2 (A, one of 2 not logged)"]
