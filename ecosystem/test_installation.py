"""The published packages install on top of this one, and leave it as it is."""

from __future__ import annotations

import base64
import hashlib
import importlib
import subprocess
import sys
from importlib.metadata import distribution, requires, version
from pathlib import Path

import pytest

PLUGINS = [
    line.partition("==")[::2]
    for line in (Path(__file__).parent / "requirements.txt").read_text().splitlines()
    if line.startswith("ezmsg-")
]


def test_nothing_is_missing_or_contradicts() -> None:
    check = [sys.executable, "-m", "pip", "--disable-pip-version-check", "check"]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "No broken requirements found.\n")


def test_the_versions_are_those_that_are_wanted() -> None:
    assert len(PLUGINS) == 10
    assert {name: version(name) for name, _ in PLUGINS} == dict(PLUGINS)


def test_this_distribution_was_not_replaced() -> None:
    ours = distribution("ezmsg")
    assert ours.version.startswith("3.9.0+otel.")
    assert "file://" in (ours.read_text("direct_url.json") or "")  # not from the index
    files = [file for file in ours.files or [] if file.hash is not None]
    assert len(files) > 200
    for file in files:
        assert file.hash is not None
        found = base64.urlsafe_b64encode(hashlib.new(file.hash.mode, file.read_binary()).digest()).decode()
        assert found.rstrip("=") == file.hash.value, f"{file} is not the one of the wheel"


@pytest.mark.parametrize("name", [name for name, _ in PLUGINS])
def test_it_asks_for_ezmsg_and_can_be_imported(name: str) -> None:
    assert any(line.startswith("ezmsg") for line in requires(name) or [])
    importlib.import_module(name.replace("-", "."))
