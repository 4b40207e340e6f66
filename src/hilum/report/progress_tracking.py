"""Long work says how far it is and how long it will take, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hilum import work_state
from hilum.work_state import log

T = TypeVar("T")


@dataclass
class Tracker:
    """Tells how far one piece of work is; call it with (done, all) and, if there is more to say, a few words.

    Of lines the first comes as soon as what is done shows that the rest takes long. The first report says nothing of
    that: libraries and processes start in it.

    quiet_seconds: between two lines, where nobody watches a bar move
    watch: also called with how much is done and with all
    """

    quiet_seconds: ClassVar[float] = 30.0

    what: str
    bar: Progress | None
    began: float = field(default_factory=time.monotonic)
    last_line: float = field(default_factory=time.monotonic)
    row: int | None = None
    lines: int = 0
    first: tuple[float, float] | None = None
    watch: Callable[[int, int], None] | None = None

    def within(self, number: int, count: int) -> Callable[[int, int], None]:
        """How far piece `number` of `count` is, as a tracker takes it: long pieces say so before they end."""

        def tell(done: int, total: int) -> None:
            self(number + min(done / total, 0.999), count, f"{100 * done // total} % of the next")

        return tell

    def over(self, items: Sequence[T]) -> Iterator[T]:
        """One after the other, each told of once the caller has done it."""
        for done, item in enumerate(items, start=1):
            yield item
            self(done, len(items))

    def __call__(self, done: float, total: int, words: str = "") -> None:
        if self.watch is not None:
            self.watch(int(done), total)
        now = time.monotonic()
        if self.first is None and done:
            self.first = (done, now)
        begun, since = self.first or (0, now)
        left = (now - since) / (done - begun) * (total - done) if done > begun else 0.0
        work_state.report_progress(self.what, int(done), total, left if done > begun else None)
        if self.bar is not None:
            if self.row is None:
                self.row = int(self.bar.add_task(self.what, total=total, words=""))
            self.bar.update(self.row, completed=done, total=total, words=words)  # type: ignore[arg-type]  # a field of the line, of any kind
            return
        spent = now - self.began
        is_over, is_foreseen = done == total, not self.lines and left > self.quiet_seconds
        if now - self.last_line > self.quiet_seconds or (spent > 1 and (is_over or is_foreseen)):
            self.last_line, self.lines = now, self.lines + 1
            then = f", {left:.0f} s left" if begun < done < total else ""
            log.info("%s: %d of %d in %.0f s%s%s", self.what, done, total, spent, then, f", {words}" if words else "")


@contextmanager
def track_progress(what: str, watch: Callable[[int, int], None] | None = None) -> Iterator[Tracker]:
    """A bar in a terminal, else a line now and then in the log; watch: as a tracker has it."""
    if not sys.stderr.isatty():
        yield Tracker(what, None, watch=watch)
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}"),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        yield Tracker(what, bar, watch=watch)
