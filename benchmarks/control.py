"""Compare the control plane with that of upstream ezmsg: requests, edges, snapshots, events and first messages."""

from __future__ import annotations

import sys
from pathlib import Path

from against import Cell, Comparison, rate, time

CELLS = (
    Cell("ping-sequential", rate("requests/s", 3.0)),
    Cell("ping-32-in-flight", rate("requests/s", 3.0)),
    Cell("connect-500-pairs", time(0.2)),
    Cell("connect-500-chain", time(0.2)),
    Cell("snapshot-1000-edges", time(1.0)),
    # The peer copies the graph for every edge: setting up takes it half a minute.
    Cell("snapshot-10000-edges", time(1.0), is_only_ours=True),
    Cell("fanout-50-live", rate("events/s", 1.0)),
    Cell("fanout-50-replay", rate("events/s", 1.0)),
    Cell("first-local", time(1.0)),
    Cell("first-new-subscriber", time(1.0)),
    Cell("first-new-publisher", time(1.0)),
)
CONTROL = Comparison(
    (__doc__ or "").splitlines()[0],
    Path(__file__).with_name("controlworker.py"),
    CELLS,
    smoke={"seconds": 0.02, "scale": 0.02},
    scales=True,
)

if __name__ == "__main__":
    sys.exit(CONTROL.main())
