"""What the doctor says of the key, without ever saying the key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ezmsg.core.commands.checks.finding import Finding
from ezmsg.core.commands.checks.key import look_at_key
from tests.certificates import LONG_AGO, LONG_AGO_TOO, Authority, use


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the key file is said to be."""
    path = tmp_path / "authkey"
    monkeypatch.setenv("EZMSG_AUTHKEY_FILE", str(path))
    return path


def test_a_key_that_is_not_made_yet_is_not_made_by_looking(path: Path) -> None:
    [finding, _] = look_at_key()
    assert (finding.state, finding.facts) == (
        "info", {"variable": "EZMSG_AUTHKEY_FILE", "path": str(path), "exists": False},
    )  # fmt: skip
    assert not path.exists()


def test_a_key_file_that_only_we_can_read_is_fine(path: Path) -> None:
    path.write_text("secret key of this test")
    path.chmod(0o600)
    [finding, _] = look_at_key()
    assert finding.state == "ok"
    assert finding.facts["mode"] == "600"
    assert "secret" not in str(finding)


def test_a_key_file_that_others_can_read_is_a_problem(path: Path) -> None:
    path.write_text("secret key of this test")
    path.chmod(0o644)
    [finding, _] = look_at_key()
    assert finding.state == "problem"
    assert "others can read it" in finding.text
    assert "chmod 600" in finding.remedy


def test_the_default_file_is_said_to_be_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EZMSG_AUTHKEY_FILE")
    monkeypatch.setenv("HOME", str(tmp_path))
    [finding, _] = look_at_key()
    assert f"{tmp_path}/.config/ezmsg/authkey (the default)" in finding.text


@pytest.mark.parametrize(("secret", "state"), [("hunter2", "warning"), ("a long and random secret", "ok")])
def test_a_key_in_the_environment_is_measured_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, secret: str, state: str
) -> None:
    monkeypatch.setenv("EZMSG_AUTHKEY", secret)
    [finding, _] = look_at_key()
    assert (finding.state, finding.facts) == (state, {"variable": "EZMSG_AUTHKEY", "characters": len(secret)})
    assert secret not in str(finding)


def test_what_a_killed_maker_left_can_be_removed(path: Path) -> None:
    left = path.with_name(".authkey.123.abc")
    left.write_text("")
    os.utime(left, (0, 0))
    path.with_name(".authkey.124.def").write_text("")  # somebody makes it just now
    [_, finding, _] = look_at_key()
    assert finding.remedy == f"rm {left}"


# -- TLS --------------------------------------------------------------------------------------------------------------


def tls() -> Finding:
    return look_at_key()[-1]


def test_without_tls_that_is_said(path: Path) -> None:
    assert (tls().state, tls().facts) == ("info", {"is_on": False})


def test_with_a_certificate_that_peers_accept_tls_is_fine(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Authority(tmp_path).issue("alpha")
    use(files, monkeypatch)
    assert (tls().state, tls().facts["certificate"]) == ("ok", str(files.cert))


def test_a_certificate_that_peers_refuse_is_a_problem(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(Authority(tmp_path).issue("alpha", not_before=LONG_AGO, not_after=LONG_AGO_TOO), monkeypatch)
    assert tls().state == "problem"
    assert "has expired" in tls().text


def test_half_of_what_tls_needs_is_a_problem(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(Authority(tmp_path).issue("alpha"), monkeypatch)
    monkeypatch.delenv("EZMSG_TLS_CA")
    assert tls().state == "problem"
    assert "EZMSG_TLS_CA is not set" in tls().text
