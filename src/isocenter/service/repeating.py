"""A step of a thread that the node cannot do without: taken again and again, whatever it meets."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from isocenter.errors import IsocenterError, ResourceError, foreign_errors

log = logging.getLogger("isocenter")


def repeated(
    step: Callable[[], int], stop: threading.Event, who: str, *, rest_s: float, idle_s: float, again_s: float
) -> None:
    """Take a step until `stop`. step: says how much it has done; who: in the log.

    rest_s:  s before each step
    idle_s:  s after one that has found nothing to do
    again_s: s after one that has failed
    """
    while not stop.wait(rest_s):
        try:
            with foreign_errors(_as_ours):
                if step() == 0:
                    stop.wait(idle_s)
        except ResourceError as error:
            log.warning("%s: %s", who, error.problem)
            stop.wait(again_s)
        except (IsocenterError, MemoryError) as error:  # a thread that ends does nothing more, and nobody sees why
            log.error("%s met an unexpected error", who, exc_info=error.__cause__ or error)
            stop.wait(again_s)


def _as_ours(error: Exception) -> IsocenterError:
    words = error.strerror if isinstance(error, OSError) else None
    kind = ResourceError if words else IsocenterError
    return kind(words or f"{type(error).__name__} was not expected", "the node", "It tries again")
