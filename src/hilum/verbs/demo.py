"""`demo`: the main job on data that anybody has, from nothing to a report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hilum import keywords, work_state
from hilum.errors import HilumError, UsageError
from hilum.files import file_formats, result_images
from hilum.files.dicom.writing import series_writing
from hilum.files.dicom.writing.series_writing import SeriesNames
from hilum.files.storage import atomic, cache, csv_text, web
from hilum.files.synthetic_marks import SYNTHETIC
from hilum.lazy import pandas as pd
from hilum.options.training import DemoOptions
from hilum.reading import ReadingOptions, dataset_reading, verb_results
from hilum.report import progress_tracking
from hilum.transforms import phantoms
from hilum.values import Dataset
from hilum.verbs import predict, train
from hilum.verbs.predict import PredictionResult
from hilum.verbs.train import Run
from hilum.work_state import log

# Of a checkout: the volumes, and the list by which its folder of data is known from any other.
SHIPPED, SHIPPED_LIST = Path("data", "hippocampus"), Path("data", "files.csv")
# The checkout that holds this file; no such folder where the package comes from a wheel.
CHECKOUT = Path(__file__).parents[3]
PUBLIC = "Task04_Hippocampus"
REAL = "REAL MR volumes of hippocampi, Medical Segmentation Decathlon, task 4, CC BY-SA 4.0"
SIMULATED = "SIMULATED patients, whose figures say nothing about real ones"
# Bytes: the archive has 28 MB, and is a tar without compression.
LIMIT = 100_000_000
# s: a demo that waits longer than this for its data is none.
DOWNLOAD_SECONDS = 180.0
# Of the minutes, for predicting one case after the run.
PREDICTION_MINUTES = 0.15
LEAST_MINUTES = 0.5
# Of the simulated cohort: raised when the same numbers would make another one.
VERSION = 2


@dataclass(frozen=True)
class DemoSource:
    """The data that the demo uses, and what they are in words: real or simulated, the set, its licence.

    is_simulated: whether they are patients that the demo makes up; they are written once the user knows it
    """

    path: Path
    what: str
    is_simulated: bool = False

    def __str__(self) -> str:
        return f"data: {self.what}: {self.path}"


@keywords.takes(DemoOptions)
@work_state.time_command()
def demo(options: DemoOptions) -> Run:
    """Train on `data`, or on what can be found, within `minutes` from now; then predict one test case.

    Without `data`: the hippocampi in the checkout's data/, else the public set by download, else simulated patients.
    out: the run's folder; the prediction lies in its `prediction/`
    Raises what `train` raises.
    """
    say = options.say or log.info
    if Path(options.out).exists() and not options.overwrite:
        raise UsageError("exists already", str(options.out), "Choose another --out, or give --overwrite")
    if options.data is not None:
        source = DemoSource(Path(options.data), "given")
        verb_results.refuse_missing(source.path)
    else:
        source = find_data(Path.cwd())
    say(str(source))
    if source.is_simulated:
        simulated_cohort()
    dataset = dataset_reading.open_dataset(source.path, ReadingOptions())
    run = train.train(
        source.path,
        minutes=max(options.minutes - PREDICTION_MINUTES, LEAST_MINUTES),
        out=options.out,
        overwrite=options.overwrite,
        assignments=options.assignments,
    )
    for line in str(run).splitlines()[:-1]:  # the last one is the report's path
        say(line)
    say(_line(_predict_one(run, dataset)))
    say(str(run.report.resolve()))
    return run


def find_data(start: Path, checkout: Path = CHECKOUT) -> DemoSource:
    """The best data there are: of a checkout, else public, else simulated.

    start: the working folder, which may be the checkout or one of its folders
    """
    working = start.resolve()
    for place in (working, working.parent, checkout):
        if (place / SHIPPED_LIST).is_file() and (place / SHIPPED).is_dir():
            return DemoSource(place / SHIPPED, REAL)
    folder = cache.cache_folder() / "downloads" / PUBLIC
    if folder.is_dir():
        return DemoSource(folder / PUBLIC, f"{REAL}, downloaded before")
    try:
        fetch_public_data(folder)
    except HilumError as error:
        what = f"{SIMULATED} (the public set {error.problem.rstrip('.')})"
        return DemoSource(simulated_folder(), what, is_simulated=True)
    return DemoSource(folder / PUBLIC, f"{REAL}, downloaded now")


def fetch_public_data(folder: Path) -> None:
    """Medical Segmentation Decathlon, task 4, from the address and with the checksum that MONAI keeps for it.

    Antonelli et al., Nature Communications 2022, doi:10.1038/s41467-022-30695-9; CC BY-SA 4.0
    """
    from monai.apps import DecathlonDataset  # takes seconds to import, and is needed only here

    fetch_archive(DecathlonDataset.resource[PUBLIC], DecathlonDataset.md5[PUBLIC], folder)


def fetch_archive(url: str, md5: str, folder: Path) -> None:
    """A tar from the web, unpacked into a new folder; nothing is left of one that failed.

    Raises ResourceError where it cannot be got, IntegrityError or FormatError where it is not what it should be.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=folder.parent) as room,
        progress_tracking.track_progress("downloading") as tracker,
    ):
        archive = Path(room, "archive.tar")

        def progress(done: int, total: int) -> None:
            tracker(done >> 20, (total or LIMIT) >> 20, "MiB")

        web.download(url, archive, md5=md5, limit=LIMIT, seconds=DOWNLOAD_SECONDS, progress=progress)
        web.unpack_tar(archive, folder, limit=LIMIT)


def simulated_folder(patients: int = 40) -> Path:
    """The folder of the simulated cohort, whether it was written or not."""
    return cache.cache_folder() / f"simulated-phantoms-{VERSION}-{patients}"


def simulated_cohort(patients: int = 40) -> Path:
    """The folder of the simulated cohort, written now if it was not before."""
    folder = simulated_folder(patients)
    if not folder.is_dir():
        with progress_tracking.track_progress("writing simulated patients") as tracker:
            write_phantoms(folder, patients=patients, progress=tracker)
    return folder


def write_phantoms(
    folder: Path,
    *,
    patients: int = 40,
    twice: int = 2,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a cohort of simulated patients as DICOM, each series with its segmentation; whole, or not at all.

    twice: so many of the patients came a second time; both examinations must stay on one side of any split
    """
    examinations = [(patient, visit) for patient in range(patients) for visit in range(1 + (patient < twice))]
    with atomic.write_whole(folder) as partial:
        for done, (patient, visit) in enumerate(examinations, start=1):
            _write_examination(partial / f"patient_{patient:03d}" / f"visit_{visit}", seed, patient, visit)
            if progress is not None:
                progress(done, len(examinations))


def _write_examination(folder: Path, seed: int, patient: int, visit: int) -> None:
    image, mask = phantoms.make_phantom(seed, patient, visit)
    names = SeriesNames(f"PHANTOM-{seed}-{patient:03d}", f"simulated visit {visit}", "simulated MR")
    folder.mkdir(parents=True)
    marked = replace(image, facts={**image.facts, SYNTHETIC: "hilum phantom"})
    series_writing.write_series(marked, names, folder / "image")
    # Read again, because a segmentation refers to the files of its series.
    source = file_formats.read(folder / "image")
    result_images.write_label_map(
        mask.data[0], mask.labels, source, folder / "reference.dcm", algorithm="hilum phantom"
    )


def _predict_one(run: Run, dataset: Dataset) -> PredictionResult:
    """One case as a user would predict it."""
    chosen = shown_case(csv_text.read_text_table(run.out / "split.csv"))
    return predict.predict(run.out, dataset.only({chosen}), out=run.out / "prediction")


def shown_case(split: pd.DataFrame) -> str:
    """A test case, or any case where none was kept apart; split: `split.csv`"""
    tested = split[split["split"] == "test"]
    return str((tested if len(tested) else split).iloc[0]["case"])


def _line(predicted: PredictionResult) -> str:
    row = predicted.table.iloc[0]
    if predicted.files:
        return f"case {row['case']}: predicted into {', '.join(str(path) for path in predicted.files)}"
    values = [f"{name} {_short(value)}" for name, value in row.items() if name not in ("case", "image")]
    return f"case {row['case']}: {', '.join(values)}"


def _short(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
