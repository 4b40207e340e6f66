"""What a training leaves of each step: `log.csv` always, TensorBoard beside it, MLflow where it is set up."""

from __future__ import annotations

import csv
import importlib.util
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from isocenter.training.state import Moment

log = logging.getLogger("isocenter")
TENSORBOARD = "tensorboard"
# MLflow is often on another machine: a step in so many is enough there.
MLFLOW_STEPS = 10
# MLflow's own name for the setting that says where its server is.
MLFLOW_ADDRESS = "MLFLOW_TRACKING_URI"
EXPERIMENT, MLFLOW_RUN = "isocenter", "mlflow.txt"


class Log(Protocol):
    """Somewhere that a training's numbers go."""

    def add(self, moment: Moment) -> None: ...

    def close(self) -> None: ...


@contextmanager
def opened_logs(out: Path, first: int) -> Iterator[Sequence[Log]]:
    """All logs of a run, closed at the end; what an earlier session wrote after step `first` is dropped."""
    with ExitStack() as stack:
        logs: list[Log] = [CsvLog(out / "log.csv", first), TensorBoardLog(out / TENSORBOARD, first)]
        if os.environ.get(MLFLOW_ADDRESS) and importlib.util.find_spec("mlflow") is not None:
            logs.append(MlflowLog(out, first))
        for one in logs:
            stack.callback(one.close)
        yield logs


class CsvLog:
    """`log.csv`, a row a step, on disk as soon as it is written."""

    columns = ("step", "seconds", "loss", "learning_rate", "validation")

    def __init__(self, path: Path, first: int) -> None:
        kept = _rows_up_to(path, first)
        self.file = path.open("w", newline="", encoding="utf-8")
        self.writer = csv.DictWriter(self.file, self.columns)
        self.writer.writeheader()
        self.writer.writerows(kept)

    def add(self, moment: Moment) -> None:
        row = {name: value for name, value in asdict(moment).items() if name in self.columns}
        self.writer.writerow({**row, "seconds": round(moment.seconds, 3)})  # what is None is left empty
        self.file.flush()

    def close(self) -> None:
        self.file.close()


class TensorBoardLog:
    """Event files; a resumed run writes another, before which TensorBoard forgets the steps that are done again."""

    def __init__(self, folder: Path, first: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a part of torch that is loaded only when asked for

        self.writer = SummaryWriter(str(folder), purge_step=first + 1 if first else None)

    def add(self, moment: Moment) -> None:
        for name, value in scalars(moment).items():
            self.writer.add_scalar(name, value, moment.step)

    def close(self) -> None:
        self.writer.close()


class MlflowLog:
    """A run of the experiment "isocenter"; its number lies in the run's folder, so that a resumed run goes on in it."""

    def __init__(self, out: Path, first: int) -> None:
        self.client: Any = None
        self.first, self.broken, self.run = first, False, ""
        self._try(lambda: self._begin(out))

    def add(self, moment: Moment) -> None:
        if moment.step > self.first and (moment.step % MLFLOW_STEPS == 0 or moment.validation is not None):
            for name, value in scalars(moment).items():
                self._try(
                    lambda name=name, value=value: self.client.log_metric(self.run, name, value, step=moment.step)
                )

    def close(self) -> None:
        self._try(lambda: self.client.set_terminated(self.run))

    def _begin(self, out: Path) -> None:
        import mlflow  # type: ignore[import-not-found,unused-ignore]  # optional

        self.client = mlflow.MlflowClient()  # it refuses some addresses at once
        place = out / MLFLOW_RUN
        if place.is_file():
            self.run = place.read_text(encoding="utf-8").strip()
            return
        known = self.client.get_experiment_by_name(EXPERIMENT)
        number = known.experiment_id if known else self.client.create_experiment(EXPERIMENT)
        self.run = self.client.create_run(number, run_name=out.name).info.run_id
        place.write_text(self.run, encoding="utf-8")

    def _try(self, call: Any) -> None:
        """A server that is gone is said once, and ends no training."""
        if self.broken:
            return
        try:
            call()
        except Exception as error:
            self.broken = True
            log.warning("MLflow at %s: %s; the run goes on without it", os.environ.get(MLFLOW_ADDRESS), error)


def scalars(moment: Moment) -> dict[str, float]:
    """The numbers of a moment by the names that the curves have."""
    found = {"loss": moment.loss, "learning_rate": moment.learning_rate, "waiting": moment.waiting}
    return found if moment.validation is None else {**found, "validation": moment.validation}


def _rows_up_to(path: Path, first: int) -> list[dict[str, str]]:
    """Whole rows of the steps that a checkpoint holds; a full disk may have cut the last row short."""
    if not first or not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["validation"] is not None and int(row["step"]) <= first]
