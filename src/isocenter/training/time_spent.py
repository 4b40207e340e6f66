"""Where the time of a training goes: waiting for data, or working at steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from isocenter.training.state import Work


@dataclass
class Spans:
    """s of this session, waited for data and worked at so many steps; what lies between steps is neither."""

    waited: float = 0.0
    worked: float = 0.0
    steps: int = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        mark = time.monotonic()
        yield
        self.waited += time.monotonic() - mark

    @contextmanager
    def working(self) -> Iterator[None]:
        mark = time.monotonic()
        yield
        self.worked += time.monotonic() - mark
        self.steps += 1

    @property
    def share_waiting(self) -> float:
        """Of the time that all steps took."""
        return self.waited / max(1e-9, self.waited + self.worked)

    def of(self, work: Work | None) -> Work | None:
        """With the time of this session's steps."""
        return None if work is None or not self.steps else replace(work, step=(self.waited + self.worked) / self.steps)
