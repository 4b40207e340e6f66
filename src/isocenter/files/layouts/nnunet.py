"""nnU-Net's raw data: `imagesTr/<case>_0000.nii.gz` (a file a channel), `labelsTr/<case>.nii.gz`, `dataset.json`.

Isensee et al., Nature Methods 2021, doi:10.1038/s41592-020-01008-z; versions 1 and 2 of the folder.
"""

from __future__ import annotations

from collections.abc import Sequence

from isocenter.errors import DatasetError, counted
from isocenter.files.layouts.cases.classes import described_channels, mask_labels
from isocenter.files.layouts.cases.folder import Folder, Member
from isocenter.files.layouts.cases.load import mask_cells
from isocenter.files.layouts.cases.pairs import Key, Pair, by_channel, image_cells, number_of, pair
from isocenter.files.layouts.layout import DatasetOptions, Layout, Reading, left_out
from isocenter.files.modality import common_modality, modality_word
from isocenter.values import CaseRow, Cell, Problem

# Folders of images and of labels, and whether they are the test part.
PARTS = (("imagesTr", "labelsTr", False), ("imagesTs", "labelsTs", True))


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """dataset.json names channels and the files in imagesTr/ end in their numbers, most of them at least."""
    del options
    described = folder.description or {}
    numbers = [number_of(member) for members in _channels(folder, "imagesTr").values() for member in members]
    channels = len(described_channels(folder)) or len(numbers)  # `read` says what is wrong with their names
    is_named = "channel_names" in described or "modality" in described
    return is_named and 2 * sum(number < channels for number in numbers) > len(numbers)


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """Channels by their numbers, named as in dataset.json; imagesTs/ with labelsTs/ is the test part."""
    names = channel_names(folder)
    labels, problems, rows = mask_labels(folder, options), list[Problem](), list[CaseRow]()
    modalities = [options.modality] * len(names) if options.modality else names
    for images, masks, is_test in PARTS:
        members = _channels(folder, images)
        drawn = [(Key((), m.stem), m) for m in folder.images if m.folders == (masks,)]
        pairs, lost = pair(members, drawn)
        problems += lost
        if is_test and options.references and not drawn:
            continue  # nnU-Net's imagesTs are there to be predicted
        known = [one for one in pairs if all(number_of(member) < len(names) for member in one.images)]
        beyond = tuple(one.name for one in pairs if one not in known)
        what = f"{counted(len(beyond), 'case has', 'cases have')} more channels than dataset.json names"
        what = f"{what} ({', '.join(names)})"
        problems += left_out(beyond, what, "Name the channels in dataset.json, or remove the files")
        rows += [
            CaseRow(
                one.name,
                _images(one, names, modalities),
                mask_cells({"": [mask.path for mask in one.masks]} if one.masks else {}),
                split="test" if is_test and drawn else None,
            )
            for one in known
        ]
    return Reading(
        tuple(rows),
        how=f"nnU-Net raw data, channels {', '.join(names)}",
        classes={"mask": labels},
        modality=common_modality(names),
        channels=names,
        problems=tuple(problems),
    )


def channel_names(folder: Folder) -> tuple[str, ...]:
    """The names of the channels in order.

    Raises DatasetError where they are no table of numbers and names, or two are equal.
    """
    names, where = described_channels(folder), str(folder.root / "dataset.json")
    if not names:
        raise DatasetError("`channel_names` is not a table of numbers and names", where, 'Write {"0": "T1", "1": "T2"}')
    if len(set(names)) < len(names):
        raise DatasetError(f"two channels have one name ({', '.join(names)})", where, "Name each channel once")
    return names


def _images(files: Pair, names: Sequence[str], modalities: Sequence[str | None]) -> dict[str, Cell]:
    numbers = [number_of(member) for member in files.images]
    words = [modality_word(modalities[number]) for number in numbers]
    return image_cells(files.images, [names[number] for number in numbers], words)


def _channels(folder: Folder, part: str) -> dict[Key, list[Member]]:
    return by_channel((Key((), m.stem), m) for m in folder.images if m.folders == (part,))


LAYOUT = Layout(
    "nnunet",
    "nnU-Net raw data (dataset.json, imagesTr/, labelsTr/)",
    fits,
    read,
    over=frozenset({"suffix_masks", "case_folders", "plain_images"}),
)
