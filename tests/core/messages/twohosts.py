"""Two hosts on one cable: network namespaces of this machine, and a pair of interfaces between them."""

from __future__ import annotations

import os
import subprocess

import pytest

ADDRESSES = {"a": "192.0.2.1", "b": "192.0.2.2"}
NEEDED = "this test makes two hosts of network namespaces"


class TwoHosts:
    """Hosts `a` and `b`."""

    def __init__(self) -> None:
        self._names = {host: f"ezmsg-{os.getpid()}-{host}" for host in ADDRESSES}

    def open(self) -> None:
        for name in self._names.values():
            ip("netns", "add", name)
        a, b = self._names.values()
        ip("link", "add", "eth0", "netns", a, "type", "veth", "peer", "name", "eth0", "netns", b)
        for host, name in self._names.items():
            ip("-n", name, "address", "add", f"{ADDRESSES[host]}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "eth0", "up")

    def close(self) -> None:
        for name in self._names.values():
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)

    def cut(self) -> None:
        """Pull the plug at host `a`."""
        ip("-n", self._names["a"], "link", "set", "eth0", "down")

    def heal(self) -> None:
        ip("-n", self._names["a"], "link", "set", "eth0", "up")

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
