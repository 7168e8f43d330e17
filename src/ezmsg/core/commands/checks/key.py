"""Which key this process would use, where it comes from, and whether others can read it. Never its bytes."""

from __future__ import annotations

import stat
import time
from pathlib import Path

from ezmsg.core.commands.checks.finding import Finding
from ezmsg.core.errors import AuthKeyError
from ezmsg.core.net.authkey import KeySource, key_source, load_key

TOPIC = "key"
SHORT_KEY = 16
# A process that makes the key file needs its temporary file for a moment only.
LEFT_OVER_S = 60.0


def look_at_key() -> list[Finding]:
    """The key, and what is left of attempts to make one."""
    try:
        source = key_source()
    except AuthKeyError as error:
        return [Finding(TOPIC, "source", "problem", str(error), "set EZMSG_AUTHKEY_FILE")]
    if source.path is None:
        return [_of_variable(source)]
    return [_of_file(source, source.path), *_left_over(source.path.parent, source.path.name)]


def _of_variable(source: KeySource) -> Finding:
    facts = {"variable": source.variable, "characters": source.characters}
    text = f"the value of {source.variable}, {source.characters} characters"
    if source.characters >= SHORT_KEY:
        return Finding(TOPIC, "source", "ok", text, facts=facts)
    return Finding(
        TOPIC, "source", "warning", f"{text}: short enough to be guessed",
        "take 32 random characters: openssl rand -hex 16", facts,
    )  # fmt: skip


def _of_file(source: KeySource, path: Path) -> Finding:
    named_by = source.variable or "the default"
    facts: dict[str, object] = {"variable": source.variable, "path": str(path), "exists": path.exists()}
    if not path.exists():
        return Finding(TOPIC, "source", "info", f"{path} ({named_by}), made when it is first needed", facts=facts)
    try:
        load_key()
        facts["mode"] = f"{stat.S_IMODE(path.stat().st_mode):o}"
    except OSError as error:
        reason = error.reason if isinstance(error, AuthKeyError) else str(error)
        remedy = f"make {path} a file that only this user can read (chmod 600), or set EZMSG_AUTHKEY_FILE"
        return Finding(TOPIC, "source", "problem", f"{path} ({named_by}) cannot be used: {reason}", remedy, facts)
    return Finding(TOPIC, "source", "ok", f"{path} ({named_by}), mode {facts['mode']}", facts=facts)


def _left_over(directory: Path, name: str) -> list[Finding]:
    found: list[str] = []
    for path in directory.glob(f".{name}.*"):
        try:
            if time.time() - path.stat().st_mtime > LEFT_OVER_S:
                found.append(str(path))
        except OSError:
            continue
    if not found:
        return []
    text = f"left by a process that was killed while it made the key: {', '.join(found)}"
    return [Finding(TOPIC, "left over", "warning", text, f"rm {' '.join(found)}", {"paths": found})]
