"""A cohort of simulated patients as a folder of DICOM: series, and a segmentation for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from isocenter.files import SeriesNames, read, write_label_map, write_series, written
from isocenter.transforms import phantom

Progress = Callable[[int, int], None]
# Raised when the same numbers would make another cohort.
VERSION = 1


def write_phantoms(
    folder: Path,
    *,
    patients: int = 40,
    twice: int = 2,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Write the cohort into a new folder, whole or not at all.

    twice: so many of the patients came a second time; both examinations must stay on one side of any split
    """
    examinations = [(patient, visit) for patient in range(patients) for visit in range(1 + (patient < twice))]
    with written(folder) as partial:
        for done, (patient, visit) in enumerate(examinations, start=1):
            _write_examination(partial / f"patient_{patient:03d}" / f"visit_{visit}", seed, patient, visit)
            if progress is not None:
                progress(done, len(examinations))


def _write_examination(folder: Path, seed: int, patient: int, visit: int) -> None:
    image, mask = phantom(seed, patient, visit)
    names = SeriesNames(f"PHANTOM-{seed}-{patient:03d}", f"simulated visit {visit}", "simulated MR")
    folder.mkdir(parents=True)
    write_series(image, names, folder / "image")
    # Read again, because a segmentation refers to the files of its series.
    source = read(folder / "image")
    write_label_map(mask.data[0], mask.labels, source, folder / "reference.dcm", algorithm="isocenter phantom")
