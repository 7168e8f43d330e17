"""What was measured, and on what."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime

import numpy as np

from ezmsg.core import __version__


def environment() -> dict[str, str]:
    """Versions, machine and time, as text."""
    return {
        "ezmsg": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": platform.platform(),
        "processors": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown",
        "executable": sys.executable,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
