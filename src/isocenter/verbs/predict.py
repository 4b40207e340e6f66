"""`predict`: a model's results for files, series or cohorts, each on the source's own grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isocenter.errors import DatasetError, IsocenterError, ResourceError, UsageError, counted
from isocenter.runtime import Model, load, measurements, write_json
from isocenter.transforms import COLOUR, stacked
from isocenter.values import Case, Dataset, Image, Prediction, Problem
from isocenter.verbs.dataset import open_dataset
from isocenter.verbs.device import announced_device
from isocenter.verbs.output import refuse_taken, result_folder
from isocenter.verbs.progress import tracked
from isocenter.verbs.result_files import FORMATS, Wanted, probabilities_beside, room_for, told_apart, write_result

MARKS = ("predictions.csv", "summary.json")


@dataclass(frozen=True, eq=False)
class Predicted:
    """Results by case, what failed, and where the files lie.

    predictions:  {case id: Prediction}; empty where they were written, so that a cohort of any size fits
    problems:     errors are cases without a result, warnings are results that lack a part
    stopped:      by Ctrl-C, before the last case
    measurements: of dense results, one row a case and label: size, mean and SD of the intensity
    """

    table: pd.DataFrame
    predictions: Mapping[str, Prediction]
    problems: Sequence[Problem]
    files: Sequence[Path]
    out: Path | None = None
    stopped: bool = False
    measurements: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def failures(self) -> list[Problem]:
        """What stands for a case without a result."""
        return [problem for problem in self.problems if problem.severity == "error"]

    def as_record(self) -> dict[str, Any]:
        """For `--json`."""
        failed = [{"case": one.cases[0], "problem": one.what, "remedy": one.remedy} for one in self.failures]
        return {
            "schema": "isocenter.predictions",
            "version": 1,
            "predicted": len(self.table),
            "failed": failed,
            "files": [str(path) for path in self.files],
            "rows": self.table.to_dict("records"),
        }

    def __repr__(self) -> str:
        lines = [f"{counted(len(self.table), 'case')} predicted, {len(self.failures)} failed"]
        lines += [f"{problem.severity}: {problem.what}. {problem.remedy}" for problem in self.problems]
        return "\n".join([*lines, *([f"written: {self.out}"] if self.out is not None else [])])


def predict(
    model: str | Path | Model,
    *inputs: str | Path | Image | Dataset,
    out: str | Path | None = None,
    overwrite: bool = False,
    format: str = "auto",
    fold: int | None = None,
    mirror: bool | None = None,
    save_probabilities: bool = False,
    overlay: bool = False,
    device: str = "auto",
    threads: int | None = None,
    **given: Any,
) -> Predicted:
    """Predict every input: an image file, a folder of one DICOM series, or a cohort of any known layout.

    format: of dense results; "auto" writes .nii.gz, a picture as .png, and for DICOM a SEG as well where it can be
    out:    a folder for the results, predictions.csv, measurements.csv and summary.json; it is there when all is
            done. Stopped by Ctrl-C, it holds the cases that were
    fold:   the one model of a run of folds to predict with, in place of the mean of all
    mirror: whether images are also seen mirrored and the results averaged; as the model was planned if not said
    save_probabilities, overlay: write them beside each dense result
    A case that fails is reported and the rest goes on; DatasetError where every one fails.
    """
    if not inputs:
        raise UsageError("nothing to predict", "predict", "Give files or folders after the model")
    if format not in ("auto", *FORMATS):
        raise UsageError(f"cannot write {format!r}", "--format", f"Choose auto or one of {', '.join(FORMATS)}")
    if out is None and (save_probabilities or overlay):
        raise UsageError("probabilities and overlays are files, and have no place", "predict", "Give out=FOLDER")
    if out is not None:
        refuse_taken(Path(out), overwrite, MARKS)
    loaded = _loaded(model, fold, device, threads)
    loaded.flips(mirror)  # refused before the first case
    wanted = Wanted(format, save_probabilities, overlay)
    folder = Path(out) if out is not None else None
    with nullcontext() if folder is None else result_folder(folder, overwrite, MARKS) as partial:
        result = _predicted(loaded, inputs, given, partial, wanted, mirror)
        if folder is None or partial is None:
            return result
        result = replace(result, files=[folder / path.name for path in result.files], out=folder)
        _write_records(result, loaded, mirror, partial)
    if result.stopped:
        raise KeyboardInterrupt
    return result


def _loaded(model: str | Path | Model, fold: int | None, device: str, threads: int | None) -> Model:
    if not isinstance(model, Model):
        return load(model, announced_device(device, threads).value, fold=fold)
    if fold is not None:
        raise UsageError("a fold is chosen when a model is loaded", "--fold", "Give the run's folder")
    return model


def _write_records(result: Predicted, model: Model, mirror: bool | None, folder: Path) -> None:
    result.table.to_csv(folder / "predictions.csv", index=False)
    if len(result.measurements):
        result.measurements.to_csv(folder / "measurements.csv", index=False)
    origin = {key: model.record.get(key) for key in ("weights_sha256", "data_hash")}
    said = {**origin, "mirrored": model.flips(mirror)}
    write_json(folder / "summary.json", "isocenter.predictions", {**result.as_record(), "model": said})


def _predicted(
    model: Model,
    inputs: Sequence[str | Path | Image | Dataset],
    given: Mapping[str, Any],
    folder: Path | None,
    wanted: Wanted,
    mirror: bool | None,
) -> Predicted:
    """Every case predicted, its dense result written into the folder; what failed is named, and the rest goes on."""
    channels = model.preprocessing.channels
    found = [_opened(one, given, 1 if channels == COLOUR else len(channels)) for one in inputs]
    cases = told_apart([case for cases, _ in found for case in cases])
    problems = [problem for _, of_data in found for problem in of_data if problem.severity == "error"]
    done: list[_Done] = []
    stopped = False
    with tracked("predicting") as tracker:
        for number, case in enumerate(cases, start=1):

            def windows(n: int, of: int, number: int = number) -> None:
                tracker(number - 1, len(cases), f"case {number} of {len(cases)}: window {n} of {of}")

            try:
                done.append(_of_case(model, case, folder, wanted, mirror, windows))
            except ResourceError:
                raise  # a full disk is full for the next case too
            except KeyboardInterrupt:
                stopped = True  # what is done is kept
                break
            except IsocenterError as error:
                # Where results lie until all is done is of no use to a reader.
                where = case.id if folder is not None and error.where.startswith(str(folder)) else error.where
                problems.append(Problem("error", f"{where}: {error.problem}", (case.id,), remedy=error.remedy))
            tracker(number, len(cases))
    if stopped and not done:
        raise KeyboardInterrupt
    if not done:
        first = problems[0] if problems else Problem("error", "there is no case", remedy="Give images")
        raise DatasetError(f"no case could be predicted; the first: {first.what}", "predict", first.remedy)
    return Predicted(
        pd.DataFrame([one.row for one in done]),
        {str(one.row["case"]): one.prediction for one in done if one.prediction is not None},
        [*problems, *(problem for one in done for problem in one.lacking)],
        [path for one in done for path in one.files],
        stopped=stopped,
        measurements=pd.DataFrame([row for one in done for row in one.measured]),
    )


@dataclass(frozen=True, eq=False)
class _Done:
    """What became of one case; the prediction itself is kept only where it was not written."""

    row: Mapping[str, Any]
    measured: Sequence[Mapping[str, Any]]
    prediction: Prediction | None
    files: Sequence[Path] = ()
    lacking: Sequence[Problem] = ()


def _of_case(
    model: Model,
    case: Case,
    folder: Path | None,
    wanted: Wanted,
    mirror: bool | None,
    windows: Callable[[int, int], None],
) -> _Done:
    image = stacked(case.images, case.id)
    if folder is None:
        prediction = model.predict(image, windows, mirror=mirror)
        return _Done(*_said(model, case, image, prediction), prediction)
    with room_for(folder, case.id) as room:
        with probabilities_beside(model.task, image, room, case.id, wanted) as (beside, beside_files):
            prediction = model.predict(image, windows, mirror=mirror, beside=beside)
        files, lacking = write_result(prediction, image, room, case.id, wanted, model.task.name)
        said = _said(model, case, image, prediction)
    return _Done(*said, None, [*files, *beside_files], lacking)


def _said(
    model: Model, case: Case, image: Image, prediction: Prediction
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The case's row of `predictions.csv`, and its rows of `measurements.csv`."""
    source = image.source.paths[0] if image.source and image.source.paths else ""
    row = {"case": case.id, "image": source, **model.task.outputs(prediction)}
    if prediction.data is None:
        return row, []
    measured = measurements(np.asarray(prediction.data), prediction.labels, image)
    return row, [{"case": case.id, **one} for one in measured]


def _opened(
    given_input: str | Path | Image | Dataset, given: Mapping[str, Any], channels: int
) -> tuple[list[Case], list[Problem]]:
    """The cases of one input, and what could not be read of it."""
    if isinstance(given_input, Image):
        paths = given_input.source.paths if given_input.source else ()
        name = Path(paths[0]).name.split(".")[0] if paths else "image"
        return [Case(name, name, {"image": given_input})], []
    dataset = open_dataset(given_input, given, references=False, channels=channels)
    return list(dataset), list(dataset.problems)
