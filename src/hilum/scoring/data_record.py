"""The record of images that a run has seen, by their contents, and of how often cases were opened as a test.

Cases seen by the models that a training starts from, or learns from, are no new patients to it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict

from hilum import errors
from hilum.errors import HilumError
from hilum.files.storage import cache, csv_text, hashing
from hilum.layouts import PSEUDONYMS
from hilum.quality import image_descriptors
from hilum.reading.image_pairs import FIXED, MOVING
from hilum.runtime import record_files
from hilum.runtime.package import package_contents
from hilum.transforms import channel_stack
from hilum.values import Case, Dataset, Split
from hilum.values.record_schema import RecordSchema
from hilum.work_state import log

DATA_RECORD = "data.json"


class DataRow(TypedDict):
    """The hashes of a case: of its contents, of its image and of its voxels, where these are known."""

    case: str
    content: str
    image: str
    moving: NotRequired[str]
    voxels: str | None


class DataRecordFile(TypedDict):
    """The cases that a model has learnt from, by their hashes.

    parts: {fold: {case: its part}} when the training began; the set's own test part is in no fold, whose name is empty
    """

    patient_key: NotRequired[str]
    inherited: list[str]
    unknown_weights: list[str]
    parts: dict[str, dict[str, str]]
    rows: list[DataRow]


SCHEMA = RecordSchema("hilum.data", DataRecordFile)
# One JSON object a line, only ever added to: a line is written at once, so that two commands lose none.
LEDGER = "openings.jsonl"


@dataclass(frozen=True)
class DataRecord:
    """{case id: hash}, of all that a case was read from, of its image's file alone, and of the image's voxels.

    images:    of a pair a hash of each image
    inherited: hashes of the cases that trained or selected the models from whose weights the training started, and of
               images that it saw without labels
    unknown:   files of weights from which it started, of which nobody knows what they had seen
    parts:     {fold: {case id: its part}} when the training began
    """

    contents: Mapping[str, str]
    images: Mapping[str, tuple[str, ...]]
    voxels: Mapping[str, str] = field(default_factory=dict)
    inherited: frozenset[str] = frozenset()
    unknown: tuple[str, ...] = ()
    parts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def hashes(self, names: Iterable[str]) -> set[str]:
        """All hashes of these cases of the run."""
        names = list(names)
        cases = {known[name] for name in names for known in (self.contents, self.voxels) if name in known}
        return cases | {one for name in names for one in self.images.get(name, ())}

    def trained_cases(self, dataset: Dataset, parts: Mapping[str, Collection[Split]]) -> set[str]:
        """Ids of the cases that this model, or one before it, has learnt anything from, whatever they are called here.

        parts: {case id of the run: the parts that it was in}
        """
        used = [name for name, found in parts.items() if set(found) - {"test"}]
        seen_hashes, images = self.hashes(used) | self.inherited, image_hashes(dataset)
        trained = {
            case.id for case in dataset if case.files and {hashing.content_hash(case), *images[case.id]} & seen_hashes
        }
        # Saved anew, an image is another file with the same voxels: only they tell.
        others = [case for case in dataset if (self.voxels or self.inherited) and case.id not in trained]
        return trained | {case.id for case in others if _voxels_of(case) in seen_hashes}

    def changed_cases(self, cases: Iterable[Case]) -> set[str]:
        """Ids of those of these cases of the run whose files are not what they were when it began, or are gone."""
        recorded = [case for case in cases if case.id in self.contents]
        return {case.id for case in recorded if _content_or_none(case) != self.contents[case.id]}

    def inherited_among(self, names: Iterable[str]) -> list[str]:
        """The cases of the run that an earlier model had seen, from whose weights the run started."""
        return [name for name in names if self.hashes([name]) & self.inherited]


def hashes_by_case(dataset: Dataset) -> dict[str, set[str]]:
    """{case id: hashes of its contents, image and voxels}, by which it is known again whatever it is called."""
    images = image_hashes(dataset)
    hashes = {case.id: {_voxels_of(case)} for case in dataset}
    of_files = {case.id: {hashing.content_hash(case), *images[case.id]} for case in dataset if case.files}
    return {name: {one for one in own | of_files.get(name, set()) if one is not None} for name, own in hashes.items()}


def _content_or_none(case: Case) -> str | None:
    try:
        return hashing.content_hash(case)
    except OSError:
        return None


def _voxels_of(case: Case) -> str | None:
    """None for a case whose image cannot be read, which is told where it is predicted."""
    try:
        return image_descriptors.voxel_digest(channel_stack.stack_images(case.images, case.id)) if case.images else None
    except HilumError:
        return None


def write_data_record(
    folder: Path,
    dataset: Dataset,
    voxels: Mapping[str, str],
    inherited: Collection[str] = (),
    unknown: Collection[str] = (),
    parts: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """`data.json`: each case with the hash of its contents, of its image, and of its voxels where they are known.

    inherited, unknown, parts: as in `DataRecord`
    """
    hashes = image_hashes(dataset)
    rows = [
        _hashed_row(case, image, moving, voxels.get(case.id))
        for case in dataset
        if case.files
        for image, *others in [hashes[case.id]]
        for moving in (*others, None)[: max(1, len(others))]
    ]
    of_folds = {fold: dict(of_fold) for fold, of_fold in (parts or {}).items()}
    record = DataRecordFile(inherited=sorted(inherited), unknown_weights=sorted(unknown), parts=of_folds, rows=rows)
    if PSEUDONYMS in dataset.patients:
        record = {"patient_key": hashing.patient_key_id(), **record}
    record_files.write_json(folder / DATA_RECORD, SCHEMA, record)


def _hashed_row(case: Case, image: str, moving: str | None, voxels: str | None) -> DataRow:
    content = hashing.content_hash(case)
    if moving is None:
        return DataRow(case=case.id, content=content, image=image, voxels=voxels)
    return DataRow(case=case.id, content=content, image=image, moving=moving, voxels=voxels)


def copy_data_record(source: Path, folder: Path, records: Iterable[DataRecord]) -> None:
    """The record of one run for a model of several, with what the models before any of them had seen."""
    record = record_files.read_json(source / DATA_RECORD, SCHEMA)
    inherited = frozenset[str]().union(*(one.inherited for one in records))
    unknown = sorted({name for one in records for name in one.unknown})
    merged: DataRecordFile = {**record, "inherited": sorted(inherited), "unknown_weights": unknown}
    record_files.write_json(folder / DATA_RECORD, SCHEMA, merged)


def read_data_record(folder: Path) -> DataRecord:
    """The record in a run's folder; IntegrityError for one that is missing or damaged."""
    record = record_files.read_json(folder / DATA_RECORD, SCHEMA)
    contents = {row["case"]: row["content"] for row in record["rows"] if row["content"]}
    voxels = {row["case"]: row["voxels"] for row in record["rows"] if row["voxels"]}
    images = {row["case"]: (row["image"], *filter(None, [row.get("moving")])) for row in record["rows"]}
    inherited, unknown = frozenset(record["inherited"]), tuple(record["unknown_weights"])
    return DataRecord(contents, images, voxels, inherited, unknown, record["parts"])


def name_as_in_run(dataset: Dataset, record: DataRecord) -> Dataset:
    """The run's own data by the names that its cases have in the run, where they are called otherwise now.

    Names of DICOM cases follow from the installation's patient key, and were others before there was one. Contents tell
    which is which; data that lack a case of the run are other data, and stay as they are.
    """
    if {case.id for case in dataset} >= set(record.contents):
        return dataset
    contents = {case.id: hashing.content_hash(case) for case in dataset if case.files}
    if not set(record.contents.values()) <= set(contents.values()):
        return dataset
    of_run: dict[str, list[str]] = {}  # several where one image stands twice
    for name, content in record.contents.items():
        of_run.setdefault(content, []).append(name)
    names = {name: of_run[content].pop(0) if of_run.get(content) else name for name, content in contents.items()}
    return dataset.rename_cases(names)


def image_hashes(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """{case id: hash} of the first file that a case was read from, which is its image or a slice of it.

    Of a file that holds several cases, with the case's place in it. An image that was labelled anew, in another class
    or beside other channels, is the same image. A pair has a hash of each of its images: one of another pair is the
    same image, whichever it is laid on.
    """
    held = Counter(case.files[0] for case in dataset if case.files and not _is_pair(case))
    return {
        case.id: _of_pair(case)
        if _is_pair(case)
        else (hashing.file_hash(case.files[0]) + (case.key if held[case.files[0]] > 1 else ""),)
        for case in dataset
        if case.files
    }


def _is_pair(case: Case) -> bool:
    return {FIXED, MOVING} <= {*case.images} and len(case.files) > 1


def _of_pair(case: Case) -> tuple[str, str]:
    """Hashes of the fixed and the moving image, whose first files stand first; of one file with their places in it."""
    fixed, moving = case.files[:2]
    places = case.key.split("|")
    half = len(places) // 2
    keys = ("|".join(places[:half]), "|".join(places[half:])) if fixed == moving else ("", "")
    return hashing.file_hash(fixed) + keys[0], hashing.file_hash(moving) + keys[1]


def count_opening(cases: Sequence[Case]) -> int:
    """Record that these cases were opened as a test, and say how often that has been on this machine, this time too.

    0 where that cannot be said: cases of no file, or a cache that cannot be written.
    """
    if not cases or not all(case.files for case in cases):
        return 0
    ledger, which = cache.cache_folder() / LEDGER, hashing.dataset_hash(Dataset(tuple(cases)))
    line = json.dumps({"test": which, "cases": len(cases), "when": datetime.now(UTC).isoformat(timespec="seconds")})
    try:
        ledger.parent.mkdir(parents=True, exist_ok=True)
        with ledger.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
        return sum(which in line for line in ledger.read_text(encoding="utf-8").splitlines())
    except OSError as error:
        log.warning("%s: cannot be written (%s), so this opening of a test is not counted", ledger, error.strerror)
        return 0


# Folders from a file of weights up to its run: best, checkpoints, fold_k, the run.
ABOVE = 4
# The fold whose weights a training takes from a run of several; a run of one training calls it so too.
FIRST = "0"


@dataclass(frozen=True)
class Lineage:
    """The earlier models that a training starts from or learns from.

    seen:    hashes of the cases that trained or selected earlier models
    unknown: names of files of weights that no run or package explains
    """

    seen: frozenset[str] = frozenset()
    unknown: tuple[str, ...] = ()


def trace_lineage(starts: Sequence[Path], teachers: Sequence[Path] = ()) -> Lineage:
    """The lineage of models or files of weights from which one training starts.

    teachers: models whose answers it learns; those of all folds answer, so that what any of them has seen counts
    Raises UsageError where there is nothing, IntegrityError for a damaged record.
    """
    lineages = [*(_of_one(start) for start in starts), *(_of_one(one, every_fold=True) for one in teachers)]
    hashes = frozenset().union(*(one.seen for one in lineages))
    return Lineage(hashes, tuple(name for one in lineages for name in one.unknown))


def _of_one(start: Path, *, every_fold: bool = False) -> Lineage:
    if start.is_file() and start.suffix == ".zip":
        with record_files.unpack(start) as folder:
            return _of_one(folder, every_fold=every_fold)
    for ancestor in (start, *list(start.resolve().parents)[:ABOVE]):
        if (ancestor / DATA_RECORD).is_file() and (ancestor / "split.csv").is_file():
            return _of_run(ancestor, start, every_fold=every_fold)
        if (ancestor / "hilum" / "model.json").is_file():
            return Lineage(frozenset(package_contents.package_record(ancestor)["record"]["trained"]))
    return Lineage(unknown=(start.name,))


def _of_run(run: Path, start: Path, *, every_fold: bool) -> Lineage:
    """The lineage of a run; of folds one network is taken, the first or that of the folder that was given, or all."""
    record, table = read_data_record(run), csv_text.read_text_table(run / "split.csv")
    numbers = [part.removeprefix("fold_") for part in start.resolve().relative_to(run.resolve()).parts[:1]]
    fold = next((number for number in numbers if number in set(table["fold"])), FIRST)
    rows = table if every_fold else table[table["fold"] == fold]
    used = rows.loc[rows["split"].isin(["train", "val"]), "case"].unique()
    return Lineage(frozenset(record.hashes(used)) | record.inherited, record.unknown)


def lineage_notes(record: DataRecord, tested: Sequence[str]) -> list[str]:
    """Notes against figures on these cases, where an earlier model has seen them."""
    notes, inherited = [], record.inherited_among(tested)
    if inherited:
        notes.append(
            f"{len(inherited)} of {errors.count_phrase(len(tested), 'test case')} had trained or selected a model that "
            "this one started or learnt from: the figures say little about new patients."
        )
    for name in record.unknown:
        notes.append(f"Training started or learnt from {name}: which cases that had seen is not known.")
    return notes
