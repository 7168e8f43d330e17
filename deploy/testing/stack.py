"""The stack without containers: the shipped configurations on 127.0.0.1, with their addresses substituted.

In place of Tempo stands a receiver of ours, which keeps the spans that the collector sends to it.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Self

from deploy.testing.binaries import Binaries
from deploy.testing.promql import Prometheus
from examples.otlp_receiver import GrpcReceiver

DEPLOY = Path(__file__).parents[1]
HOST = "127.0.0.1"
PATIENCE_S = 300.0
"""For what takes seconds: only what hangs takes longer, on whatever machine."""


class StackError(RuntimeError):
    """Something of the stack did not do what it should; the text has the end of its log."""


@contextlib.contextmanager
def kept_ports(count: int) -> Iterator[list[int]]:
    """Ports that the system gives to nobody else in the block, also while the daemon that listens there is away.

    They are bound and not listened on: daemons, which reuse addresses, may listen there. A port that is just free
    becomes somebody's end of a connection before long.
    """
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((HOST, 0))
        yield [one.getsockname()[1] for one in sockets]


def wait_until(is_so: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Ask again and again.

    Raises:
        StackError: It was not so in time.
    """
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline_s:
            raise StackError(f"after {timeout_s:g} s still not: {what}")
        time.sleep(0.1)


class Daemon:
    """A program that serves until it is ended; it can be killed and started again, with the same log and ports."""

    def __init__(self, command: list[str], log: Path, ready_url: str) -> None:
        self._command, self._log, self._ready_url = command, log, ready_url
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it says that it is ready."""
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self._is_ready, f"{self._command[0]} is ready at {self._ready_url}")

    def kill(self) -> None:
        """End it at once, as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it in order."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(PATIENCE_S)
        finally:
            self.kill()

    @property
    def log(self) -> str:
        """What it wrote so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise StackError(f"{self._command[0]} ended with {self._process.returncode}:\n{self.log[-4000:]}")
        try:
            with urllib.request.urlopen(self._ready_url, timeout=2) as answer:
                return answer.status == 200
        except (OSError, urllib.error.HTTPError):
            return False


def substituted(text: str, addresses: Mapping[str, str]) -> str:
    """A configuration with other addresses.

    Raises:
        StackError: One of them is not in it.
    """
    for address, instead in addresses.items():
        found = len(re.findall(re.escape(address), text))
        if not found:
            raise StackError(f"{address!r} is not in the configuration")
        text = text.replace(address, instead)
    return text


class Stack:
    """Collector, Prometheus, and a receiver of spans; `endpoint` is where graphs send to."""

    def __init__(self, binaries: Binaries, directory: Path) -> None:
        self.binaries = binaries
        self._kept = contextlib.ExitStack()
        http, grpc, health, own, prometheus = self._kept.enter_context(kept_ports(5))
        self.endpoint, self.grpc_endpoint = f"http://{HOST}:{http}", f"http://{HOST}:{grpc}"
        self.tempo = GrpcReceiver()
        self.prometheus = Prometheus(f"http://{HOST}:{prometheus}")
        self._directory = directory
        self._to_collector = {
            "0.0.0.0:4317": f"{HOST}:{grpc}",
            "0.0.0.0:4318": f"{HOST}:{http}",
            "0.0.0.0:13133": f"{HOST}:{health}",
            "host: 0.0.0.0, port: 8888": f"host: {HOST}, port: {own}",
            "prometheus:9090": f"{HOST}:{prometheus}",
        }
        self._to_prometheus = {"collector:8888": f"{HOST}:{own}", "localhost:9090": f"{HOST}:{prometheus}"}
        config = directory / "collector.yaml"
        self.collector = Daemon(
            [str(binaries.otelcol), "--config", str(config)], directory / "collector.log", f"http://{HOST}:{health}/"
        )
        self.prometheus_server = Daemon(
            [
                str(binaries.prometheus),
                f"--config.file={directory / 'prometheus/prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address={HOST}:{prometheus}",
                *prometheus_flags(),
            ],
            directory / "prometheus.log",
            f"{self.prometheus.url}/-/ready",
        )

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Let an error of the block have the ends of all logs with it."""
        try:
            yield
        except StackError as error:
            for log in sorted(self._directory.glob("*.log")):
                error.add_note(f"--- {log.name}\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}")
            raise

    def __enter__(self) -> Self:
        self.tempo.start()
        self._write_configurations()
        try:
            self.prometheus_server.start()
            self.collector.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.collector.stop()
        self.prometheus_server.stop()
        self.tempo.stop()
        self._kept.close()

    def _write_configurations(self) -> None:
        addresses = self._to_collector | {"tempo:4317": f"{HOST}:{self.tempo.port}"}
        config = substituted((DEPLOY / "collector/config.yaml").read_text(encoding="utf-8"), addresses)
        (self._directory / "collector.yaml").write_text(config, encoding="utf-8")
        rules = self._directory / "prometheus/rules"
        rules.mkdir(parents=True)
        config = (DEPLOY / "prometheus/prometheus.yml").read_text(encoding="utf-8")
        (rules.parent / "prometheus.yml").write_text(substituted(config, self._to_prometheus), encoding="utf-8")
        for file in (DEPLOY / "prometheus/rules").glob("*.yml"):
            (rules / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")


def prometheus_flags() -> list[str]:
    """What docker-compose.yml starts Prometheus with, but for its files and address."""
    import yaml

    compose = yaml.safe_load((DEPLOY.parent / "docker-compose.yml").read_text(encoding="utf-8"))
    elsewhere = ("--config.file", "--storage.tsdb.path", "--web.listen-address")
    return [flag for flag in compose["services"]["prometheus"]["command"] if not flag.startswith(elsewhere)]
