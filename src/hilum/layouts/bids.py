"""BIDS: `sub-*/[ses-*/]anat/sub-*_T1w.nii.gz`, masks in the same folder or under derivatives/, participants.tsv.

https://bids-specification.readthedocs.io, version 1.9: a case is one session, its channels are the suffixes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from hilum import errors
from hilum.errors import DatasetError, HilumError
from hilum.files import modality_words
from hilum.layouts.cases import cell_loading, mask_pairs, stated_lists, table_reading
from hilum.layouts.cases.dataset_folder import Folder, FolderMember
from hilum.layouts.cases.mask_pairs import IMAGE, MaskFile, NamedCase, PairKey
from hilum.layouts.cases.names import IMAGES, LABELS
from hilum.layouts.cases.table_reading import TableRow
from hilum.layouts.layout import BY_NAMES, DatasetOptions, Example, Layout, Problems, Reading
from hilum.values import FactRule, Geometry, Problem, grouping

# Time series, field maps and the like are not images that a mask or a class belongs to.
OTHER_DATA = frozenset({"func", "fmap", "perf", "eeg", "meg", "ieeg", "beh", "nirs", "motion"})
DIFFUSION = "dwi"  # its folder
LOOKED_AT = 3  # masks whose grids are compared
MASK_SUFFIXES = frozenset({"dseg", "mask", "msk", "seg", "lesion", "roi", "label", "segmentation"})
SUBJECT = re.compile(r"sub-[A-Za-z0-9]+")
# Where the subjects of a whole study lie, beside its derivatives.
ABOVE = frozenset({"rawdata", "bids"})
# Folders beside the subjects, or of another layout.
NOT_SITES = frozenset({"derivatives", "sourcedata", "code"}) | IMAGES | LABELS
SESSION = ("sub", "ses")
SCANS = "_scans.tsv"
# Entities that say how a file was made from another.
DERIVED = frozenset({"desc", "space", "label", "res", "den"})


@dataclass(frozen=True)
class BidsScan:
    """One file, by its entities: sub-01_ses-02_acq-x_T1w.

    of_case: entities that name the case, in order
    """

    member: FolderMember
    entities: Mapping[str, str]
    suffix: str
    of_case: tuple[str, ...] = SESSION

    @property
    def session(self) -> str:
        """The entities that name the case, as sub-01_ses-02."""
        return "_".join(f"{key}-{self.entities[key]}" for key in self.of_case if key in self.entities)

    @property
    def pipeline(self) -> str:
        """The folder that made it: its first one in derivatives/, or the raw data."""
        folders = self.member.folders
        if "derivatives" not in folders:
            return "the images' own folders"
        made = folders[folders.index("derivatives") + 1 :][:1]
        return "/".join(("derivatives", *(name for name in made if not SUBJECT.fullmatch(name))))

    @property
    def channel(self) -> str:
        """The suffix, and what distinguishes two images of one suffix (acq-, ce-, run-, echo-, ...)."""
        rest = [f"{key}-{value}" for key, value in self.entities.items() if key not in self.of_case]
        return "_".join((*rest, self.suffix))

    @property
    def is_image(self) -> bool:
        """Whether it is neither derived nor a mask."""
        return "derivatives" not in self.member.folders and self.suffix.lower() not in MASK_SUFFIXES

    @property
    def is_mask(self) -> bool:
        """Whether it is a mask, but of the brain, as one in derivatives often is."""
        is_brain = (self.suffix, self.entities.get("desc")) == ("mask", "brain")
        return self.suffix.lower() in MASK_SUFFIXES and not is_brain


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """Images lie below folders that are called sub-*, in the folder itself, in one of the raw data, or of sites.

    Folders around subjects without masks may be classes.
    """
    places = [member.folders for member in folder.images]
    below = (f[1:] if f[:1] and f[0].lower() in ABOVE else f for f in places)
    if any(folders and SUBJECT.fullmatch(folders[0]) for folders in below):
        return True
    is_contoured = any(member.stem.rpartition("_")[2].lower() in MASK_SUFFIXES for member in folder.images)
    in_sites = any(len(f) > 1 and f[0].lower() not in NOT_SITES and SUBJECT.fullmatch(f[1]) for f in places)
    return (is_contoured or not options.references) and in_sites


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """One case a session; the channels are those that every session has.

    Where no image is in all sessions, as in VerSe with its parts and directions, each image of one suffix is a case.
    Masks with several labels in one session (label-liver, label-spleen) are structures of one label map.
    Raises DatasetError where masks of several pipelines, or of several images, could be meant.
    """
    meant, elsewhere = _meant(folder, options)
    scans = _with_common_channel(meant)
    sessions = _by_session(scan for scan in scans if scan.is_image)
    masks = _by_session(scan for scan in scans if scan.is_mask)
    if options.references:
        keys = {key for own in sessions.values() for scan in own for key in scan.entities if key not in scan.of_case}
        _check(folder, masks, keys - DERIVED)
    counts = _counts(sessions)
    common = {channel for channel, count in counts.items() if count == len(sessions)}
    channels, cases = sorted(common or counts), list[NamedCase]()
    for session, own in sorted(sessions.items()):
        known = {scan.channel: scan.member for scan in own}
        if known.keys() >= {*channels}:
            images = {name if len(channels) > 1 else IMAGE: known[name] for name in channels}
            # A discrete segmentation holds more than a mask.
            label_maps = [scan for scan in masks[session] if scan.suffix == "dseg"] or masks[session]
            files = tuple(MaskFile(scan.member, structure=scan.entities.get("label", "")) for scan in label_maps)
            cases.append(NamedCase(PairKey((), session, own[0].member.split), images, files))
    rare = sorted(counts.keys() - common)
    what, why = f"not every session has {', '.join(rare)}", "channels must be those of all cases"
    note = Problem("note", what, why=why, remedy="Take sessions away to use them")
    people, of_people = _participants(folder)
    subjects = {f"sub-{scans_of[0].entities['sub']}" for scans_of in sessions.values()}
    if people and options.references:
        listed = {name if name.startswith("sub-") else f"sub-{name}" for name in people}
        of_people += stated_lists.list_problems("participants.tsv", listed, subjects, "subject")
    lists = _scan_lists(folder) if options.references else ()
    problems = (*([note] if common and rare else []), *elsewhere, *of_people, *lists)
    how = f"BIDS sessions with {', '.join(channels)}"
    modality = modality_words.common_modality(channels)
    reading = mask_pairs.reading_of_cases(cases, folder, options, how=how, modality=modality, problems=problems)
    rows = []
    for row in reading.rows:
        subject = f"sub-{sessions[row.name][0].entities['sub']}"
        covariates = people.get(subject, people.get(subject.removeprefix("sub-"), {}))
        rows.append(replace(row, patient=subject, covariates=covariates))
    return replace(reading, rows=tuple(rows), patients="the BIDS subject (sub-...)")


def _meant(folder: Folder, options: DatasetOptions) -> tuple[list[BidsScan], Problems]:
    """The files without those in dwi/, or with them in place of the other images where masks lie on their grid alone.

    Maps and traces are meant, as in ISLES 2022; files with b-values are series. Without masks a model's number of
    images decides. The problem names the images that are left out.
    """
    every = [scan for member in folder.images if (scan := _scan(member)) is not None]
    usual = [scan for scan in every if DIFFUSION not in scan.member.folders]
    masks, images = [scan for scan in every if scan.is_mask], [scan for scan in usual if scan.is_image]
    mapped = [scan for scan in every if DIFFUSION in scan.member.folders and scan.is_image]
    if not mapped or any(member.suffix == ".bval" for member in folder.members):
        return usual, ()
    if options.references:
        is_meant = _lie_on(masks, mapped, options) and not _lie_on(masks, images, options)
    else:
        counts = [len({scan.channel for scan in some}) for some in (mapped, images)]
        is_meant = counts[0] == options.channels != counts[1]
    if not is_meant:
        return usual, ()
    names, why = sorted({scan.channel for scan in images}), "the masks lie on the grid of others"
    remedy = "To use them, bring them onto that grid, and list them in dataset.csv"
    note = Problem("warning", f"{errors.list_phrase(names)} left out", (), why, remedy)
    return [*masks, *mapped], (note,) if names else ()


def _lie_on(masks: Sequence[BidsScan], images: Sequence[BidsScan], options: DatasetOptions) -> bool:
    """Whether the first masks lie on the grids of the images of their sessions."""
    sessions = _by_session(images)
    looked = [(mask, image) for mask in masks[:LOOKED_AT] for image in sessions[mask.session]]
    grids = [[_grid(scan, options) for scan in pair] for pair in looked]
    return bool(grids) and all(one and other and one.equals(other) for one, other in grids)


def _grid(scan: BidsScan, options: DatasetOptions) -> Geometry | None:
    try:
        return cell_loading.load_image(scan.member.path, options.read).geometry
    except HilumError:  # whoever reads the case says it
        return None


def _with_common_channel(scans: Sequence[BidsScan]) -> Sequence[BidsScan]:
    """The files; all entities of images name their case where sessions have no channel in common but for these."""
    entities = tuple(dict.fromkeys(key for scan in scans if scan.is_image for key in scan.entities))
    parted = [replace(scan, of_case=entities) for scan in scans]
    return parted if not _has_common(scans) and _has_common(parted) else scans


def _has_common(scans: Sequence[BidsScan]) -> bool:
    sessions = _by_session(scan for scan in scans if scan.is_image)
    return max(_counts(sessions).values(), default=0) == len(sessions)


def _counts(sessions: Mapping[str, Collection[BidsScan]]) -> Counter[str]:
    """{channel: sessions that have it}"""
    return Counter(channel for own in sessions.values() for channel in {scan.channel for scan in own})


def _by_session(scans: Iterable[BidsScan]) -> Mapping[str, list[BidsScan]]:
    return grouping.by_key((scan.session, scan) for scan in scans)


def _check(folder: Folder, masks: Mapping[str, Sequence[BidsScan]], keys: Collection[str]) -> None:
    """Raise DatasetError where one session has masks of several pipelines, or of several images (run-1 and run-2).

    keys: entities by which images of one session differ
    """
    for session, own in masks.items():
        pipelines = sorted({scan.pipeline for scan in own})
        entities = ([f"{key}-{scan.entities[key]}" for key in sorted(keys) if key in scan.entities] for scan in own)
        of_images = {"_".join(stated) or "none" for stated in entities}
        if len(pipelines) > 1:
            problem = f"{session} has masks of {len(pipelines)} sources ({', '.join(pipelines)})"
            remedy = "Keep the masks of one source, and move the others out of the folder"
            raise DatasetError(problem, str(folder.root), remedy)
        if len(of_images) > 1:
            problem = f"{session} has masks of several images ({errors.list_phrase(sorted(of_images))})"
            raise DatasetError(problem, str(folder.root), "Keep those of one image")


def _scan(member: FolderMember) -> BidsScan | None:
    """The file by its entities; None where it names no subject, or is no image or mask."""
    *pairs, suffix = member.stem.split("_")
    entities = {key: value for key, dash, value in (pair.partition("-") for pair in pairs) if dash}
    return None if "sub" not in entities or OTHER_DATA & set(member.folders) else BidsScan(member, entities, suffix)


def _participants(folder: Folder) -> tuple[dict[str, TableRow], list[Problem]]:
    """{subject: covariates} from participants.tsv, what was understood of its columns, and what was not."""
    path = folder.root / "participants.tsv"
    table = table_reading.read_table(path) if path.is_file() else None
    column = table.column(("participant_id",)) if table else None
    if table is None or column is None:
        return {}, []
    table, problems = table_reading.convert_values(table, (column,))
    return {str(row[column]): table_reading.covariates_of_row(row, (column,)) for row in table.rows}, problems


def _scan_lists(folder: Folder) -> Iterator[Problem]:
    """The warning on files that the tables of scans of the sessions list and that are not there."""
    there, absent = {member.path for member in folder.members}, list[str]()
    for table_path in sorted(path for path in there if path.name.endswith(SCANS)):
        table = table_reading.read_table(table_path)
        column = table.column(("filename",))
        names = [] if column is None else [str(row[column]) for row in table.rows]
        # Compared by name only: a table may name any place.
        absent += [name for name in names if name and table_path.parent / name not in there]
    if absent:
        yield stated_lists.absent_problem("scans.tsv", absent, "file")


EXAMPLE: Example = {f"sub-0{n}/anat/sub-0{n}_{suffix}.nii.gz": n for n in range(2) for suffix in ("T1w", "dseg")} | {
    "participants.tsv": "participant_id\tage\tcode\nsub-00\t50\t007\nsub-01\t61.5\t012\n"
}
FACTS = (
    FactRule("BIDS", "read", "participants.tsv"),
    FactRule("BIDS", "named", "participants without a folder, and folders without a participant"),
    FactRule("BIDS", "named", "files of scans.tsv that are not there"),
    FactRule("BIDS", "named", "channels that not every session has"),
)
OVER = BY_NAMES | {"manifest"}
LAYOUT = Layout("bids", "BIDS (sub-*/anat/...)", fits, read, OVER, EXAMPLE, facts=FACTS)
