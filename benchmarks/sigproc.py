"""Compare a pipeline of ezmsg-sigproc on this package with the same on upstream ezmsg: CPU of the runtime, and age."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import environments
from against import Cell, Comparison, Target
from cells import Metric

from ecosystem import environment as ecosystem

SHARE = Target(Metric("runtime", "% of a core", higher_is_better=False), 0.5)
AGE = Target(Metric("p99", "ms", higher_is_better=False), 1.0)
CELLS = (
    *(Cell(f"{where}-{samples}", (SHARE, AGE)) for where in ("together", "apart") for samples in (10, 2)),
    # What no runtime can go below.
    *(Cell(f"timers-{samples}", (SHARE,), is_only_ours=True) for samples in (10, 2)),
)
SIGPROC = Comparison(
    (__doc__ or "").splitlines()[0],
    Path(__file__).with_name("sigprocworker.py"),
    CELLS,
    smoke={"seconds": 0.5},
    pythons={
        "ours": lambda: str(ecosystem.ensure()),
        "peer": lambda: environments.ensure(environments.PACKAGES["peer-sigproc"]),
    },
    seconds=5.0,
)

if __name__ == "__main__":
    sys.exit(SIGPROC.main())
