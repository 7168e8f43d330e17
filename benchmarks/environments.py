"""Those we compare with, each in an environment of its own outside the clone: they are only run, as a program would."""

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

PEER_VERSION = "3.9.0"
PACKAGES = {
    "peer": [f"ezmsg=={PEER_VERSION}"],
    "peer-sigproc": [
        "ezmsg-sigproc==3.6.0",
        f"ezmsg=={PEER_VERSION}",
        "ezmsg-baseproc==1.11.0",
        "array-api-compat==1.16.0",
        "numba==0.68.1",
        "scipy==1.17.1",
    ],
    "zenoh": ["eclipse-zenoh==1.10.2"],
    "iceoryx2": ["iceoryx2==0.10.0", "flatbuffers==25.12.19"],
}
"""By implementation, the one that names the environment first; all others run in our own environment. What is on top
of upstream has the versions of `ecosystem`."""
INSTALL_TIMEOUT_S = 600.0


class NotInstalled(Exception):
    """An environment could not be made; what the installer said is on standard error."""


def directory(package: str) -> Path:
    """Where an environment is kept: one per version of the package, numpy and Python, and per installed Python."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    base = hashlib.sha256(os.fsencode(os.path.realpath(sys.base_prefix))).hexdigest()[:8]
    python = f"{platform.python_implementation().lower()}-{platform.python_version()}-{base}"
    return cache / "ezmsg-bench" / f"{package.replace('==', '-')}-numpy-{version('numpy')}-{python}"


def ensure(packages: list[str]) -> str:
    """The interpreter of an environment with these packages, made when it is not there or was left half made.

    Raises:
        NotInstalled: It could not be made.
    """
    home = directory(packages[0])
    python = home / "bin" / "python"
    complete = home / ".complete"
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{home}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two comparisons may start at the same time
            if not (complete.exists() and python.exists()):
                print(f"installing {packages[0]} for comparison, once", file=sys.stderr)
                shutil.rmtree(home, ignore_errors=True)
                pinned = [*packages, f"numpy=={version('numpy')}"]
                _run([sys.executable, "-m", "venv", str(home)])
                _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pinned])
                complete.touch()
    except (OSError, subprocess.SubprocessError) as error:
        raise NotInstalled(f"{packages[0]} cannot be installed: {error}") from error
    return str(python)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr, timeout=INSTALL_TIMEOUT_S)
