"""Which images a run has seen, told by their contents, and how often cases were opened as a test."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from isocenter.files import content_hash, dataset_hash, file_hash
from isocenter.runtime import read_json, write_json
from isocenter.training import cache_folder
from isocenter.values import Case, Dataset, Split

log = logging.getLogger("isocenter")
DATA_RECORD = "data.json"
SCHEMA = "isocenter.data"
# One JSON object a line, only ever added to: a line is written at once, so that two commands lose none.
LEDGER = "openings.jsonl"


@dataclass(frozen=True)
class DataRecord:
    """{case id: hash}, of all that a case was read from and of its image alone."""

    contents: Mapping[str, str]
    images: Mapping[str, str]

    def trained(self, dataset: Dataset, parts: Mapping[str, Collection[Split]]) -> set[str]:
        """Ids of the cases that this model was trained or selected with, whatever they are called here.

        parts: {case id of the run: the parts that it was in}
        """
        used = [name for name, found in parts.items() if set(found) & {"train", "val"}]
        known = {self.contents.get(name) for name in used} | {self.images.get(name) for name in used}
        images = image_hashes(dataset)
        return {case.id for case in dataset if case.files and {content_hash(case), images[case.id]} & known}


def write_data_record(folder: Path, dataset: Dataset) -> None:
    """`data.json`: each case with the hash of its contents and of its image."""
    images = image_hashes(dataset)
    rows = [
        {"case": case.id, "content": content_hash(case), "image": images[case.id]} for case in dataset if case.files
    ]
    write_json(folder / DATA_RECORD, SCHEMA, {"rows": rows})


def read_data_record(folder: Path) -> DataRecord | None:
    """The record in a run's folder; None where there is none. IntegrityError for a damaged one."""
    if not (folder / DATA_RECORD).is_file():
        return None
    rows = read_json(folder / DATA_RECORD, SCHEMA)["rows"]
    return DataRecord({row["case"]: row["content"] for row in rows}, {row["case"]: row["image"] for row in rows})


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
