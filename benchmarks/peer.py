"""Upstream ezmsg in an environment of its own, outside the clone: it is only ever run, as a program would."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

VERSION = "3.9.0"
INSTALL_TIMEOUT_S = 600.0


def directory() -> Path:
    """Where the environment is kept: one for each version of ezmsg, numpy and Python, and each installed Python."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    base = hashlib.sha256(os.fsencode(os.path.realpath(sys.base_prefix))).hexdigest()[:8]
    python = f"{platform.python_implementation().lower()}-{platform.python_version()}-{base}"
    return cache / "ezmsg-bench" / f"ezmsg-{VERSION}-numpy-{version('numpy')}-{python}"


def ensure() -> str:
    """The interpreter of the environment, made when it is not there or was left half made.

    Raises:
        subprocess.SubprocessError: It could not be made; what the installer said is on standard error.
    """
    home = directory()
    python = home / "bin" / "python"
    complete = home / ".complete"
    home.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{home}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two comparisons may start at the same time
        if not (complete.exists() and python.exists()):
            print(f"installing ezmsg {VERSION} for comparison, once", file=sys.stderr)
            shutil.rmtree(home, ignore_errors=True)
            packages = [f"ezmsg=={VERSION}", f"numpy=={version('numpy')}"]
            _run([sys.executable, "-m", "venv", str(home)])
            _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])
            complete.touch()
    return str(python)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr, timeout=INSTALL_TIMEOUT_S)
