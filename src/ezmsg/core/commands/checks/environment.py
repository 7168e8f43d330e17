"""Which settings of the environment are in force here, which of them cannot be used, and which mean nothing."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable
from contextlib import suppress
from types import FunctionType
from typing import Any, cast

from ezmsg.core import config
from ezmsg.core.commands.checks.finding import Finding
from ezmsg.core.errors import ConfigError, EzmsgError

TOPIC = "environment"
# Read at import by `ezmsg.core` and `ezmsg.util`, or by packages that build on them.
READ_ELSEWHERE = frozenset({
    "EZMSG_LOGLEVEL", "EZMSG_PROFILER", "EZMSG_DISABLE_FAST_REPLACE", "EZMSG_PROFILE", "EZMSG_DEFAULT_HOST",
    "EZMSG_DISABLE_AXIS_ELISION", "EZMSG_SIGPROC_FINGERPRINT_STATS",
})  # fmt: skip
_SECRET = re.compile(r"AUTHKEY$|HEADERS|PASSWORD|TOKEN|SECRET")
_USERINFO = re.compile(r"(?<=//)[^/@\s]*@")


def look_at_environment() -> list[Finding]:
    """One finding for each variable that is set."""
    unusable, known = _unusable(), known_variables()
    findings = [_of(name, value, unusable.get(name), known) for name, value in config.variables().items()]
    return findings or [Finding(TOPIC, "settings", "ok", "no EZMSG_* or OTEL_* variable is set: defaults hold")]


def _of(name: str, value: str, error: ConfigError | None, known: frozenset[str]) -> Finding:
    shown = shown_value(name, value)
    facts = {"variable": name, "value": shown}
    if error is not None:
        return Finding(TOPIC, name, "problem", f"{shown} cannot be used", f"expected {error.expected}", facts)
    if name in known or name.startswith("OTEL_"):
        return Finding(TOPIC, name, "info", shown, facts=facts)
    meant = difflib.get_close_matches(name, known, 1)
    remedy = f"did you mean {meant[0]}?" if meant else "another version or another package may read it"
    return Finding(TOPIC, name, "warning", f"{shown}, but nothing here reads this variable", remedy, facts)


def shown_value(name: str, value: str) -> str:
    """A value for people: secrets are not shown."""
    return "(not shown)" if _SECRET.search(name) else _USERINFO.sub("***@", value)


def known_variables() -> frozenset[str]:
    """Every `EZMSG_*` variable that is read: the names that the functions of `config` mention."""
    texts = _texts(vars(config).values())
    for function in _functions():
        texts += _texts(function.__code__.co_consts)
    return READ_ELSEWHERE | {text for text in texts if text.startswith("EZMSG_")}


def _unusable() -> dict[str, ConfigError]:
    """What is set to something that cannot be used. Each function of `config` without arguments answers a question."""
    found: dict[str, ConfigError] = {}
    for function in _functions():
        if inspect.signature(function).parameters:
            continue
        # Others are told of by the check of what they are about.
        with suppress(EzmsgError, RuntimeError):
            try:
                function()
            except ConfigError as error:
                found[error.name] = error
    return found


def _functions() -> list[FunctionType]:
    return [value for value in vars(config).values() if isinstance(value, FunctionType)]


def _texts(constants: Iterable[Any]) -> list[str]:
    """The texts among constants, also within tuples."""
    found: list[str] = []
    for constant in constants:
        if isinstance(constant, str):
            found.append(constant)
        elif isinstance(constant, tuple):
            found += _texts(cast("tuple[Any, ...]", constant))
    return found
