"""An environment with the published packages, and the current state of this one below them.

    python ecosystem/environment.py         # prints its interpreter

It is kept outside the clone, by the versions in it; the wheel of this package is built and installed anew each time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
REQUIREMENTS, CONSTRAINTS = HERE / "requirements.txt", HERE / "constraints.txt"
INSTALL_TIMEOUT_S = 900.0


def directory() -> Path:
    """Where the environment is: one per set of versions and per Python."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    pins = hashlib.sha256(REQUIREMENTS.read_bytes() + CONSTRAINTS.read_bytes())
    pins.update(os.fsencode(os.path.realpath(sys.base_prefix)))
    python = f"{platform.python_implementation().lower()}-{platform.python_version()}"
    return cache / "ezmsg-ecosystem" / f"{python}-{pins.hexdigest()[:12]}"


def ensure() -> Path:
    """The interpreter of the environment, made when it is not there or was left half made, with the current wheel."""
    home = directory()
    python, complete = home / "bin" / "python", home / ".complete"
    home.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{home}.lock", "w") as lock, tempfile.TemporaryDirectory() as wheels:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two may start at the same time
        _run(sys.executable, "-m", "pip", "wheel", *_quietly(), "--no-deps", "--no-build-isolation",
             "--wheel-dir", wheels, str(HERE.parent))  # fmt: skip
        [wheel] = Path(wheels).glob("ezmsg-*.whl")
        if not (complete.exists() and python.exists()):
            print("installing the packages of ecosystem/requirements.txt, once", file=sys.stderr)
            shutil.rmtree(home, ignore_errors=True)
            _run(sys.executable, "-m", "venv", str(home))
            _pip(python, str(wheel))
            complete.touch()
        else:
            _pip(python, "--no-deps", "--force-reinstall", str(wheel))
        # As a user would: our wheel is there, and they come from the index. When all are there, it only looks.
        _pip(python, str(wheel), "--requirement", str(REQUIREMENTS))
    return python


def _pip(python: Path, *arguments: str) -> None:
    _run(str(python), "-m", "pip", "install", *_quietly(), "--constraint", str(CONSTRAINTS), *arguments)


def _quietly() -> list[str]:
    return ["--quiet", "--disable-pip-version-check", "--no-input"]


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr, timeout=INSTALL_TIMEOUT_S)


if __name__ == "__main__":
    try:
        print(ensure())
    except subprocess.SubprocessError as failure:
        sys.exit(f"the environment of the ecosystem cannot be made: {failure}")
