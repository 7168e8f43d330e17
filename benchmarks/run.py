"""Compare running units with upstream ezmsg: start to first message, shutdown, and pipelines of five units."""

from __future__ import annotations

import sys
from pathlib import Path

from against import Cell, Comparison, rate, time

SIZES = (64, 1 << 20)
CELLS = (
    *(Cell(f"start-{units}-{where}-64", time(1.0, "start", "shutdown"))
      for units, where in ((2, "together"), (4, "apart"), (16, "apart"))),
    *(Cell(f"pipeline-5-{where}-{size}", rate("msgs/s", 3.0 if size == 64 else 1.5))
      for where in ("together", "apart") for size in SIZES),
)  # fmt: skip
RUN = Comparison(
    (__doc__ or "").splitlines()[0], Path(__file__).with_name("runworker.py"), CELLS, smoke={"seconds": 0.05}
)

if __name__ == "__main__":
    sys.exit(RUN.main())
