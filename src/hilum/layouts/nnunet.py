"""nnU-Net's raw data: `imagesTr/<case>_0000.nii.gz` (a file a channel), `labelsTr/<case>.nii.gz`, `dataset.json`.

Isensee et al., Nature Methods 2021, doi:10.1038/s41592-020-01008-z; versions 1 and 2 of the folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hilum.errors import DatasetError
from hilum.files import modality_words
from hilum.layouts import layout
from hilum.layouts.cases import class_labels, mask_pairs, stated_lists
from hilum.layouts.cases.dataset_folder import Folder
from hilum.layouts.cases.mask_pairs import Images, MaskFile, NamedCase, PairKey
from hilum.layouts.layout import DatasetOptions, Example, Layout, Reading
from hilum.values import CaseRow, FactRule, Problem, Split

# Folders of images and of labels, and whether they are the test part.
PARTS = (("imagesTr", "labelsTr", False), ("imagesTs", "labelsTs", True))


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """dataset.json names channels and the files in imagesTr/ end in their numbers, most of them at least."""
    described = folder.description or {}
    numbers = [int(number) for own in _channels(folder, "imagesTr").values() for number in own]
    # `read` says what is wrong with their names.
    channels = len(class_labels.channel_names_in_dataset_json(folder)) or len(numbers)
    is_named = "channel_names" in described or "modality" in described
    return is_named and 2 * sum(number < channels for number in numbers) > len(numbers)


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """Channels by their numbers, named as in dataset.json; imagesTs/ with labelsTs/ is the test part."""
    names, problems, rows = channel_names(folder), list[Problem](), list[CaseRow]()
    called = {str(number): name for number, name in enumerate(names)}
    for images, masks, is_test in PARTS:
        masks_by_stem = {member.stem: MaskFile(member) for member in folder.images if member.folders == (masks,)}
        cases = _channels(folder, images)
        problems += mask_pairs.missing_image_problem(sorted(masks_by_stem.keys() - {key.stem for key in cases}))
        if not is_test:
            problems += layout.miscount_problem(folder.description, len(cases))
        if is_test and options.references and not masks_by_stem:
            continue  # nnU-Net's imagesTs are there to be predicted
        beyond = [key.name for key, own in cases.items() if not own.keys() <= called.keys()]
        what = "case has", "cases have", f"more channels than dataset.json names ({', '.join(names)})"
        problems += layout.left_out_problem(beyond, what, "Name the channels in dataset.json, or remove the files")
        split: Split | None = "test" if is_test and masks_by_stem else None
        named = list[NamedCase]()
        for key, own in ((key, own) for key, own in cases.items() if key.name not in beyond):
            channels = {called[number]: member for number, member in own.items()}
            masks_of = (masks_by_stem[key.stem],) if key.stem in masks_by_stem else ()
            named.append(NamedCase(key._replace(split=split), channels, masks_of))
        rows += mask_pairs.rows_of_cases(named, options)
    if options.references:
        problems += _description_problems(folder)
    return Reading(
        tuple(rows),
        how=f"nnU-Net raw data, channels {', '.join(names)}",
        classes={"mask": class_labels.mask_labels(folder, options)},
        modality=modality_words.common_modality(names),
        channels=names,
        problems=tuple(problems),
    )


def _description_problems(folder: Folder) -> Iterator[Problem]:
    """Warnings where the lists of dataset.json, and its number of tests, are not those of the folder.

    Images to be predicted are often not there, as they have no labels: nothing is said of them then.
    """
    described = folder.description or {}
    for part, listed in (("imagesTr", "training"), ("imagesTs", "test")):
        stems = {key.stem for key in _channels(folder, part)}
        if part == "imagesTs" and not stems:
            continue
        if part == "imagesTs":
            yield from stated_lists.count_problems("numTest of dataset.json", described.get("numTest"), len(stems))
        names = stated_lists.listed_names(described.get(listed), stems)
        if names is not None:
            yield from stated_lists.list_problems(f"dataset.json ({listed})", names, stems)


def channel_names(folder: Folder) -> tuple[str, ...]:
    """The names of the channels in order.

    Raises DatasetError where they are no table of numbers and names, or two are equal.
    """
    names, where = class_labels.channel_names_in_dataset_json(folder), str(folder.root / "dataset.json")
    if folder.description is None:
        raise DatasetError("there is no such file", where, 'Write it: {"channel_names": {"0": "T1"}, "labels": {...}}')
    if not names:
        raise DatasetError("`channel_names` is not a table of numbers and names", where, 'Write {"0": "T1", "1": "T2"}')
    if len(set(names)) < len(names):
        raise DatasetError(f"two channels have one name ({', '.join(names)})", where, "Name each channel once")
    return names


def _channels(folder: Folder, part: str) -> Mapping[PairKey, Images]:
    return mask_pairs.group_by_channel((PairKey((), m.stem), m) for m in folder.images if m.folders == (part,))


EXAMPLE: Example = (
    {f"imagesTr/c{n}_{channel:04}.nii.gz": n + channel for n in range(2) for channel in range(2)}
    | {f"labelsTr/c{n}.nii.gz": n for n in range(2)}
    | {"dataset.json": '{"channel_names": {"0": "T1", "1": "FLAIR"}, "labels": {"background": 0, "cyst": 1}}'}
)
WHAT = "nnU-Net raw data (dataset.json, imagesTr/, labelsTr/)"
FACTS = (
    FactRule("dataset.json of nnU-Net", "read", "channels, labels, ignored label, regions"),
    FactRule("dataset.json of nnU-Net", "named", "numTraining, numTest and lists that the folder contradicts"),
)
OVER = frozenset({"suffix_masks", "case_folders", "plain_images"})
LAYOUT = Layout("nnunet", WHAT, fits, read, OVER, EXAMPLE, facts=FACTS)
