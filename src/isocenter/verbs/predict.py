"""`predict`: a model's results for files, series or cohorts, each on the source's own grid."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isocenter.errors import (
    DatasetError,
    FormatError,
    GeometryError,
    IsocenterError,
    ResourceError,
    UsageError,
    counted,
)
from isocenter.files import write_label_map
from isocenter.runtime import Model, load, write_json
from isocenter.transforms import COLOUR, stacked
from isocenter.values import Case, Dataset, Image, Prediction, Problem
from isocenter.verbs.dataset import open_dataset
from isocenter.verbs.device import announced_device
from isocenter.verbs.output import refuse_taken, result_folder
from isocenter.verbs.progress import tracked

MARKS = ("predictions.csv", "summary.json")
# Names that Windows keeps for devices, with any suffix:
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
RESERVED = frozenset({"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))})
FORMATS = ("nii.gz", "nii", "nrrd", "png", "tiff", "dcm")


@dataclass(frozen=True, eq=False)
class Predicted:
    """Results by case, what failed, and where the files lie.

    predictions: {case id: Prediction}; empty where they were written, so that a cohort of any size fits
    problems:    errors are cases without a result, warnings are results that lack a part
    stopped:     by Ctrl-C, before the last case
    """

    table: pd.DataFrame
    predictions: Mapping[str, Prediction]
    problems: Sequence[Problem]
    files: Sequence[Path]
    out: Path | None = None
    stopped: bool = False

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
    device: str = "auto",
    threads: int | None = None,
    **given: Any,
) -> Predicted:
    """Predict every input: an image file, a folder of one DICOM series, or a cohort of any known layout.

    format: of dense results; "auto" writes .nii.gz, a picture as .png, and for DICOM a SEG as well where it can be
    out:    a folder for the results, predictions.csv and summary.json; it is there when all is done. Stopped by
            Ctrl-C, it holds the cases that were
    A case that fails is reported and the rest goes on; DatasetError where every one fails.
    """
    if not inputs:
        raise UsageError("nothing to predict", "predict", "Give files or folders after the model")
    if format not in ("auto", *FORMATS):
        raise UsageError(f"cannot write {format!r}", "--format", f"Choose auto or one of {', '.join(FORMATS)}")
    if out is not None:
        refuse_taken(Path(out), overwrite, MARKS)
    loaded = model if isinstance(model, Model) else load(model, announced_device(device, threads).value)
    folder = Path(out) if out is not None else None
    with nullcontext() if folder is None else result_folder(folder, overwrite, MARKS) as partial:
        result = _predicted(loaded, inputs, given, partial, format)
        if folder is None or partial is None:
            return result
        result = replace(result, files=[folder / path.name for path in result.files], out=folder)
        result.table.to_csv(partial / "predictions.csv", index=False)
        origin = {key: loaded.record.get(key) for key in ("weights_sha256", "data_hash")}
        write_json(partial / "summary.json", "isocenter.predictions", {**result.as_record(), "model": origin})
    if result.stopped:
        raise KeyboardInterrupt
    return result


def _predicted(
    model: Model,
    inputs: Sequence[str | Path | Image | Dataset],
    given: Mapping[str, Any],
    folder: Path | None,
    format: str,
) -> Predicted:
    """Every case predicted, its dense result written into the folder; what failed is named, and the rest goes on."""
    channels = model.preprocessing.channels
    found = [_opened(one, given, 1 if channels == COLOUR else len(channels)) for one in inputs]
    cases = _told_apart([case for cases, _ in found for case in cases])
    problems = [problem for _, of_data in found for problem in of_data if problem.severity == "error"]
    rows, predictions, files = [], {}, []
    stopped = False
    with tracked("predicting") as tracker:
        for done, case in enumerate(cases, start=1):
            try:
                image = stacked(case.images, case.id)
                place = f"case {done} of {len(cases)}"

                def windows(n: int, of: int, place: str = place, done: int = done) -> None:
                    tracker(done - 1, len(cases), f"{place}: window {n} of {of}")

                prediction = model.predict(image, windows)
                if folder is not None:
                    written, lacking = _write(prediction, image, folder, case.id, format, model.task.name)
                    files += written
                    problems += lacking
                else:
                    predictions[case.id] = prediction
                source = image.source.paths[0] if image.source and image.source.paths else ""
                rows.append({"case": case.id, "image": source, **model.task.outputs(prediction)})
            except ResourceError:
                raise  # a full disk is full for the next case too
            except KeyboardInterrupt:
                stopped = True  # what is done is kept
                break
            except IsocenterError as error:
                # Where results lie until all is done is of no use to a reader.
                where = case.id if folder is not None and error.where.startswith(str(folder)) else error.where
                problems.append(Problem("error", f"{where}: {error.problem}", (case.id,), remedy=error.remedy))
            tracker(done, len(cases))
    if stopped and not rows:
        raise KeyboardInterrupt
    if not rows:
        first = problems[0] if problems else Problem("error", "there is no case", remedy="Give images")
        where = ", ".join(first.cases) or "predict"
        raise DatasetError(f"no case could be predicted; the first: {first.what}", where, first.remedy)
    return Predicted(pd.DataFrame(rows), predictions, problems, files, stopped=stopped)


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


def _told_apart(cases: Sequence[Case]) -> list[Case]:
    """Cases with file names of their own: ids can be anything, and two inputs may share one."""
    taken: set[str] = set()  # in lower case, as some file systems do not tell them apart
    named = []
    for case in cases:
        plain = re.sub(r"[^\w.()+-]+", "_", case.id).strip("._") or "case"
        plain = f"{plain}_" if plain.partition(".")[0].upper() in RESERVED else plain
        numbered = (plain if n == 1 else f"{plain}_{n}" for n in count(1))
        name = next(one for one in numbered if one.lower() not in taken)
        taken.add(name.lower())
        named.append(replace(case, id=name))
    return named


def _write(
    prediction: Prediction, image: Image, folder: Path, name: str, format: str, algorithm: str
) -> tuple[list[Path], list[Problem]]:
    """The files of a dense result, and what of them could not be; nothing for a result that is not dense.

    A SEG that nobody asked for by name is left out with a warning where the series cannot bear one.
    """
    if prediction.data is None:
        return [], []
    mask, algorithm = np.asarray(prediction.data), f"isocenter {algorithm}"
    placed = image.geometry.ndim == 3
    suffix = format if format != "auto" else "nii.gz" if placed else "png"
    written, lacking = [folder / f"{name}.{suffix}"], []
    write_label_map(mask, prediction.labels, image, written[0], algorithm=algorithm)
    if format == "auto" and placed and image.source is not None and image.source.format == "dicom":
        try:
            write_label_map(mask, prediction.labels, image, folder / f"{name}.dcm", algorithm=algorithm)
            written.append(folder / f"{name}.dcm")
        except (FormatError, GeometryError) as error:
            lacking.append(Problem("warning", f"no DICOM SEG: {error.problem}", (name,), remedy=error.remedy))
    return written, lacking
