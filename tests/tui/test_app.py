"""The frame of the terminal programs: its command line, its log, and how it ends when it fails."""

from __future__ import annotations

import asyncio
import logging

import pytest
from textual.app import ComposeResult

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphserver import GraphServer
from ezmsg.tui.app import GraphApp, log_aside, main


class Broken(GraphApp):
    """Fails when it is connected."""

    NAME = "broken"

    def compose(self) -> ComposeResult:
        yield self.state_line()

    async def follow(self, context: GraphContext) -> None:
        raise ZeroDivisionError("a mistake of ours")

    def draw(self) -> None:
        pass


def test_an_address_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(Broken, ["--address", "nowhere"])
    assert "nowhere" in capsys.readouterr().err


def test_without_a_terminal_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(Broken, ["--address", "127.0.0.1:1"]) == 1
    assert capsys.readouterr().err == "broken: standard input and output must be a terminal\n"


def test_the_log_stays_off_the_screen_while_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger("ezmsg").handlers[:]
    with log_aside():
        logging.getLogger("ezmsg").warning("lost the server")
    assert logging.getLogger("ezmsg").handlers == before
    assert capsys.readouterr() == ("", "")


async def test_a_mistake_in_a_program_ends_it_with_a_word() -> None:
    server = GraphServer()
    server.start("127.0.0.1:0")
    app = Broken(server.address)
    async with app.run_test(size=(80, 24)), asyncio.timeout(30):
        while app.return_code is None:
            await asyncio.sleep(0.01)
    assert app.return_code == 1
    server.stop()


async def test_without_a_server_it_waits_for_one() -> None:
    app = Broken("127.0.0.1:1")
    async with app.run_test(size=(80, 24)), asyncio.timeout(30):
        while app.trouble != "no GraphServer answers: waiting for one (ezmsg start)":
            await asyncio.sleep(0.01)
