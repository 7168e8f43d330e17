"""What holds in a forked child."""

import os
from collections.abc import Callable


def in_child(check: Callable[[], bool]) -> bool:
    """Whether this holds in a forked child."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if check() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
