"""The prediction that `inference.json` runs, from a folder of images to a folder of results.

python -m monai.bundle run --config_file configs/inference.json --dataset_dir IMAGES --output_dir RESULTS
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hilum import errors
from hilum.errors import DatasetError, FormatError, HilumError, UsageError
from hilum.files import label_table
from hilum.files.format_options import Format, ReadOptions
from hilum.files.storage import atomic, csv_text, structured_text
from hilum.files.storage.csv_text import CsvWriter
from hilum.lazy import torch
from hilum.runtime import cascade, covariate_encoding
from hilum.runtime.bundle.network import OneTensor
from hilum.runtime.cascade import LabelledInput, LabelSource
from hilum.runtime.covariate_encoding import Context
from hilum.runtime.torch_networks import TorchNetwork
from hilum.runtime.windows import averaging, pipeline
from hilum.runtime.windows.averaging import AveragedNetwork
from hilum.runtime.windows.fixed_views import FixedViews
from hilum.runtime.windows.pipeline import WindowSettings
from hilum.runtime.windows.slide import Network
from hilum.tasks import properties, task_settings
from hilum.transforms import COLOUR, channel_stack
from hilum.values import Array, Image, Prediction, StatedSettings, covariate_values, voxel_images
from hilum.values.covariate_values import CovariateValues

if TYPE_CHECKING:
    from hilum.runtime.preprocessing.preprocessing import Preprocessing
    from hilum.runtime.preprocessing.protocol import ImageSteps
    from hilum.tasks import Task
    from hilum.values.plain_values import PlainValue

# The suffix of a file with a column for each channel.
TABLE = ".csv"
# One of the files of a case, as nnU-Net numbers its channels: <case>_0000, <case>_0001, ...
NUMBERED = re.compile(r"(.+)_(\d{4})$")


@dataclass(frozen=True, eq=False)
class Inferer:
    """A model: an image to a result on the image's own grid.

    context:    columns of a patient that are entries of the network's context
    covariates: {case: {column: value}}
    before:     the first stage of a cascade, whose labels are a further input channel
    """

    task: Task
    preprocessing: Preprocessing
    windows: StatedSettings
    network: Network
    context: Context = field(default_factory=lambda: Context(()))
    covariates: Mapping[str, CovariateValues] = field(default_factory=dict)
    before: Inferer | None = None

    def __call__(self, image: Image, where: str) -> Prediction:
        planned, left_right = tuple(self.windows.get("flips", ())), self.windows.get("left_right")
        vector, notes = self._vector(image, where)
        preprocessing: ImageSteps = self.preprocessing
        if self.before is not None:
            numbers = cascade.label_numbers(self.before(image, where), self.before.task.labels)
            preprocessing = LabelledInput(self.preprocessing, partial(LabelSource, numbers))
        prediction = pipeline.run_pipeline(
            image,
            where,
            task=self.task,
            preprocessing=preprocessing,
            network=covariate_encoding.bind_context(self.network, vector),
            windows=WindowSettings(
                tuple(self.windows["patch"]),
                self.windows["overlap"],
                self.windows["batch"],
                averaging.flipped_axes(self.task, self.preprocessing.ndim, planned, left_right),
                left_right,
                skip=self.windows.get("skip"),
                views=FixedViews(*(self.windows.get(name, 0) for name in ("views", "turn", "gamma"))),
            ),
        )
        return replace(prediction, notes=(*notes, *prediction.notes)) if notes else prediction

    def _vector(self, image: Image, case: str) -> tuple[Any, list[str]]:
        """The network's context for a case, and notes on missing values."""
        if not len(self.context):
            return None, []
        if self.context.names and case not in self.covariates:
            covariate_names = errors.list_phrase(self.context.names)
            problem = f"the model was trained with {covariate_names} beside the image, and none was given"
            raise DatasetError(problem, case, "Give --covariates TABLE.csv, whose first column names the cases")
        present = self.preprocessing.present(image, case) if self.context.channels else ()
        channels = list(compress(self.preprocessing.channels, present))
        return self.context.vector(self.covariates.get(case, {}), channels)


def inferer(
    record: str,
    weights: str,
    network: OneTensor,
    task: Any,
    preparation: Any,
    device: Any,
    covariates: str = "",
    parts: Sequence[Any] = (),
    before: Inferer | None = None,
    formats: Mapping[str, Format] | None = None,
) -> Inferer:
    """The model of a package.

    record:      hilum/model.json
    weights:     models/model.pt; only tensors are read from it, no code
    task:        the class that decodes the network's outputs
    preparation: the class that prepares the network's input
    parts:       the classes of the tasks that a multitask consists of
    before:      the first stage of a cascade
    covariates:  a table with a header and a row for each case, named in the first column, or of what is read time and
                 again one for each time; where the model needs one
    formats:     by suffix, which files that the table names may end in
    """
    settings = structured_text.load_json(Path(record))
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    decoder = task_settings.task_from_settings(
        task, {key: value for key, value in settings["task"].items() if key != "name"}, parts
    )
    members = tuple(TorchNetwork(one.eval().to(device), str(device)) for one in network.networks)
    averaged: Network = members[0]
    if len(members) > 1:
        averaged = AveragedNetwork(members, decoder.average, _shares(network), each=decoder.folds_by_head)
    context, windows = Context.from_settings(settings["network"].get("context")), settings["inference"]
    table = read_covariates(Path(covariates), formats or {}) if covariates else {}
    preprocessing = preparation.from_settings(settings["preprocessing"])
    return Inferer(decoder, preprocessing, windows, averaged, context, table, before)


def _shares(network: OneTensor) -> tuple[float, ...] | None:
    return None if network.shares is None else tuple(network.shares)


def read_covariates(table: Path, formats: Mapping[str, Format]) -> Mapping[str, CovariateValues]:
    """{case: {column: value}} of a table; readings over time are courses.

    Raises DatasetError where two rows of one case differ and no column says when they were read: which of them holds is
    not known. The case is not repeated, because its name may be that of a person.
    """
    if not table.is_file():
        raise UsageError("there is no such table", str(table), "Give --covariates TABLE.csv")
    with table.open(newline="", encoding="utf-8-sig") as file:
        rows = [
            {csv_text.unmark_cell(name): csv_text.unmark_cell(cell) for name, cell in row.items()}
            for row in csv.DictReader(file)
        ]
    by_case: dict[str, list[CovariateValues]] = {}
    for row in rows:
        named = Path(next(iter(row.values())).replace("\\", "/"))
        by_case.setdefault(named.name[: len(named.name) - len(_suffix(named, formats) or "")], []).append(row)
    time = covariate_values.time_column(list(rows[0])) if rows else None
    if time is None or len(by_case) == len(rows):
        names = list(rows[0])[1:] if rows else []
        if any(row[name] != own[0][name] for own in by_case.values() for row in own[1:] for name in names):
            problem = "rows of one case differ in what they state of it"
            raise DatasetError(problem, str(table), "Leave one row of each, or add a column of their times")
        return {case: dict(own[0]) for case, own in by_case.items()}
    try:
        return {case: covariate_values.courses_by_column(own, time) for case, own in by_case.items()}
    except ValueError as error:
        problem, remedy = f"{error}, in column {time}", "Write numbers, or dates as 2024-05-17T08:30"
        raise DatasetError(problem, str(table), remedy) from error


def cases(
    source: str, formats: Mapping[str, Format], channels: Sequence[str], absent: Sequence[str] = ()
) -> dict[str, tuple[Path, ...]]:
    """{case: its files in order of their channels} of an image file or of a folder.

    absent: channels that a case may lack
    A model of several channels takes <case>_0000, <case>_0001, ...; the three of a colour picture are one file,
    as are the columns of a table.
    """
    folder = Path(source)
    if not folder.exists():
        raise UsageError("there is no such file or folder", source, "Give --dataset_dir IMAGES")
    files = [folder] if folder.is_file() else sorted(folder.iterdir())
    suffixes = {path: suffix for path in files if (suffix := _suffix(path, formats)) is not None}
    by_case: dict[str, list[Path]] = {}
    several = len(channels) > 1 and tuple(channels) != COLOUR and TABLE not in formats
    for path, suffix in suffixes.items():
        name = path.name[: -len(suffix)]
        match = NUMBERED.match(name) if several else None
        by_case.setdefault(match[1] if match else name, []).append(path)
    for name, paths in by_case.items():
        lacking = bool(absent) and several and len(paths) < len(channels)  # which ones is looked at with the case
        if len(paths) != (len(channels) if several else 1) and not lacking:
            raise DatasetError(f"the case has {len(paths)} files", name, "Give one file for each channel of each case")
    if not by_case:
        raise DatasetError("holds no image", source, f"Give files that end in {', '.join(formats)}")
    return {name: tuple(paths) for name, paths in by_case.items()}


def _suffix(path: Path, formats: Mapping[str, Format]) -> str | None:
    return next((suffix for suffix in formats if path.name.lower().endswith(suffix)), None)


@dataclass(frozen=True, eq=False)
class Evaluator:
    """Prediction of every case: label maps, and one table of all results; failures are reported at the end."""

    dataset: Mapping[str, tuple[Path, ...]]
    inferer: Inferer
    formats: Mapping[str, Format]
    output_dir: str

    def run(self) -> None:
        """Predict every case into the folder of results; raises DatasetError where cases failed."""
        rows: list[Mapping[str, PlainValue]] = []
        failed: list[HilumError] = []
        notes: dict[str, Sequence[str]] = {}
        with atomic.write_whole(Path(self.output_dir)) as folder:
            folder.mkdir()
            for case, paths in self.dataset.items():
                try:
                    named = {"case": case, "image": str(paths[0])}
                    prediction = self._predict(case, paths, folder)
                    rows += [{**named, **row} for row in properties.output_rows(self.inferer.task.outputs(prediction))]
                    notes |= {case: prediction.notes} if prediction.notes else {}
                except HilumError as error:
                    failed.append(error)
            if not rows:
                raise failed[0]
            _write_tables(rows, [str(error) for error in failed], notes, folder)
        if failed:
            problem = f"{len(failed)} of {len(self.dataset)} cases failed, the first: {failed[0]}"
            raise DatasetError(problem, self.output_dir, "All of them stand in predictions.json")

    def _predict(self, case: str, paths: Sequence[Path], folder: Path) -> Prediction:
        """The result of a case, whose label maps are written; that of a further part has its name behind the case's."""
        image = self._image(case, paths)
        prediction = self.inferer(image, case)
        if prediction.abstained is not None:
            raise DatasetError(f"has no answer: {prediction.abstained}", case, "Look at the image")
        for part, numbers, labels in prediction.label_maps:
            suffix = {1: ".csv", 2: ".png"}.get(image.geometry.ndim, ".nii.gz")
            out = folder / f"{case}_{part}{suffix}" if part else folder / f"{case}{suffix}"
            write = self.formats[suffix].write
            assert write is not None  # noqa: S101 - both of them can
            write(image.with_label_map(numbers, labels), out)
            label_table.write_labels(labels, label_table.table_path(out))
        for name, made in prediction.maps.items():
            _write_map(np.asarray(made.data), image, folder / f"{case}_{name}", self.formats)
        return prediction

    def _image(self, case: str, paths: Sequence[Path]) -> Image:
        """The case's files as one image."""
        read: dict[str, Image] = {}
        preprocessing = self.inferer.preprocessing
        is_complete = len(paths) == len(preprocessing.channels) or not preprocessing.absent
        for number, path in enumerate(paths):
            suffix = str(_suffix(path, self.formats))
            match = NUMBERED.match(path.name[: -len(suffix)])
            with errors.foreign_errors(partial(_unreadable, path)):
                [image] = self.formats[suffix].read(path, ReadOptions()).values()
            # Of a case that lacks some the rest are known by their own numbers.
            name = str(number) if is_complete or match is None else match[2]
            read[name] = image if is_complete else image.with_image_name(name)
        return channel_stack.stack_images(read, case)


def _write_map(numbers: Array, image: Image, path: Path, formats: Mapping[str, Format]) -> None:
    """Numbers of every voxel: of a volume as NIfTI, of other images as an array. path: without a suffix"""
    write = formats[".nii.gz"].write if numbers.ndim == image.geometry.ndim == 3 else None
    if write is None:
        np.save(path.with_name(f"{path.name}.npy"), numbers)
        return
    pixels = voxel_images.one_channel(numbers)
    write(replace(image, pixels=pixels, channels=("0",), padding=None, facts={}), path.with_name(f"{path.name}.nii.gz"))


def _unreadable(path: Path, error: Exception) -> FormatError:
    return FormatError(f"cannot be read ({error})", str(path), "Get the file again")


def _write_tables(
    rows: Sequence[Mapping[str, PlainValue]], failed: Sequence[str], notes: Mapping[str, Sequence[str]], folder: Path
) -> None:
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        # A volume in ml and one in voxels, where a size is not known, have columns of their own.
        columns = list(dict.fromkeys(name for row in rows for name in row))
        table = CsvWriter(file, columns)
        for row in rows:
            table.add(row.get(name) for name in columns)
    record = {"schema": "hilum.predictions", "version": 1, "rows": [*rows], "failed": [*failed]}
    record |= {"notes": {case: [*own] for case, own in notes.items()}} if notes else {}
    (folder / "predictions.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
