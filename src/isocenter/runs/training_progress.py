"""The progress of a training on standard error: a table that moves in a terminal, else a line now and then."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from isocenter import work_state
from isocenter.report.progress_tracking import Tracker
from isocenter.training.training_state import COLUMNS, Moment

log = logging.getLogger("isocenter")
# Between two pictures of the table (s), and how many characters wide its curves are.
LIVE_SECONDS, CURVE = 0.25, 24
BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass
class TrainingWatch:
    """Tells how a training goes; call it with every moment.

    metric: the name of a figure of the validation cases
    live:   the table in a terminal; None for lines in the log
    """

    what: str
    metric: Callable[[float], str]
    live: Live | None = None
    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    first: Moment | None = None
    last_line: float = field(default_factory=time.monotonic)

    def __call__(self, moment: Moment) -> None:
        self.first = self.first or moment
        self.losses.append(moment.loss)
        if moment.validation is not None:
            self.scores.append(moment.validation)
        columns = {name: getattr(moment, name) for name in COLUMNS}
        work_state.report_progress(self.what, moment.step, moment.steps, self.seconds_left(moment), **columns)
        often = Tracker.quiet_seconds if self.live is None else LIVE_SECONDS
        if time.monotonic() - self.last_line < often and moment.step < moment.steps:
            return
        self.last_line = time.monotonic()
        if self.live is not None:
            self.live.update(self.table(moment), refresh=True)
        elif moment.seconds - self.first.seconds > 1:  # of what took a moment nothing needs a line
            log.info("%s: %s", self.what, self.line(moment))

    def line(self, moment: Moment) -> str:
        """The state of the training in words."""
        reached = f"{100 * moment.reached:.0f} % of the machine's peak, " if moment.reached is not None else ""
        score = f", {self.metric(self.scores[-1])} {self.scores[-1]:.4f} of the validation cases" if self.scores else ""
        return (
            f"step {moment.step} of {moment.steps}, loss {moment.loss:.3f}{score}, "
            f"learning rate {moment.learning_rate:.2g}, {100 * moment.waiting:.0f} % waiting for data, "
            f"{reached}{self.seconds_left(moment):.0f} s left"
        )

    def seconds_left(self, moment: Moment) -> float:
        """s, at the speed since the first moment that was seen."""
        if self.first is None or moment.step <= self.first.step:
            return 0.0
        seconds_a_step = (moment.seconds - self.first.seconds) / (moment.step - self.first.step)
        return seconds_a_step * (moment.steps - moment.step)

    def table(self, moment: Moment) -> Table:
        """The same as a table with the course of loss and metric."""
        table = Table(title=self.what, title_justify="left", show_edge=False, pad_edge=False)
        named = self.metric(self.scores[-1] if self.scores else 0.0)
        for name in ("step", "loss", "", named, "", "learning rate", "waiting", "left"):
            table.add_column(name, no_wrap=True)
        table.add_row(
            f"{moment.step}/{moment.steps}",
            f"{moment.loss:.3f}",
            sparkline(self.losses, CURVE),
            f"{self.scores[-1]:.4f}" if self.scores else "",
            sparkline(self.scores, CURVE),
            f"{moment.learning_rate:.2g}",
            f"{100 * moment.waiting:.0f} %",
            f"{self.seconds_left(moment):.0f} s",
        )
        return table


@contextmanager
def show_training(what: str, metric: Callable[[float], str]) -> Iterator[Callable[[Moment], None]]:
    """A table that moves, in a terminal; else a line now and then in the log."""
    if not sys.stderr.isatty():
        yield TrainingWatch(what, metric)
        return
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        yield TrainingWatch(what, metric, live)


def sparkline(values: Sequence[float], width: int) -> str:
    """The course of values as blocks between their lowest and highest; neighbours are averaged where they are many."""
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return ""
    means = np.array([part.mean() for part in np.array_split(finite, min(width, len(finite)))])
    span = float(means.max() - means.min())
    heights = np.zeros(len(means)) if span == 0 else (means - means.min()) / span
    return "".join(BLOCKS[round(height * (len(BLOCKS) - 1))] for height in heights.tolist())
