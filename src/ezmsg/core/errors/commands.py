"""What programs of the command line can run into."""

from __future__ import annotations

from ezmsg.core.errors.root import EzmsgError

__all__ = ["DashboardDependencyError", "MeasurementFailed", "ServerDidNotStart"]


class DashboardDependencyError(EzmsgError, RuntimeError):
    """The dashboard is not installed, or cannot be imported."""

    code = "DASHBOARD_DEPENDENCY"

    def __init__(self, hint: str, reason: str = "") -> None:
        super().__init__(f"{hint} (it cannot be imported: {reason})" if reason else hint)
        self.hint, self.reason = hint, reason


class ServerDidNotStart(EzmsgError, RuntimeError):
    """A GraphServer that was started in the background does not serve."""

    code = "SERVER_DID_NOT_START"

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"the GraphServer at {address} did not start: {reason}. Try ezmsg serve --address {address}")
        self.address, self.reason = address, reason


class MeasurementFailed(EzmsgError, RuntimeError):
    """A program that a benchmark started did not do what it should."""

    code = "MEASUREMENT_FAILED"

    def __init__(self, program: str, reason: str) -> None:
        super().__init__(f"{program} failed: {reason}")
        self.program, self.reason = program, reason
