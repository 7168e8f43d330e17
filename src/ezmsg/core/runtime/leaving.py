"""How the calling thread leaves a run that has ended."""

from __future__ import annotations

import logging

from ezmsg.core.runtime.coordinator import Outcome
from ezmsg.core.runtime.signals import die_of

logger = logging.getLogger("ezmsg")


def leave(outcome: Outcome) -> None:
    """Return, raise the error that ended the run, or die of the signal that interrupted it, if that was not clean."""
    if outcome.signal is not None:
        _log_interruption(outcome)
        if outcome.is_forced or outcome.error is not None or not outcome.tally.is_clean:
            if outcome.error is not None:
                logger.error("the run was interrupted, and had an error", exc_info=outcome.error)
            die_of(outcome.signal)
    if outcome.error is not None:
        raise outcome.error


def _log_interruption(outcome: Outcome) -> None:
    tally = outcome.tally
    if outcome.is_forced:
        logger.warning("interrupted twice: units were not shut down")
        return
    if tally.is_clean:
        logger.info("interrupted: %d tasks were cancelled", tally.cancelled)
        return
    logger.warning(
        "interrupted: %d tasks were cancelled; %d exceptions of tasks, %d tasks or functions and %d blocking calls go "
        "on, %d errors were suppressed (EZMSG_STRICT_SHUTDOWN=1 suppresses nothing and leaves nobody behind)",
        tally.cancelled, tally.task_errors, tally.pending, tally.workers, tally.suppressed,
    )  # fmt: skip
