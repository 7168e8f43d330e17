"""Python imports this in every program that tests start: `tests/conftest.py` puts this directory on PYTHONPATH.

Programs that name no address look for a GraphServer at the usual port, where there may be one of a user of this
machine. Those of tests look at TESTS_DEFAULT_PORT, where nobody is.
"""

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

MODULE = "ezmsg.core.config"


class DefaultPort:
    """Finds the module that knows the port, and changes it there; costs nothing where it is not imported."""

    @staticmethod
    def find_spec(name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != MODULE or (spec := PathFinder.find_spec(name, path, target)) is None:
            return None
        loader: Any = spec.loader
        execute = loader.exec_module

        def execute_and_change(module: Any) -> None:
            execute(module)
            module.GRAPHSERVER_PORT_DEFAULT = int(os.environ["TESTS_DEFAULT_PORT"])

        loader.exec_module = execute_and_change
        return spec


if "TESTS_DEFAULT_PORT" in os.environ:
    sys.meta_path.insert(0, DefaultPort)  # type: ignore[arg-type]
