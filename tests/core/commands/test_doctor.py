"""The doctor: what it says, to people and to programs, and its exit code."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ezmsg.core.command import cmdline
from ezmsg.core.commands import doctor
from ezmsg.core.commands.checks.finding import Finding
from ezmsg.core.commands.doctor import as_table
from ezmsg.core.graphserver import GraphServer


def diagnosed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = cmdline(["doctor", "--json", *arguments])
    output, errors = capsys.readouterr()
    assert errors == ""
    return code, json.loads(output)


def of(report: dict[str, Any], topic: str, name: str) -> dict[str, Any]:
    [finding] = [found for found in report["findings"] if (found["topic"], found["name"]) == (topic, name)]
    return finding


def test_a_server_that_answers_is_fine_and_told_of(server: GraphServer, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = diagnosed(capsys, "--address", str(server.address))
    # Other programs of this host may be stopped, which the doctor tells as well.
    assert {found["topic"] for found in report["findings"] if found["state"] == "problem"} <= {"stale"}
    assert code == int(not report["ok"])
    assert of(report, "server", "address")["facts"]["reachable"] is True
    assert of(report, "server", "holds")["facts"]["sessions"] == 0
    assert of(report, "clocks", "server")["state"] == "ok"
    assert of(report, "key", "source")["facts"]["mode"] == "600"
    assert {"server", "key", "limits", "environment", "clocks", "stale"} == {f["topic"] for f in report["findings"]}


def test_a_server_that_is_not_there_is_a_problem(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EZMSG_GRAPHSERVER_ADDR", "127.0.0.1:1")
    code, report = diagnosed(capsys)
    assert (code, report["ok"]) == (1, False)
    found = of(report, "server", "address")
    assert (found["state"], found["facts"]["named_by"]) == ("problem", "EZMSG_GRAPHSERVER_ADDR")
    assert found["remedy"].startswith("ezmsg start starts one")


def test_an_address_that_is_none_is_told_of_with_all_the_rest(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EZMSG_GRAPHSERVER_ADDR", "nowhere")
    code, report = diagnosed(capsys)
    assert code == 1
    text = of(report, "server", "address")["text"]
    assert text == "EZMSG_GRAPHSERVER_ADDR='nowhere' cannot be used: expected host:port"
    assert of(report, "limits", "open files")


def test_a_check_that_fails_is_a_finding_and_the_others_are_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError("no such thing")

    monkeypatch.setattr(doctor, "look_at_key", fail)
    code, report = diagnosed(capsys, "--address", "127.0.0.1:1")
    assert code == 1
    assert of(report, "key", "check")["text"] == "could not be done: OSError: no such thing"
    assert of(report, "clocks", "source")


def test_people_get_a_table_with_remedies_below() -> None:
    table = as_table(
        [
            Finding("server", "address", "problem", "nobody answers there", "ezmsg start starts one"),
            Finding("server", "version", "ok", "3"),
            Finding("limits", "open files", "warning", "word " * 12, "ulimit -n 4096"),
        ],
        columns=60,
    )
    assert table.splitlines() == [
        "server",
        "  PROBLEM  address          nobody answers there",
        "                            → ezmsg start starts one",
        "  ok       version          3",
        "",
        "limits",
        "  WARNING  open files       word word word word word word",
        "                            word word word word word word",
        "                            → ulimit -n 4096",
        "",
        "Found 1 problem and 1 warning.",
    ]
    assert as_table([Finding("server", "address", "ok", "there")], 80).endswith("Nothing is wrong.")


def test_the_table_is_what_is_printed(server: GraphServer, capsys: pytest.CaptureFixture[str]) -> None:
    cmdline(["doctor", "--address", str(server.address)])
    output = capsys.readouterr().out
    assert output.startswith(f"server\n  ok       address          {server.address} (--address) answers after")
