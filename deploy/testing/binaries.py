"""Builds the programs the stack is tested with: the collector by its official builder, Prometheus and promtool.

    python -m deploy.testing.binaries        # builds what is missing, prints the directory

They are made from the manifests beside this file, at release tags, by the Go module proxy. What was built is kept in
`$XDG_CACHE_HOME/ezmsg-stack/HASH`, where HASH covers the manifests and this file: a change builds again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
MANIFESTS = (HERE / "otelcol.yaml", HERE / "prometheus/go.mod", HERE / "prometheus/go.sum", Path(__file__))
BUILDER = "go.opentelemetry.io/collector/cmd/builder@v0.161.0"
# Without the discovery of targets in clouds, which is most of it; without the web interface, which needs Node.js.
PROMETHEUS_TAGS = "remove_all_sd"
BUILD_TIMEOUT_S = 3600


@dataclass(frozen=True)
class Binaries:
    """Where the programs are."""

    directory: Path

    @property
    def otelcol(self) -> Path:
        """The collector."""
        return self.directory / "otelcol"

    @property
    def prometheus(self) -> Path:
        """The server."""
        return self.directory / "prometheus"

    @property
    def promtool(self) -> Path:
        """Checks and unit tests of rules."""
        return self.directory / "promtool"


def cache_directory() -> Path:
    """Where programs of these manifests are kept."""
    digest = hashlib.sha256()
    for manifest in MANIFESTS:
        digest.update(manifest.name.encode() + b"\0" + manifest.read_bytes())
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "ezmsg-stack", digest.hexdigest()[:16])


def ensure() -> Binaries:
    """The programs, built if they are missing; whoever comes second waits.

    Raises:
        RuntimeError: Go is missing or could not build them.
    """
    directory = cache_directory()
    directory.parent.mkdir(parents=True, exist_ok=True)
    with open(directory.parent / f"{directory.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.is_dir():
            _build(directory)
    return Binaries(directory)


def _build(directory: Path) -> None:
    if shutil.which("go", path=_path()) is None:
        raise RuntimeError("the stack is tested with programs written in Go: install Go >= 1.26 (https://go.dev/dl)")
    print(f"building the collector and Prometheus into {directory}: minutes, once", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        work, made = Path(scratch, "work"), Path(scratch, "made")
        shutil.copytree(HERE / "prometheus", work / "prometheus")
        made.mkdir()
        commands = ("prometheus", "promtool")
        packages = (f"github.com/prometheus/prometheus/cmd/{name}" for name in commands)
        flags = ("-trimpath", "-tags", PROMETHEUS_TAGS, "-ldflags", "-s -w", "-o", f"{made}/")
        _go(work / "prometheus", "build", *flags, *packages)
        shutil.copy(HERE / "otelcol.yaml", work)
        _go(work, "run", BUILDER, "--config", "otelcol.yaml")
        shutil.copy(work / "otelcol/otelcol", made)
        made.rename(directory)


def _go(directory: Path, *arguments: str) -> None:
    command = ["nice", "go", *arguments]
    # What go.mod and go.sum say is built, nothing else; the builder writes its own.
    mode = "readonly" if arguments[0] == "build" else "mod"
    environment = os.environ | {"GOFLAGS": f"-mod={mode}", "PATH": _path()}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}")


def _path() -> str:
    """Where programs are, and where Go is by its own instructions, which not everybody's PATH knows."""
    return f"{os.environ['PATH']}{os.pathsep}/usr/local/go/bin"


if __name__ == "__main__":
    print(ensure().directory)
