"""`ezmsg perf`: from `ezmsg.util.perf`, or a command that says that it is not there."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ezmsg.core.commands.common import Subparsers

PERF_MODULE = "ezmsg.util.perf"


def setup_perf_cmdline(subparsers: Subparsers) -> None:
    """Add the command. The module is to offer `setup_perf_cmdline(subparsers)`."""
    try:
        module: Any = importlib.import_module(PERF_MODULE)
        module.setup_perf_cmdline(subparsers)
    except Exception as error:  # whatever it lacks, other commands do not
        reason = f"{type(error).__name__}: {error}"

        def say_what_is_missing(args: argparse.Namespace) -> int:
            print(f"ezmsg perf: it needs {PERF_MODULE}, which cannot be imported ({reason})", file=sys.stderr)
            return 1

        parser = subparsers.add_parser("perf", help=f"measure (needs {PERF_MODULE})", prefix_chars="\0", add_help=False)
        parser.add_argument("arguments", nargs="*")
        parser.set_defaults(_handler=say_what_is_missing)
