"""What the processes of a measurement need for TLS: a certificate of a CA of its own, which is forgotten afterwards."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import trustme


@functools.cache
def variables() -> dict[str, str]:
    """The variables of a process that uses TLS; the files are there as long as this program runs."""
    directory = Path(tempfile.mkdtemp(prefix="ezmsg-bench-tls-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
    issued = ca.issue_cert("bench.example", key_type=trustme.KeyType.ECDSA)
    files = {name: directory / f"{name.lower()}.pem" for name in ("EZMSG_TLS_CERT", "EZMSG_TLS_KEY", "EZMSG_TLS_CA")}
    issued.cert_chain_pems[0].write_to_path(files["EZMSG_TLS_CERT"])
    issued.private_key_pem.write_to_path(files["EZMSG_TLS_KEY"])
    ca.cert_pem.write_to_path(files["EZMSG_TLS_CA"])
    return {name: str(path) for name, path in files.items()}
