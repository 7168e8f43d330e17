"""Run as a program: forks in the middle of things, and checks that the child begins anew and the parent goes on."""

import os
import socket
import sys
from uuid import uuid4

from ezmsg.core import profiling
from ezmsg.core.graphmeta import ProfilingTraceControl
from ezmsg.core.profiling import PROFILES
from ezmsg.core.recorder import ids
from ezmsg.core.telemetry import pump
from ezmsg.core.wire.records import ClockAnchor

GRAPH = "127.0.0.1:1"


def check(fact: bool, what: str) -> None:
    if not fact:
        raise AssertionError(what)


def no_server(graph: str, timeout_s: float) -> socket.socket:
    raise ConnectionRefusedError(graph)


def child(draws: object) -> None:
    snapshot = PROFILES.snapshot()
    check(not snapshot.publishers, "the publishers of the parent are known")
    check(not snapshot.recorded["row"], "the rows of the parent are known")
    check(not PROFILES.trace_enabled(), "the trace of the parent is on")
    check(PROFILES.anchor.boot_id != "parent", "the anchor is that of the parent")
    check(PROFILES.process_id.int == 0, "the process id is that of the parent")
    check(ids._random.getstate() != draws, "ids are those of the parent")
    check(not PROFILES.has_endpoints(GRAPH), "the graph of the parent is known")
    check(pump.PUMP._thread is None and not pump.PUMP._links, "the links of the parent are known")
    check(pump.flush(0.0), "there is something to send")
    own = PROFILES.register_publisher(uuid4(), "CHILD", 1, graph_address=GRAPH)
    check(pump.PUMP._thread is not None, "nothing carries what the child measures")
    own.published(0, 0.0, 0.0, 5e-9, 0.0, 0.0, 0, 1, (bytes(16), 2, 0, ()))
    check([span.name for span in PROFILES.trace_batch().spans] == ["publish CHILD"], "the child records nothing")
    pump.shutdown(10.0)


def main() -> None:
    pump.PUMP._dial = no_server
    pump.install()
    publisher = PROFILES.register_publisher(uuid4(), "PARENT", 1, graph_address=GRAPH)
    publisher.published(0, 0.0, 0.0, 5e-9, 0.0, 0.0, 0, 1, None)
    PROFILES.set_process_id(uuid4())
    PROFILES.set_anchor(ClockAnchor("parent", 1, 2))
    PROFILES.set_trace_control(ProfilingTraceControl(True))
    draws = ids._random.getstate()
    # As if other threads were at work at that very moment.
    with PROFILES.recorder.reading, PROFILES.recorder.lock, PROFILES._lock, pump.PUMP._lock:
        pid = os.fork()
        if not pid:
            code = 1
            try:
                child(draws)
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
    check(os.waitpid(pid, 0)[1] == 0, "the child failed")
    check(list(PROFILES.snapshot().publishers) == [publisher.endpoint_id], "the parent forgot its publisher")
    check(profiling.new_span_id() > 0, "the parent has no ids")
    check(pump.flush(10.0), "the parent's pump stopped")


if __name__ == "__main__":
    main()
