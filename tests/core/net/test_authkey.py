"""Where the key comes from, who may read it, and who wins when all are first."""

import hashlib
import os
import pwd
import stat
from pathlib import Path
from typing import NoReturn

import pytest

from ezmsg.core.errors import AuthKeyError
from ezmsg.core.net import authkey
from ezmsg.core.net.authkey import AuthKey, default_key_file, inherit_key, load_key


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("EZMSG_AUTHKEY", "EZMSG_AUTHKEY_FILE", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


NOBODY = 65534


def private_file(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_a_key_given_in_the_environment_is_explicit(monkeypatch) -> None:
    monkeypatch.setenv("EZMSG_AUTHKEY", "secret")
    monkeypatch.setenv("EZMSG_AUTHKEY_FILE", "/nonexistent")
    assert load_key() == AuthKey(hashlib.sha256(b"ezmsg key\0secret").digest(), True)


def test_a_key_file_given_in_the_environment_is_explicit_and_the_same_secret(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("EZMSG_AUTHKEY_FILE", str(private_file(tmp_path / "key", "secret\n")))
    assert load_key() == AuthKey(hashlib.sha256(b"ezmsg key\0secret").digest(), True)


def test_without_a_key_one_is_made_that_only_the_user_can_read(home) -> None:
    umask = os.umask(0)
    try:
        key = load_key()
    finally:
        os.umask(umask)
    path = home / ".config" / "ezmsg" / "authkey"
    assert not key.explicit
    assert load_key() == key
    assert len(key.secret) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert len(path.read_text().strip()) == 64
    assert os.listdir(path.parent) == ["authkey"]


def test_two_homes_have_two_keys(monkeypatch, tmp_path) -> None:
    key = load_key()
    monkeypatch.setenv("HOME", str(tmp_path / "other"))
    assert load_key().secret != key.secret


def test_the_configuration_directory_is_respected_if_it_is_one(monkeypatch, tmp_path, home) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    assert default_key_file() == tmp_path / "xdg" / "ezmsg" / "authkey"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert default_key_file() == home / ".config" / "ezmsg" / "authkey"


def test_without_home_the_password_database_knows(monkeypatch) -> None:
    monkeypatch.delenv("HOME")
    assert default_key_file() == Path(pwd.getpwuid(os.geteuid()).pw_dir, ".config", "ezmsg", "authkey")


def test_a_user_without_any_home_is_told_what_to_set(monkeypatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    with pytest.raises(AuthKeyError, match=r"user 4000000 has no home\. Set EZMSG_AUTHKEY_FILE"):
        load_key()


# -- files that cannot be used ----------------------------------------------------------------------------------------


def refused(path: Path, reason: str) -> None:
    with pytest.raises(AuthKeyError, match=reason) as error:
        load_key()
    assert str(path) in str(error.value)
    assert "Set EZMSG_AUTHKEY_FILE to a file only you can read, or EZMSG_AUTHKEY to the key itself" in str(error.value)
    assert isinstance(error.value, OSError)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_that_others_can_reach_is_refused(home, mode) -> None:
    load_key()
    path = default_key_file()
    path.chmod(mode)
    refused(path, f"others can read it \\(mode {mode:o}\\): run chmod 600 on it")


def test_a_key_of_another_user_is_refused(monkeypatch) -> None:
    load_key()
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)
    refused(default_key_file(), f"it belongs to user {user}, this process runs as 4000000")


@pytest.mark.parametrize(("text", "reason"), [("", "it is empty"), (" \n", "it is empty"), ("x" * 5000, "larger than")])
def test_a_file_that_holds_no_key_is_refused(text, reason) -> None:
    load_key()
    refused(private_file(default_key_file(), text), reason)


def test_a_directory_or_a_pipe_is_refused(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("EZMSG_AUTHKEY_FILE", str(tmp_path))
    refused(tmp_path, "it is no regular file")
    os.mkfifo(tmp_path / "pipe", 0o600)
    monkeypatch.setenv("EZMSG_AUTHKEY_FILE", str(tmp_path / "pipe"))
    refused(tmp_path / "pipe", "it is no regular file")


def test_a_home_that_is_no_directory_is_refused(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(private_file(tmp_path / "file", "")))
    refused(default_key_file(), "Not a directory")


def test_a_home_that_cannot_be_written_is_refused(home) -> None:
    home.chmod(0o500)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)  # root writes everywhere
    try:
        refused(default_key_file(), "Permission denied")
    finally:
        os.seteuid(user)
        home.chmod(0o700)


def test_a_home_that_refuses_the_new_file_is_named(monkeypatch) -> None:
    def refuse(*args) -> int:
        raise PermissionError(13, "Permission denied")

    default_key_file().parent.mkdir(parents=True)
    monkeypatch.setattr(authkey, "_make", refuse)
    refused(default_key_file(), "Permission denied")


# -- who is first -----------------------------------------------------------------------------------------------------


def race(start: int, result: int) -> NoReturn:
    """One of many processes: wait for the signal, which is the end of a pipe, then tell which key it found."""
    try:
        os.read(start, 1)
        os.write(result, load_key().secret.hex().encode() + b"\n")
    finally:
        os._exit(0)


def test_all_processes_that_start_together_find_the_same_key() -> None:
    start, go = os.pipe()
    result, result_in = os.pipe()
    racers = []
    for _ in range(16):
        if pid := os.fork():
            racers.append(pid)
        else:
            os.close(go)
            race(start, result_in)
    os.close(start)
    os.close(result_in)
    os.close(go)
    for pid in racers:
        os.waitpid(pid, 0)
    with open(result) as told:
        keys = told.read().split()
    assert keys == [load_key().secret.hex()] * 16
    assert os.listdir(default_key_file().parent) == ["authkey"]


def test_who_loses_the_race_takes_the_key_of_the_winner(monkeypatch) -> None:
    winner = load_key()
    authkey._make(default_key_file())
    assert load_key() == winner


def test_a_file_system_without_links_will_do(monkeypatch) -> None:
    def refuse(*args) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    key = load_key()
    authkey._make(default_key_file())
    assert load_key() == key
    assert os.listdir(default_key_file().parent) == ["authkey"]


def test_an_inherited_key_wins(monkeypatch) -> None:
    key = AuthKey(b"i" * 32, True)
    inherit_key(key)
    try:
        monkeypatch.setenv("EZMSG_AUTHKEY", "secret")
        assert load_key() is key
    finally:
        inherit_key(None)


def test_a_key_does_not_show_itself() -> None:
    assert repr(AuthKey(b"i" * 32, True)) == "AuthKey(<secret>, explicit=True)"
    assert "iii" not in f"{AuthKey(b'i' * 32, True)} {(AuthKey(b'i' * 32, True),)}"
