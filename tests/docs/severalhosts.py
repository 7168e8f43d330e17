"""Follows the how-to about several hosts, on two network namespaces with the names and addresses of the page."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from tests.core.messages.twohosts import TwoHosts
from tests.docs.blocks import PATIENCE_S, REPOSITORY, blocks_of

PAGE = REPOSITORY / "docs/howto/several-hosts.md"
ADDRESSES = {"alpha": "192.168.1.10", "beta": "192.168.1.11"}
SEND = """
        while True:
            await publisher.broadcast("a sample")
            await asyncio.sleep(0.01)
"""
RECEIVE = """
async with ez.GraphContext() as graph:
    subscriber = await graph.subscriber("EEG")
    print("got", await subscriber.recv())
"""
PROGRAM = "import asyncio\nimport ezmsg.core as ez\n\nasync def main():\n{body}\nasyncio.run(main())\n"


def follow(directory: Path) -> str:
    """Do what the page says; returns what a subscriber on one host prints of what the other one publishes."""
    text = PAGE.read_text(encoding="utf-8")
    key, certificates, variables, serve, publish = (
        block.code for block in blocks_of(text) if block.language in ("sh", "python")
    )
    for commands in (key, certificates):
        subprocess.run(["sh", "-ec", commands], cwd=directory, check=True, capture_output=True)
    (directory / "send.py").write_text(PROGRAM.format(body=textwrap.indent(publish, "    ").rstrip() + SEND))
    (directory / "receive.py").write_text(PROGRAM.format(body=textwrap.indent(RECEIVE, "    ")))
    hosts = TwoHosts(ADDRESSES)
    try:
        hosts.open()

        def command(host: str, what: str) -> list[str]:
            own = variables.replace("/etc/ezmsg", str(directory))
            own = own.replace("alpha.pem", f"{host}.pem").replace("alpha-key", f"{host}-key")
            return hosts.command(host, "sh", "-ec", f"{own}\n{what}")

        with _running(command("alpha", serve), directory) as server:
            assert server.stdout
            assert server.stdout.readline().startswith(f"GraphServer at {ADDRESSES['alpha']}:25978")
            with _running(command("beta", f"{sys.executable} send.py"), directory):
                receiving = command("alpha", f"{sys.executable} receive.py")
                done = subprocess.run(
                    receiving, cwd=directory, env=_environment(), capture_output=True, text=True, timeout=PATIENCE_S
                )
                assert done.returncode == 0, done.stderr
                return done.stdout
    finally:
        hosts.close()


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@contextlib.contextmanager
def _running(command: list[str], directory: Path) -> Iterator[subprocess.Popen[str]]:
    """A program until it gets Ctrl-C."""
    with subprocess.Popen(
        command, cwd=directory, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        start_new_session=True,
    ) as program:  # fmt: skip
        try:
            yield program
        finally:
            os.killpg(program.pid, signal.SIGINT)
            program.communicate(timeout=PATIENCE_S)
