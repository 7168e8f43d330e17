"""How much of a proof a test gives: a part in the suite, all of it with `make proofs`."""

from __future__ import annotations

import os

IS_WHOLE = os.environ.get("PROOFS") == "whole"


def size(part: int, whole: int) -> int:
    """How many to prove something with."""
    return whole if IS_WHOLE else part
