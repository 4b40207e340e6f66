"""A layout: the class of a photograph behind two underscores, as in `p07__benign.png`; the patient before them."""

from __future__ import annotations

from hilum.layouts.cases import class_labels
from hilum.layouts.cases.dataset_folder import Folder
from hilum.layouts.layout import DatasetOptions, Layout, Reading
from hilum.values import CaseRow, Cell

MARK = "__"


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """Every photograph has the mark; only names are looked at."""
    del options
    return bool(folder.images) and all(MARK in member.stem for member in folder.images)


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """A row for each photograph: its file, its class, its part and its patient."""
    stated = {member: member.stem.rsplit(MARK, 1) for member in folder.images}
    labels, called = class_labels.name_classes({name for _, name in stated.values()}, folder, options)
    rows = tuple(
        CaseRow(
            member.name,
            {"image": Cell((member.path,), modality=options.modality)},
            {"class": called[name]},
            split=member.split,
            patient=patient,
        )
        for member, (patient, name) in stated.items()
    )
    how = f"{len(rows)} photographs with the class in their names"
    return Reading(rows, how, classes={"class": labels}, patients="the name before two underscores")


EXAMPLE = {f"p{patient}__{name}.png": patient for patient in range(2) for name in ("benign", "malignant")}
LAYOUT = Layout(
    "marked_names", "the class behind two underscores", fits, read, over=frozenset({"plain_images"}), example=EXAMPLE
)
