"""Which images a run has seen, told by their contents, and how often cases were opened as a test."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from isocenter.errors import IsocenterError
from isocenter.files import PSEUDONYMS, cache_folder, content_hash, dataset_hash, file_hash, patient_key_id
from isocenter.quality import voxel_digest
from isocenter.runtime import read_json, write_json
from isocenter.transforms import stacked
from isocenter.values import Case, Dataset, Split

log = logging.getLogger("isocenter")
DATA_RECORD = "data.json"
SCHEMA = "isocenter.data"
# One JSON object a line, only ever added to: a line is written at once, so that two commands lose none.
LEDGER = "openings.jsonl"


@dataclass(frozen=True)
class DataRecord:
    """{case id: hash}, of all that a case was read from, of its image's file alone, and of the image's voxels."""

    contents: Mapping[str, str]
    images: Mapping[str, str]
    voxels: Mapping[str, str] = field(default_factory=dict)

    def trained(self, dataset: Dataset, parts: Mapping[str, Collection[Split]]) -> set[str]:
        """Ids of the cases that this model was trained or selected with, whatever they are called here.

        parts: {case id of the run: the parts that it was in}
        """
        used = [name for name, found in parts.items() if set(found) & {"train", "val"}]
        known = {of_cases.get(name) for of_cases in (self.contents, self.images) for name in used}
        images, voxels = image_hashes(dataset), {self.voxels[name] for name in used if name in self.voxels}
        trained = {case.id for case in dataset if case.files and {content_hash(case), images[case.id]} & known}
        # Saved anew, an image is another file with the same voxels: only they tell.
        others = [case for case in dataset if voxels and case.id not in trained]
        return trained | {case.id for case in others if _voxels_of(case) in voxels}


def _voxels_of(case: Case) -> str | None:
    """None for a case whose image cannot be read, which is told where it is predicted."""
    try:
        return voxel_digest(stacked(case.images, case.id)) if case.images else None
    except IsocenterError:
        return None


def write_data_record(folder: Path, dataset: Dataset, voxels: Mapping[str, str]) -> None:
    """`data.json`: each case with the hash of its contents, of its image, and of its voxels where they are known."""
    images = image_hashes(dataset)
    key = {"patient_key": patient_key_id()} if PSEUDONYMS in dataset.patients else {}
    rows = [
        {"case": case.id, "content": content_hash(case), "image": images[case.id], "voxels": voxels.get(case.id)}
        for case in dataset
        if case.files
    ]
    write_json(folder / DATA_RECORD, SCHEMA, {**key, "rows": rows})


def read_data_record(folder: Path) -> DataRecord | None:
    """The record in a run's folder; None where there is none. IntegrityError for a damaged one."""
    if not (folder / DATA_RECORD).is_file():
        return None
    rows = read_json(folder / DATA_RECORD, SCHEMA)["rows"]
    by_case = ({row["case"]: row[key] for row in rows if row.get(key)} for key in ("content", "image", "voxels"))
    return DataRecord(*by_case)  # a run of before there were hashes of voxels has none


def named_as_in_run(dataset: Dataset, record: DataRecord | None) -> Dataset:
    """The cases by the names that they have in a run, which their contents tell where they are called otherwise now.

    Names of DICOM cases follow from the installation's patient key, and were others before there was one.
    """
    if record is None or all(case.id in record.contents for case in dataset):
        return dataset
    taken = {case.id for case in dataset}
    of_run = {content: name for name, content in record.contents.items() if name not in taken}
    names = {case.id: of_run.get(content_hash(case), case.id) for case in dataset if case.files}
    return dataset.renamed(names)


def image_hashes(dataset: Dataset) -> dict[str, str]:
    """{case id: hash} of the first file that a case was read from, which is its image or a slice of it.

    Of a file that holds several cases, with the case's place in it. An image that was labelled anew, in another class
    or beside other channels, is the same image.
    """
    held = Counter(case.files[0] for case in dataset if case.files)
    return {
        case.id: file_hash(case.files[0]) + (case.key if held[case.files[0]] > 1 else "")
        for case in dataset
        if case.files
    }


def opened(cases: Sequence[Case]) -> int:
    """Record that these cases were opened as a test, and say how often that has been on this machine, this time too.

    0 where that cannot be said: cases of no file, or a cache that cannot be written.
    """
    if not cases or not all(case.files for case in cases):
        return 0
    place, which = cache_folder() / LEDGER, dataset_hash(Dataset(tuple(cases)))
    line = json.dumps({"test": which, "cases": len(cases), "when": datetime.now(UTC).isoformat(timespec="seconds")})
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        return sum(which in line for line in place.read_text(encoding="utf-8").splitlines())
    except OSError as error:
        log.warning("%s: cannot be written (%s), so this opening of a test is not counted", place, error.strerror)
        return 0
