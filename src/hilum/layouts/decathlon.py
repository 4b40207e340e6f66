"""Medical Segmentation Decathlon: `dataset.json` lists images and labels; a fourth axis holds the modalities.

Antonelli et al., Nature Communications 2022, doi:10.1038/s41467-022-30695-9
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from hilum.errors import DatasetError
from hilum.files import modality_words
from hilum.files.storage import folder_files
from hilum.layouts import layout, nnunet
from hilum.layouts.cases import cell_loading, class_labels, dataset_folder, stated_lists
from hilum.layouts.cases.dataset_folder import Folder
from hilum.layouts.cases.names import IMAGES, LABELS
from hilum.layouts.layout import DatasetOptions, Example, Layout, Problems, Reading
from hilum.values import CaseRow, FactRule, Split

# Lists of pairs, and the part that they are where both are there.
PARTS: dict[str, Split] = {"training": "train", "validation": "val"}


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """dataset.json has modalities and a list of training pairs."""
    described = folder.description or {}
    listed = isinstance(described.get("training"), list) and "modality" in described
    return listed and not nnunet.fits(folder, options)


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """The pairs that dataset.json lists; entries of `test` without labels are read for prediction only.

    Where it lists pairs for validation, as AMOS does, or for testing, these are that part. Raises DatasetError for a
    file of two parts.
    """
    described, where = folder.description or {}, str(folder.root / "dataset.json")
    if folder.description is None:
        remedy = 'Write it: {"modality": {"0": "T1"}, "labels": {...}, "training": [{"image": ..., "label": ...}]}'
        raise DatasetError("there is no such file", where, remedy)
    if not described.get("training"):
        remedy = 'Add "training": [{"image": ..., "label": ...}], or leave --layout out: names pair images and labels'
        raise DatasetError("lists no training pairs", where, remedy)
    names, labels = nnunet.channel_names(folder), class_labels.mask_labels(folder, options)
    entries: list[tuple[Split | None, Any]]
    entries = [(split, entry) for name, split in PARTS.items() for entry in described.get(name) or []]
    parted = any(split == "val" for split, _ in entries)
    for entry in described.get("test") or []:
        is_pair = _entry(entry, where)[1] is not None
        entries += [("test" if is_pair else None, entry)] if is_pair or not options.references else []
    rows, missing, known = [], [], dict[str, Split | None]()
    for split, entry in entries:
        image, label = _entry(entry, where)
        if known.setdefault(image, split) != split and options.references:
            parts = f"{known[image]} and {split}"
            raise DatasetError(f"lists {image} in two parts, {parts}", where, "List it once")
        paths = [_inside(folder.root, text, where) for text in (image, label) if text is not None]
        name = dataset_folder.stem_of(paths[0].name)
        if not all(path.is_file() for path in paths):
            missing.append(name)
            continue
        masks = cell_loading.mask_cells({"": paths[1:]} if label is not None else {})
        part = split if parted or split == "test" else None
        rows.append(CaseRow(name, cell_loading.frame_cells(paths[0], names, options.modality), masks, split=part))
    lacking = "listed case lacks", "listed cases lack", "a file"
    problems = [*layout.left_out_problem(missing, lacking, "Get the files again")]
    problems += layout.miscount_problem(described, len(described["training"]))
    if tests := described.get("test"):
        source = "numTest of dataset.json"
        problems += stated_lists.count_problems(source, described.get("numTest"), len(tests), unit="listed test case")
    if options.references:
        problems += _unlisted_warning(folder, {path for row in rows for path in row.paths})
    return Reading(
        tuple(rows),
        how=f"Decathlon dataset.json, channels {', '.join(names)}",
        classes={"mask": labels},
        modality=modality_words.common_modality(names),
        problems=tuple(problems),
    )


def _unlisted_warning(folder: Folder, known: Collection[Path]) -> Problems:
    """The warning that images with labels of their names lie in the folder, and dataset.json does not list them."""
    others = [member for member in folder.images if member.path not in known]
    labelled = {member.stem for member in others if LABELS.intersection(map(str.lower, member.folders))}
    images = [member for member in others if IMAGES.intersection(map(str.lower, member.folders))]
    names = [member.name for member in images if member.stem in labelled]
    what = "image with a label is", "images with labels are", "not listed in dataset.json"
    return layout.left_out_problem(names, what, "List them, under test if they are that part", "warning")


def _entry(entry: Any, where: str) -> tuple[str, str | None]:
    match entry:
        case {"image": str(image), "label": str(label)}:
            return image, label
        case str(image) | {"image": str(image)}:
            return image, None
    raise DatasetError(f"{entry!r} is not a pair of image and label", where, 'Write {"image": ..., "label": ...}')


def _inside(root: Path, text: str, where: str) -> Path:
    """A listed path; what leads out of the folder is not followed."""
    path = root / text
    if not folder_files.is_named_inside(path, root):
        raise DatasetError(f"lists {text}, which lies outside the folder", where, "List paths below dataset.json")
    return path


EXAMPLE: Example = (
    {f"imagesTr/c{n}.nii.gz": ((0, 1), (2, n)) for n in range(2)}
    | {f"labelsTr/c{n}.nii.gz": n for n in range(2)}
    | {
        "dataset.json": '{"modality": {"0": "FLAIR", "1": "T1w"}, "labels": {"0": "background", "1": "tumour"},\n'
        '"training": [{"image": "imagesTr/c0.nii.gz", "label": "labelsTr/c0.nii.gz"},\n'
        '{"image": "imagesTr/c1.nii.gz", "label": "labelsTr/c1.nii.gz"}]}'
    }
)
WHAT = "Medical Segmentation Decathlon (dataset.json with a training list)"
FACTS = (
    FactRule("dataset.json of the Decathlon", "read", "channels, labels, pairs and their parts"),
    FactRule("dataset.json of the Decathlon", "named", "counts (numTraining, numTest) that its lists contradict"),
    FactRule("dataset.json of the Decathlon", "named", "pairs that lack a file, and files that it does not list"),
)
OVER = frozenset({"image_folders", "suffix_masks", "case_folders", "plain_images"})
LAYOUT = Layout("decathlon", WHAT, fits, read, OVER, EXAMPLE, facts=FACTS)
