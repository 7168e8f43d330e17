"""Two hosts on one cable: network namespaces of this machine, and a pair of interfaces between them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ADDRESSES = {"a": "192.0.2.1", "b": "192.0.2.2"}
NEEDED = "this test makes two hosts of network namespaces"
NETNS = Path("/etc/netns")


class TwoHosts:
    """Two hosts, by default `a` and `b`, which know each other by name."""

    def __init__(self, addresses: Mapping[str, str] = ADDRESSES) -> None:
        self._addresses = addresses
        self._names = {host: f"ezmsg-{os.getpid()}-{host}" for host in addresses}

    def open(self) -> None:
        for name in self._names.values():
            # Where `ip netns exec` looks for the files of a host.
            directory = NETNS / name
            directory.mkdir(parents=True)
            known = {"localhost": "127.0.0.1", **self._addresses}
            (directory / "hosts").write_text("".join(f"{address} {host}\n" for host, address in known.items()))
        for name in self._names.values():
            ip("netns", "add", name)
        a, b = self._names.values()
        ip("link", "add", "eth0", "netns", a, "type", "veth", "peer", "name", "eth0", "netns", b)
        for host, name in self._names.items():
            ip("-n", name, "address", "add", f"{self._addresses[host]}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "eth0", "up")

    def close(self) -> None:
        for name in self._names.values():
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
            shutil.rmtree(NETNS / name, ignore_errors=True)

    def cut(self) -> None:
        """Pull the plug at the first host."""
        ip("-n", self._first, "link", "set", "eth0", "down")

    def heal(self) -> None:
        ip("-n", self._first, "link", "set", "eth0", "up")

    @property
    def _first(self) -> str:
        return next(iter(self._names.values()))

    def command(self, host: str, *command: object) -> list[str]:
        """What runs a command on a host."""
        return ["ip", "netns", "exec", self._names[host], *map(str, command)]


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(
            f"{NEEDED}, and `ip {' '.join(arguments)}` says: {done.stderr.strip()}. It takes root, or the capabilities "
            "SYS_ADMIN and NET_ADMIN (docker: --privileged)",
            pytrace=False,
        )
