"""Certificates for tests: a CA, and files of what it issues."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from ezmsg.core.config import TLS_VARIABLES, TlsFiles

LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)
LONG_AGO_TOO = datetime(2002, 1, 1, tzinfo=UTC)
FAR_AHEAD = datetime(2035, 1, 1, tzinfo=UTC)


class Authority:
    """A CA that writes what it issues into a directory."""

    def __init__(self, directory: Path, name: str = "ca", parent: Authority | None = None) -> None:
        self.directory = directory
        self._ca = parent._ca.create_child_ca() if parent else trustme.CA()
        self._numbers = itertools.count()
        self.ca = directory / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.ca)

    def issue(self, *names: str, ca: Path | None = None, **options: Any) -> TlsFiles:
        """Files of a process that has a certificate for these hosts; it trusts us, or another `ca`."""
        issued = self._ca.issue_cert(*names, **options)
        stem = f"{self.ca.stem}-{next(self._numbers)}"
        files = TlsFiles(self.directory / f"{stem}-cert.pem", self.directory / f"{stem}-key.pem", ca or self.ca)
        for index, pem in enumerate(issued.cert_chain_pems):
            pem.write_to_path(files.cert, append=index > 0)
        issued.private_key_pem.write_to_path(files.key)
        return files


def variables(files: TlsFiles) -> dict[str, str]:
    """What a process has in its environment to use them."""
    return dict(zip(TLS_VARIABLES, map(str, files), strict=True))


def use(files: TlsFiles | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use these from now on in this process; None for no TLS."""
    for name in TLS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    if files is not None:
        for name, value in variables(files).items():
            monkeypatch.setenv(name, value)
