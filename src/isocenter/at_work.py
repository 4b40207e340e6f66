"""What is being worked on, said where it begins and ends: whoever outlives a crash can name it.

Nobody hears it unless a handler is set on the logger "isocenter.work", as the command line does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

work = logging.getLogger("isocenter.work")
BEGUN, ENDED = "begun", "ended"


@contextmanager
def at_work(case: str) -> Iterator[None]:
    """This case is being worked on within."""
    work.debug(BEGUN, extra={"case": case})
    try:
        yield
    finally:
        work.debug(ENDED, extra={"case": case})
