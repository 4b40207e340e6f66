"""BIDS: `sub-*/[ses-*/]anat/sub-*_T1w.nii.gz`, masks in the same folder or under derivatives/, participants.tsv.

https://bids-specification.readthedocs.io, version 1.9: a case is one session, its channels are the suffixes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from isocenter.errors import DatasetError, IsocenterError, listed
from isocenter.files.layouts.cases.classes import mask_labels
from isocenter.files.layouts.cases.folder import Folder, Member
from isocenter.files.layouts.cases.load import load_image, mask_cells, structure_cell
from isocenter.files.layouts.cases.names import IMAGES, LABELS
from isocenter.files.layouts.cases.pairs import image_cells
from isocenter.files.layouts.cases.structures import structure_labels, without_structure
from isocenter.files.layouts.cases.table import covariates_of, read_table
from isocenter.files.layouts.layout import DatasetOptions, Layout, Reading
from isocenter.files.modality import common_modality, modality_word
from isocenter.values import CaseRow, Cell, Geometry, Label, Problem

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
# Entities that say how a file was made from another.
DERIVED = ("desc", "space", "label", "res", "den")
RAW = {False: "the images' own folders", True: "derivatives"}


@dataclass(frozen=True)
class Scan:
    """One file, by its entities: sub-01_ses-02_acq-x_T1w.

    of_case: entities that name the case, in order
    """

    member: Member
    entities: dict[str, str]
    suffix: str
    derived: bool
    of_case: tuple[str, ...] = SESSION

    @property
    def session(self) -> str:
        """The entities that name the case, as sub-01_ses-02."""
        return "_".join(f"{key}-{self.entities[key]}" for key in self.of_case if key in self.entities)

    @property
    def pipeline(self) -> str:
        """The folder that made it: its first one in derivatives/, or the raw data."""
        folders = self.member.folders
        made = folders[folders.index("derivatives") + 1 :] if self.derived else ()
        return f"derivatives/{made[0]}" if made and not SUBJECT.fullmatch(made[0]) else RAW[self.derived]

    @property
    def channel(self) -> str:
        """The suffix, and what distinguishes two images of one suffix (acq-, ce-, run-, echo-, ...)."""
        rest = [f"{key}-{value}" for key, value in self.entities.items() if key not in self.of_case]
        return "_".join((*rest, self.suffix))

    @property
    def label(self) -> str:
        """The structure that a mask shows, where its name says so."""
        return self.entities.get("label", "")

    def is_image(self) -> bool:
        """Whether it is neither derived nor a mask."""
        return not self.derived and self.suffix.lower() not in MASK_SUFFIXES

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
    is_drawn = any(member.stem.rpartition("_")[2].lower() in MASK_SUFFIXES for member in folder.images)
    return (is_drawn or not options.references) and any(map(_is_in_site, places))


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """One case a session; the channels are those that every session has.

    Where no image is in all sessions, as in VerSe with its parts and directions, each image of one suffix is a case.
    Masks with several labels in one session (label-liver, label-spleen) are structures of one label map.
    Raises DatasetError where masks of several pipelines could be meant.
    """
    meant, elsewhere = _meant(folder, options)
    scans = _with_common_channel(meant)
    images, masks = ([scan for scan in scans if is_one(scan)] for is_one in (Scan.is_image, Scan.is_mask))
    if options.references:
        _check_pipelines(folder, masks)
        _check_images(folder, images, masks)
    sessions, drawn = _by_session(images), {session: _chosen(own) for session, own in _by_session(masks).items()}
    counts = _counts(images)
    channels = sorted(channel for channel, count in counts.items() if count == len(sessions))
    rare = sorted(counts.keys() - set(channels))
    people, problems = _participants(folder), [_rare(rare)] if rare and channels else []
    channels = channels or sorted(counts)
    labelled = [{scan.label for scan in own} for own in drawn.values()]
    named = set().union(*labelled) if any(len(own) > 1 for own in labelled) else ()
    structures = structure_labels(named, folder, options)
    labels = tuple(structures.values()) or (mask_labels(folder, options) if drawn else ())
    rows, partly = [], []
    for session, own in sorted(sessions.items()):
        known, chosen = {scan.channel: scan for scan in own}, drawn.get(session, ())
        if chosen and not structures.keys() <= {scan.label for scan in chosen}:
            partly.append(session)
        elif set(channels) <= known.keys():
            references = _references(chosen, structures)
            rows.append(_row(session, [known[name] for name in channels], references, people, options))
    return Reading(
        tuple(rows),
        how=f"BIDS, {len(rows)} sessions with {', '.join(channels)}",
        classes={"mask": labels},
        modality=common_modality(channels),
        patients="the BIDS subject (sub-...)",
        problems=(*problems, *elsewhere, *without_structure(partly, structures)),
    )


def _meant(folder: Folder, options: DatasetOptions) -> tuple[list[Scan], tuple[Problem, ...]]:
    """The files without those in dwi/, or with them in place of the other images where masks lie on their grid alone.

    Maps and traces are meant, as in ISLES 2022; files with b-values are series. Without masks a model's number of
    images decides. The problem names the images that are left out.
    """
    every = [scan for member in folder.images if (scan := _scan(member)) is not None]
    is_series = any(member.suffix == ".bval" for member in folder.members)
    usual = [scan for scan in every if DIFFUSION not in scan.member.folders]
    masks, images = [scan for scan in every if scan.is_mask()], [scan for scan in usual if scan.is_image()]
    mapped = [scan for scan in every if DIFFUSION in scan.member.folders and scan.is_image()]
    if is_series or not mapped:
        return usual, ()
    counts = [len({scan.channel for scan in some}) for some in (mapped, images)]
    if options.references:
        is_meant = _lie_on(masks, mapped, options) and not _lie_on(masks, images, options)
    else:
        is_meant = counts[0] == options.channels != counts[1]
    if not is_meant:
        return usual, ()
    names = sorted({scan.channel for scan in images})
    remedy = "To use them, bring them onto that grid, and list them in dataset.csv"
    note = Problem("warning", f"{listed(names)} left out", why="the masks lie on the grid of others", remedy=remedy)
    return [*masks, *mapped], (note,) if names else ()


def _lie_on(masks: Sequence[Scan], images: Sequence[Scan], options: DatasetOptions) -> bool:
    """Whether the first masks lie on the grids of the images of their sessions."""
    sessions = _by_session(images)
    looked = [(mask, image) for mask in masks[:LOOKED_AT] for image in sessions.get(mask.session, ())]
    grids = [[_grid(scan, options) for scan in pair] for pair in looked]
    return bool(grids) and all(one and other and one.equals(other) for one, other in grids)


def _grid(scan: Scan, options: DatasetOptions) -> Geometry | None:
    try:
        return load_image(scan.member.path, options.read).geometry
    except IsocenterError:  # whoever reads the case says it
        return None


def _with_common_channel(scans: Sequence[Scan]) -> Sequence[Scan]:
    """The files; all entities of images name their case where sessions have no channel in common but for these."""
    entities = tuple(dict.fromkeys(key for scan in scans if scan.is_image() for key in scan.entities))
    parted = [replace(scan, of_case=entities) for scan in scans]
    return parted if not _has_common(scans) and _has_common(parted) else scans


def _has_common(scans: Sequence[Scan]) -> bool:
    images = [scan for scan in scans if scan.is_image()]
    return max(_counts(images).values(), default=0) == len({scan.session for scan in images})


def _counts(images: Sequence[Scan]) -> Counter[str]:
    """{channel: sessions that have it}"""
    return Counter(channel for _, channel in {(scan.session, scan.channel) for scan in images})


def _by_session(scans: Sequence[Scan]) -> dict[str, list[Scan]]:
    sessions: dict[str, list[Scan]] = {}
    for scan in scans:
        sessions.setdefault(scan.session, []).append(scan)
    return sessions


def _chosen(masks: Sequence[Scan]) -> Sequence[Scan]:
    """The masks of one session that count: a discrete segmentation holds more than a mask."""
    return [scan for scan in masks if scan.suffix == "dseg"] or masks


def _references(drawn: Sequence[Scan], structures: Mapping[str, Label]) -> Mapping[str, Cell]:
    if not structures:
        return mask_cells({"": [scan.member.path for scan in drawn]} if drawn else {})
    by_label: dict[str, list[Path]] = {}
    for scan in drawn:
        by_label.setdefault(scan.label, []).append(scan.member.path)
    return {"mask": structure_cell(by_label)} if drawn else {}


def _is_in_site(folders: Sequence[str]) -> bool:
    """Whether the second folder is that of a subject, and the first none in which something else lies."""
    return len(folders) > 1 and folders[0].lower() not in NOT_SITES and bool(SUBJECT.fullmatch(folders[1]))


def _row(
    session: str,
    images: Sequence[Scan],
    references: Mapping[str, Cell],
    people: Mapping[str, Mapping[str, Any]],
    options: DatasetOptions,
) -> CaseRow:
    number = images[0].entities["sub"]
    words = [modality_word(options.modality or scan.suffix) for scan in images]
    names = [scan.channel for scan in images] if len(images) > 1 else ["image"]
    return CaseRow(
        session,
        image_cells([scan.member for scan in images], names, words),
        references,
        split=images[0].member.split,
        patient=f"sub-{number}",
        covariates=people.get(f"sub-{number}", people.get(number, {})),
    )


def _check_pipelines(folder: Folder, masks: Sequence[Scan]) -> None:
    """Raise DatasetError where one session has masks of several pipelines: which of them is true, nobody says."""
    by_session: dict[str, set[str]] = {}
    for scan in masks:
        by_session.setdefault(scan.session, set()).add(scan.pipeline)
    session, pipelines = max(by_session.items(), key=lambda item: len(item[1]), default=("", set()))
    if len(pipelines) > 1:
        raise DatasetError(
            f"{session} has masks of {len(pipelines)} sources ({', '.join(sorted(pipelines))})",
            str(folder.root),
            "Keep the masks of one source, and move the others out of the folder",
        )


def _check_images(folder: Folder, images: Sequence[Scan], masks: Sequence[Scan]) -> None:
    """Raise DatasetError where one session has masks of several of its images, as run-1 and run-2."""
    keys = {key for scan in images for key in scan.entities} - {*DERIVED, *(images[0].of_case if images else ())}
    for session, own in _by_session(masks).items():
        named = {tuple(f"{key}-{scan.entities[key]}" for key in sorted(keys & scan.entities.keys())) for scan in own}
        if len(named) > 1:
            of_images = listed(sorted("_".join(one) or "none" for one in named))
            problem = f"{session} has masks of several images ({of_images})"
            remedy = "Keep those of one image"
            raise DatasetError(problem, str(folder.root), remedy)


def _scan(member: Member) -> Scan | None:
    if OTHER_DATA & set(member.folders):
        return None
    *pairs, suffix = member.stem.split("_")
    entities = {key: value for key, dash, value in (pair.partition("-") for pair in pairs) if dash}
    if "sub" not in entities:
        return None
    return Scan(member, entities, suffix, derived="derivatives" in member.folders)


def _participants(folder: Folder) -> dict[str, dict[str, Any]]:
    """{subject: covariates} from participants.tsv."""
    path = folder.root / "participants.tsv"
    if not path.is_file():
        return {}
    table = read_table(path)
    column = table.column(("participant_id",))
    if column is None:
        return {}
    return {str(row[column]): covariates_of(row, (column,)) for row in table.rows}


def _rare(channels: Sequence[str]) -> Problem:
    return Problem(
        "note", f"not every session has {', '.join(channels)}", why="channels must be those of all cases",
        remedy="Take sessions away to use them",
    )  # fmt: skip


LAYOUT = Layout(
    "bids",
    "BIDS (sub-*/anat/...)",
    fits,
    read,
    over=frozenset({"image_folders", "suffix_masks", "case_folders", "class_folders", "manifest", "plain_images"}),
)
