"""The dashboard: found where it is installed, and missed politely where it is not."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from ezmsg.core.command import build_parser, cmdline
from ezmsg.core.commands.dashboard import (
    DASHBOARD_ADDR_ENV,
    DASHBOARD_INSTALL_HINT,
    DASHBOARD_PORT_DEFAULT,
    DashboardDependencyError,
    dashboard_address,
    require_dashboard_dependency,
)
from ezmsg.core.graphserver import GraphService
from tests.core.commands.conftest import Command, wait_until_gone

# As the real package is laid out, beside ours in the namespace.
PACKAGE = """
def setup_dashboard_cmdline(subparsers):
    parser = subparsers.add_parser("dashboard")
    parser.add_argument("--graph-address")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.set_defaults(_handler=handle)

def handle(args):
    import time
    print("dashboard", args.graph_address, args.host, args.port, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def package(tmp_path: Path) -> str:
    """A path to import a dashboard from."""
    directory = tmp_path / "ezmsg" / "dashboard"
    directory.mkdir(parents=True)
    (directory / "__init__.py").write_text("")
    (directory / "server.py").write_text(PACKAGE)
    return str(tmp_path)


def test_it_listens_beside_the_graph_where_nothing_else_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert DASHBOARD_PORT_DEFAULT == 25979
    assert dashboard_address() == ("127.0.0.1", GraphService.default_address().port + 1)
    assert dashboard_address(("h", 10)) == ("h", 11)
    assert dashboard_address("h:10", True) == ("h", 11)
    assert dashboard_address("h:10", 8000) == ("h", 8000)
    monkeypatch.setenv(DASHBOARD_ADDR_ENV, "d:1")
    assert dashboard_address("h:10") == ("d", 1)
    assert dashboard_address("h:10", 8000) == ("d", 8000)


def test_without_the_package_the_command_only_tells_how_to_install_it(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RuntimeError, match="pip install ezmsg-dashboard") as error:
        require_dashboard_dependency()
    assert isinstance(error.value, DashboardDependencyError)
    with caplog.at_level(logging.WARNING, "ezmsg"):
        assert cmdline(["dashboard", "--port", "1"]) == 1
    assert DASHBOARD_INSTALL_HINT in caplog.text


def test_a_package_that_cannot_be_imported_breaks_no_other_command(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "ezmsg.dashboard.server", None)
    assert build_parser().parse_args(["serve"]).command == "serve"
    assert cmdline(["dashboard"]) == 1
    assert "ezmsg.dashboard.server" in caplog.text


def test_with_the_package_the_command_is_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def setup(subparsers: Any) -> None:
        subparsers.add_parser("dashboard").set_defaults(_handler=lambda _args: 7)

    module = ModuleType("ezmsg.dashboard.server")
    module.setup_dashboard_cmdline = setup  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ezmsg.dashboard", ModuleType("ezmsg.dashboard"))
    monkeypatch.setitem(sys.modules, "ezmsg.dashboard.server", module)
    assert cmdline(["dashboard"]) == 7
    assert isinstance(build_parser(), argparse.ArgumentParser)


def test_a_dashboard_beside_a_server_ends_with_it(command: Command, free_address: str, package: str) -> None:
    serving = command("serve", "--address", free_address, "--dashboard", "1", PYTHONPATH=package)
    assert serving.line() == "Dashboard at http://127.0.0.1:1\n"
    assert {serving.line().split()[0] for _ in range(2)} == {"GraphServer", "dashboard"}
    [dashboard] = psutil.Process(serving.process.pid).children()
    serving.signal(signal.SIGTERM)
    assert serving.ended() == (0, "", "")
    wait_until_gone(dashboard.pid)
