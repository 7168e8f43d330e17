"""Drawings on the command line: printed, and opened where the user wants to see them."""

from __future__ import annotations

import asyncio
import base64
import json
import zlib

import pytest

from ezmsg.core.command import cmdline
from ezmsg.core.commands import mermaid
from ezmsg.core.commands.mermaid import mermaid_url
from ezmsg.core.graphserver import GraphServer, GraphService


@pytest.fixture
def address(server: GraphServer) -> str:
    """Of a graph with an edge between two units, through a topic."""
    service = GraphService(server.address)
    asyncio.run(service.connect("SYS/GEN/OUT", "SYS/TOPIC"))
    asyncio.run(service.connect("SYS/TOPIC", "SYS/LOG/IN"))
    return str(server.address)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would be opened in a browser."""
    opened: list[str] = []
    monkeypatch.setattr(mermaid.webbrowser, "open", lambda url: opened.append(url) or True)
    return opened


def graph_in(url: str) -> str:
    packed = url.partition("pako:")[2]
    state = json.loads(zlib.decompress(base64.urlsafe_b64decode(packed)))
    assert state["mermaid"] == {"theme": "default"}
    return state["code"]


def test_the_graph_is_printed_and_opened(address: str, opened: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cmdline(["mermaid", "--address", address]) == 0
    output = capsys.readouterr().out
    assert output.startswith("flowchart LR\n")
    assert output.count("-->") == 2
    [url] = opened
    assert url.startswith("https://mermaid.live/edit#pako:")
    assert graph_in(url) == output


def test_a_compact_graph_leaves_topics_out(address: str, opened: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("mermaid", "graphviz"):
        assert cmdline([name, "--address", address, "-c"]) == 0
        output = capsys.readouterr().out
        assert "TOPIC" not in output
        assert "OUT" not in output
        assert output.endswith("}\n" if name == "graphviz" else "\n")
    assert len(opened) == 1


def test_nobody_opens_a_browser_who_does_not_want_one_or_has_no_graph(
    address: str, server: GraphServer, opened: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cmdline(["mermaid", "--address", address, "--nobrowser"]) == 0
    asyncio.run(GraphService(server.address).disconnect("SYS/GEN/OUT", "SYS/TOPIC"))
    asyncio.run(GraphService(server.address).disconnect("SYS/TOPIC", "SYS/LOG/IN"))
    capsys.readouterr()
    assert cmdline(["mermaid", "--address", address]) == 0
    assert capsys.readouterr() == ("", f"the graph at {address} has no edges\n")
    assert opened == []


def test_without_a_browser_the_link_is_told(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mermaid.webbrowser, "open", lambda _url: False)
    assert cmdline(["mermaid", "--address", address, "--target", "play"]) == 0
    assert "https://www.mermaidchart.com/play#pako:" in capsys.readouterr().err


def test_each_target_has_its_link() -> None:
    graph = "flowchart LR\n  a[ä] --> b\n"
    for target in ("ink", "live", "play"):
        assert graph_in(mermaid_url(graph, target)) == graph
    with pytest.raises(ValueError, match="'paper'"):
        mermaid_url(graph, "paper")
