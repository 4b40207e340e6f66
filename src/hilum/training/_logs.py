"""The logs of a training: `log.csv` and TensorBoard always, MLflow where it is set up."""

from __future__ import annotations

import csv
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from hilum.files.storage import atomic
from hilum.files.storage.csv_text import CsvWriter
from hilum.lazy import tensorboard
from hilum.training.training_state import COLUMNS, Moment
from hilum.work_state import log

TENSORBOARD = "tensorboard"
# MLflow is often on another machine: a step in so many is enough there.
MLFLOW_STEPS = 10
# MLflow's own name for the setting that says where its server is.
MLFLOW_ADDRESS = "MLFLOW_TRACKING_URI"
EXPERIMENT = "hilum"
MLFLOW_RUN = "mlflow.txt"
RANK = "rank"


class Log(Protocol):
    """Somewhere that a training's numbers go."""

    def add(self, moment: Moment) -> None:
        """The numbers of a step."""

    def close(self) -> None:
        """Nothing follows."""


@contextmanager
def open_logs(
    out: Path, first: int, watch: Callable[[Moment], None], further: Sequence[str] = (), *, writes: bool = True
) -> Iterator[Callable[[Moment], None]]:
    """Gives a function that writes a moment into all logs of a run and shows it to `watch`; all are closed at the end.

    first:  step after which an earlier session's rows are dropped
    further: columns after the common ones
    writes: whether this process keeps logs; of several only the first does
    """
    with ExitStack() as stack:
        opened: list[Log] = []
        for make in LOGS if writes else ():
            if (opened_log := make(out, first, further)) is not None:
                stack.callback(opened_log.close)
                opened.append(opened_log)

        def report(moment: Moment) -> None:
            """Write a moment into all logs."""
            for opened_log_of in opened:
                opened_log_of.add(moment)
            watch(moment)

        yield report


class CsvLog:
    """`log.csv`, a row a step, on disk as soon as it is written."""

    def __init__(self, out: Path, first: int, further: Sequence[str] = ()) -> None:
        path = out / "log.csv"
        self.columns = (*COLUMNS, *further)
        earlier_rows = _rows_up_to(path, first)
        # A kill, or a full disk, in between leaves the log of the earlier sessions as it was.
        with (
            atomic.write_whole(path, overwrite=True) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = CsvWriter(file, self.columns)
            for row in earlier_rows:
                writer.add(row[name] for name in self.columns)
        self.file = path.open("a", newline="", encoding="utf-8")
        self.writer = CsvWriter(self.file, None)

    def add(self, moment: Moment) -> None:
        """A row, on disk when this returns."""
        row = {**asdict(moment), **_losses(moment), "seconds": round(moment.seconds, 3)}
        self.writer.add(row[name] for name in self.columns)
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class TensorBoardLog:
    """Event files; a resumed run writes another, before which TensorBoard forgets the steps that are done again."""

    def __init__(self, out: Path, first: int, further: Sequence[str] = ()) -> None:
        self.writer = tensorboard.SummaryWriter(str(out / TENSORBOARD), purge_step=first + 1 if first else None)

    def add(self, moment: Moment) -> None:
        """A point on every curve."""
        for name, value in curve_scalars(moment).items():
            self.writer.add_scalar(name, value, moment.step)

    def close(self) -> None:
        """Close the event file."""
        self.writer.close()


class MlflowLog:
    """A run of the experiment "hilum"; its number lies in the run's folder, so that a resumed run goes on in it.

    A server that is gone ends no training: it is named once in the log, and the run goes on without it.
    """

    def __init__(self, out: Path, first: int, further: Sequence[str] = ()) -> None:
        import mlflow  # type: ignore[import-not-found,unused-ignore]  # optional

        self.failures = (mlflow.exceptions.MlflowException, OSError, ValueError)
        self.client: Any = None
        self.first = first
        self.is_broken = False
        self.run = ""
        self._try(lambda: self._connect(mlflow.MlflowClient(), out))  # the client refuses some addresses at once

    def add(self, moment: Moment) -> None:
        """Every tenth step, and every validation."""
        if moment.step > self.first and (moment.step % MLFLOW_STEPS == 0 or moment.validation is not None):
            for name, value in curve_scalars(moment).items():
                self._try(partial(self.client.log_metric, self.run, name, value, step=moment.step))

    def close(self) -> None:
        """Mark the run as ended."""
        self._try(lambda: self.client.set_terminated(self.run))

    def _connect(self, client: Any, out: Path) -> None:
        self.client = client
        marker = out / MLFLOW_RUN
        if marker.is_file():
            self.run = marker.read_text(encoding="utf-8").strip()
            return
        experiment = client.get_experiment_by_name(EXPERIMENT)
        number = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
        self.run = client.create_run(number, run_name=out.name).info.run_id
        marker.write_text(self.run, encoding="utf-8")

    def _try(self, call: Callable[[], object]) -> None:
        if self.is_broken:
            return
        try:
            call()
        except self.failures as error:
            self.is_broken = True
            log.warning("MLflow at %s: %s; the run goes on without it", os.environ.get(MLFLOW_ADDRESS), error)


def mlflow_log(out: Path, first: int, further: Sequence[str] = ()) -> MlflowLog | None:
    """None where no address is set, or MLflow is not installed."""
    if not os.environ.get(MLFLOW_ADDRESS) or importlib.util.find_spec("mlflow") is None:
        return None
    return MlflowLog(out, first)


# Each takes a run's folder, the step after which earlier rows are dropped, and the columns after the common ones; a new
# kind of log is one line here.
LOGS: Sequence[Callable[[Path, int, Sequence[str]], Log | None]] = (CsvLog, TensorBoardLog, mlflow_log)


def curve_scalars(moment: Moment) -> dict[str, float]:
    """The numbers of a moment by the names that the curves have."""
    numbers = {"loss": moment.loss, "learning_rate": moment.learning_rate, "waiting": moment.waiting}
    now_and_then = {name: getattr(moment, name) for name in ("validation", "training_metric", "gradient_norm", RANK)}
    return {**numbers, **_losses(moment), **{name: one for name, one in now_and_then.items() if one is not None}}


def loss_column(objective: str) -> str:
    """The name of an objective's loss among the columns of `log.csv`."""
    return f"loss_{objective}"


def _losses(moment: Moment) -> dict[str, float]:
    return {loss_column(name): one for name, one in moment.losses.items()}


def _rows_up_to(path: Path, first: int) -> list[dict[str, str]]:
    """Whole rows of the steps that a checkpoint holds; a full disk may have cut the last row short."""
    if not first or not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if None not in row.values() and int(row["step"]) <= first]
