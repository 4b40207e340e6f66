"""Columns of tables by their names: in any case, blanks and hyphens as underscores; of several the first counts."""

from __future__ import annotations

from collections.abc import Mapping

CASE_COLUMNS = ("case", "case_id", "name", "id", "image", "image_id", "file", "filename", "file_name")
PATIENT_COLUMNS = ("patient", "patient_id", "patientid", "subject", "subject_id", "participant_id", "person")
SPLIT_COLUMNS: tuple[str, ...] = ("split", "subset", "partition")
# Columns of somebody's cross-validation, which say nothing of a case.
FOLD_COLUMNS = ("fold", "folds", "kfold", "fold_id", "cv_fold")
# Columns of what is one person's. A column of larger groups, on average, names something else, such as clinical trials.
OF_ONE_PERSON = {
    **dict.fromkeys(("lesion_id", "lesion"), "lesion"),
    **dict.fromkeys(("study_id", "study_uid", "studyinstanceuid", "study_instance_uid"), "study"),
    **dict.fromkeys(("exam_id", "examination_id", "accession", "accession_number"), "examination"),
}
# Columns of few values that say how an image was taken, or of whom, and seldom what is to be learnt.
SELDOM_LEARNT = frozenset({
    "laterality", "side", "eye", "view", "view_position", "sex", "gender", "male", "female", "age", "site", "site_id",
    "machine_id", "device", "scanner", "manufacturer", "height", "width",
})  # fmt: skip
# Who contoured the mask of a row.
READERS = ("rad_id", "reader", "reader_id", "rater", "rater_id", "radiologist", "annotator", "annotator_id", "observer")
# A table with such a column states outcomes or places, and no readings over time.
OUTCOMES = ("event", "status", "censored", "death", "died", "label", "class", "xmin", "x_min", "x")
# The role of a column of images that those of the column image should become.
TARGET = "target"

# Roles of a table of cases. What is true of an image has references; a role without names is stated by --column.
REFERENCE_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "mask": ("mask", "mask_path", "mask_file", "segmentation", "label_path", "segmentation_path"),
    "label": ("label", "class", "target", "diagnosis", "category", "dx", "class_name", "label_name", "pathology"),
    "findings": ("finding_labels",),
}
PATHS = ("image", "filename", "file_name", "file", "path", "image_path", "image_file")
ROLES: Mapping[str, tuple[str, ...]] = {
    "image": (*PATHS, "image_file_path", "img", "img_path"),
    "mask": REFERENCE_COLUMNS["mask"],
    TARGET: (),
    "label": REFERENCE_COLUMNS["label"],
    "patient": PATIENT_COLUMNS,
    "split": SPLIT_COLUMNS,
    "modality": ("modality",),
    "id": ("case", "case_id", "id"),
    "finding": (),
    "findings": REFERENCE_COLUMNS["findings"],
    **dict.fromkeys(("value", "time", "event", "text"), ()),
}
# Roles that several columns can have, each under a name of its own: finding:oedema=OEDEMA, value:age=AGE, and of masks
# under that of the reader who contoured them, mask:anna=MASK_A.
SEVERAL = ("image", "mask", "finding", "value")
REFERENCES = frozenset({"mask", TARGET, "label", "finding", "findings", "value", "time", "event", "text"})

# Roles of a table of boxes, or of balls in mm.
BOX_ROLES: Mapping[str, tuple[str, ...]] = {
    "image": (*PATHS, "img", "img_path", "image_id", "image_name", "image_index"),
    **{role: ROLES[role] for role in ("label", "patient", "split")},
    "x0": ("x0", "xmin", "x_min", "left", "xtl"),
    "y0": ("y0", "ymin", "y_min", "top", "ytl"),
    "z0": ("z0", "zmin", "z_min"),
    "x1": ("x1", "xmax", "x_max", "right", "xbr"),
    "y1": ("y1", "ymax", "y_max", "bottom", "ybr"),
    "z1": ("z1", "zmax", "z_max"),
    "width": ("width", "w", "bbox_width", "bbox_w"),
    "height": ("height", "h", "bbox_height", "bbox_h"),
    "depth": ("depth", "bbox_depth", "bbox_d"),
    **{f"centre_{letter}": (f"coord{letter}", f"coord_{letter}") for letter in "xyz"},
    "diameter": ("diameter_mm",),
}

# Roles of a table of pairs of images: of each side the image has its bare name.
FIXED, MOVING = "fixed", "moving"
SIDES = (FIXED, MOVING)
SIDE_COLUMNS = {side: {"image": side, "mask": f"{side}_mask", "points": f"{side}_points"} for side in SIDES}
PAIR_COLUMNS = ("id", "patient", "split", *(name for own in SIDE_COLUMNS.values() for name in own.values()))
