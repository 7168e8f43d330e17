"""The commands of the how-to make certificates that work."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ezmsg.core.config import TlsFiles
from ezmsg.core.errors import CertificateNameMismatch
from ezmsg.core.net.tls import load_credentials
from ezmsg.core.net.tlshandshake import ClientTls, ServerTls

HOWTO = Path(__file__).parents[2] / "docs/howto/several-hosts.md"


def commands() -> str:
    marked = re.search(r"<!-- executed by .*?-->\n```sh\n(.*?)```", HOWTO.read_text(), re.DOTALL)
    assert marked
    return marked[1]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
def test_certificates_made_as_told_let_hosts_talk(tmp_path: Path) -> None:
    subprocess.run(["sh", "-e"], input=commands(), text=True, cwd=tmp_path, check=True, capture_output=True)
    alpha, beta = (
        load_credentials(TlsFiles(tmp_path / f"{host}.pem", tmp_path / f"{host}-key.pem", tmp_path / "ca.pem"))
        for host in ("alpha", "beta")
    )
    for dialled in ("alpha", "192.168.1.10"):
        client, server = ClientTls(beta, dialled, dialled), ServerTls(alpha, "beta")
        answer = client.receive(server.receive(client.hello[:12]) + server.receive(client.hello[12:]))
        server.receive(answer)
        assert client.done
        assert server.done
        assert client.binding == server.binding
    client, server = ClientTls(beta, "gamma", "gamma"), ServerTls(alpha, "beta")
    with pytest.raises(CertificateNameMismatch):
        client.receive(server.receive(client.hello[:12]) + server.receive(client.hello[12:]))
