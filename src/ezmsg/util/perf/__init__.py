"""`ezmsg perf`: measure this installation on this machine.

`hotpath` is a quick look at one message at a time, `benchmark` runs graphs, `ab` compares two versions of the code. To
compare with other packages see `benchmarks/` in the repository.
"""

from ezmsg.util.perf.command import setup_perf_cmdline

__all__ = ["setup_perf_cmdline"]
