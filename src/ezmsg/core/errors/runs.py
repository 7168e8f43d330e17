"""What can go wrong with a run and its processes."""

from __future__ import annotations

import signal

from ezmsg.core.errors.root import EzmsgError

__all__ = [
    "BackendProcessFailed",
    "BackendProcessLost",
    "GraphRunnerStartError",
    "InvalidComponents",
    "NotSpawnable",
    "RunCancelled",
    "RunnerMisused",
    "SeveralMains",
]


class RunnerMisused(EzmsgError, RuntimeError, ValueError):
    """A GraphRunner was asked for what it cannot do in its state: it runs once."""

    code = "RUNNER_MISUSED"


class GraphRunnerStartError(EzmsgError, RuntimeError):
    """A unit could not be set up, so the run did not start; the cause is the unit's own error."""

    code = "GRAPH_RUNNER_START"

    def __init__(self, error_type: str, reason: str) -> None:
        super().__init__(f"the graph did not start: {error_type}: {reason}")
        self.error_type, self.reason = error_type, reason


class InvalidComponents(EzmsgError, ValueError):
    """Components were not given as what `run` takes."""

    code = "INVALID_COMPONENTS"

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}: give components as keywords, run(A=a, B=b), or as one mapping of names")
        self.reason = reason


class SeveralMains(EzmsgError):
    """Two units of one process have a `main` function; a process has one main thread."""

    code = "SEVERAL_MAINS"

    def __init__(self, units: list[str]) -> None:
        super().__init__(
            f"Process has more than one main-thread functions: those of {', '.join(units)}. Put the units into "
            "different processes, with process_components"
        )
        self.units = units


class NotSpawnable(EzmsgError, TypeError):
    """Units cannot be sent to a process that does not inherit them."""

    code = "NOT_SPAWNABLE"

    def __init__(self, units: list[str], reason: str) -> None:
        super().__init__(
            f"{', '.join(units)} cannot be sent to a spawned process: {reason}. Make what cannot be pickled in "
            "initialize(), or use multiprocessing.set_start_method('fork')"
        )
        self.units, self.reason = units, reason


class RunCancelled(EzmsgError, RuntimeError):
    """Code of a unit cancelled something that keeps a run going, although nobody ended the run."""

    code = "RUN_CANCELLED"

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} was cancelled from within: raise NormalTermination to end a run")
        self.what = what


class BackendProcessLost(EzmsgError, RuntimeError):
    """A process of a run ended before the run did; the others were stopped."""

    code = "BACKEND_PROCESS_LOST"

    def __init__(self, process: str, exitcode: int | None) -> None:
        super().__init__(f"{process} {_ending(exitcode)}, and the run was ended")
        self.process, self.exitcode = process, exitcode


class BackendProcessFailed(EzmsgError, RuntimeError):
    """A process of a run raised an exception that cannot be raised here; its traceback is in a note."""

    code = "BACKEND_PROCESS_FAILED"

    def __init__(self, process: str, error_type: str) -> None:
        super().__init__(f"{error_type} in {process}")
        self.process, self.error_type = process, error_type


def _ending(exitcode: int | None) -> str:
    if exitcode is None:
        return "stopped answering"
    if exitcode >= 0:
        return f"ended with exit code {exitcode} before it was told to"
    try:
        return f"was killed by {signal.Signals(-exitcode).name}"
    except ValueError:
        return f"was killed by signal {-exitcode}"
