"""BIDS: `sub-*/[ses-*/]anat/sub-*_T1w.nii.gz`, masks in the same folder or under derivatives/, participants.tsv.

https://bids-specification.readthedocs.io, version 1.9: a case is one session, its channels are the suffixes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from isocenter.errors import DatasetError
from isocenter.files.layouts.cases import Folder, Member, covariates_of, label_maps, mask_labels, read_table, readers
from isocenter.files.layouts.image_folders import IMAGES, LABELS
from isocenter.files.layouts.layout import CaseFiles, DatasetOptions, Layout, Reading
from isocenter.files.modality import common_modality, modality_word
from isocenter.values import Label, Problem

# Time series, field maps and the like are not images that a mask or a class belongs to.
OTHER_DATA = frozenset({"func", "dwi", "fmap", "perf", "eeg", "meg", "ieeg", "beh", "nirs", "motion"})
MASK_SUFFIXES = frozenset({"dseg", "mask", "msk", "seg", "lesion", "roi", "label", "segmentation"})
SUBJECT = re.compile(r"sub-[A-Za-z0-9]+")
# Where the subjects of a whole study lie, beside its derivatives.
ABOVE = frozenset({"rawdata", "bids"})
# Folders beside the subjects, or of another layout.
NOT_SITES = frozenset({"derivatives", "sourcedata", "code"}) | IMAGES | LABELS
RAW = {False: "the images' own folders", True: "derivatives"}


@dataclass(frozen=True)
class Scan:
    """One file, by its entities: sub-01_ses-02_acq-x_T1w."""

    member: Member
    entities: dict[str, str]
    suffix: str
    derived: bool

    @property
    def session(self) -> str:
        """The entities that name subject and session, as sub-01_ses-02."""
        return "_".join(f"{key}-{self.entities[key]}" for key in ("sub", "ses") if key in self.entities)

    @property
    def pipeline(self) -> str:
        """The folder that made it: its first one in derivatives/, or the raw data."""
        folders = self.member.folders
        made = folders[folders.index("derivatives") + 1 :] if self.derived else ()
        return f"derivatives/{made[0]}" if made and not SUBJECT.fullmatch(made[0]) else RAW[self.derived]

    @property
    def channel(self) -> str:
        """The suffix, and what distinguishes two images of one suffix (acq-, ce-, run-, echo-, ...)."""
        rest = [f"{key}-{value}" for key, value in self.entities.items() if key not in ("sub", "ses")]
        return "_".join((*rest, self.suffix))


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

    Raises DatasetError where masks of several pipelines could be meant.
    """
    scans = [scan for member in folder.images if (scan := _scan(member)) is not None]
    images = [scan for scan in scans if not scan.derived and scan.suffix.lower() not in MASK_SUFFIXES]
    # In derivatives a mask is often that of the brain.
    masks = [
        s
        for s in scans
        if s.suffix.lower() in MASK_SUFFIXES and (s.suffix, s.entities.get("desc")) != ("mask", "brain")
    ]
    if options.references:
        _check_pipelines(folder, masks)
    sessions = sorted({scan.session for scan in images})
    counts = Counter(channel for session in sessions for channel in {s.channel for s in images if s.session == session})
    channels = sorted(channel for channel, count in counts.items() if count == len(sessions))
    rare = sorted(counts.keys() - set(channels))
    labels, people = mask_labels(folder, options), _participants(folder)
    problems = [_rare(rare)] if rare and channels else []
    channels = channels or sorted(counts)
    cases = []
    for session in sessions:
        own = {scan.channel: scan for scan in images if scan.session == session}
        if set(channels) <= own.keys():
            drawn = [scan for scan in masks if scan.session == session]
            cases.append(_case(session, [own[name] for name in channels], drawn, labels, people, options))
    return Reading(
        tuple(cases),
        how=f"BIDS, {len(cases)} sessions with {', '.join(channels)}",
        classes={"mask": labels},
        modality=common_modality(channels),
        patients="the BIDS subject (sub-...)",
        problems=tuple(problems),
    )


def _is_in_site(folders: Sequence[str]) -> bool:
    """Whether the second folder is that of a subject, and the first none in which something else lies."""
    return len(folders) > 1 and folders[0].lower() not in NOT_SITES and bool(SUBJECT.fullmatch(folders[1]))


def _case(
    session: str,
    images: Sequence[Scan],
    masks: Sequence[Scan],
    labels: tuple[Label, ...],
    people: dict[str, dict[str, Any]],
    options: DatasetOptions,
) -> CaseFiles:
    subject = f"sub-{images[0].entities['sub']}"
    words = [modality_word(options.modality or scan.suffix) for scan in images]
    names = [scan.channel for scan in images] if len(images) > 1 else ["image"]
    # A discrete segmentation holds more than a mask.
    chosen = [scan for scan in masks if scan.suffix == "dseg"] or masks
    files = [scan.member.path for scan in (*images, *chosen)]
    drawn = label_maps(tuple(scan.member.path for scan in chosen), labels, options.read, options.kinds)
    return CaseFiles(
        session,
        readers([scan.member for scan in images], names, options, words),
        drawn if chosen else {},
        files=tuple(files),
        patient=subject,
        covariates=people.get(subject, {}),
        split=images[0].member.split,
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
            "Keep the masks of one source, and move the others out of the folder; or list images and masks in a table "
            "with the columns image and mask, and give the table",
        )


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
