"""`images/` beside `labels/` or `masks/`, a file a case, with class folders in them where there are classes."""

from __future__ import annotations

from functools import partial

from isocenter.errors import DatasetError
from isocenter.files.layouts.classes import mask_labels, name_classes
from isocenter.files.layouts.folder import Folder, Member
from isocenter.files.layouts.layout import DatasetOptions, Found, Layout, Reading
from isocenter.files.layouts.load import given, load_mask
from isocenter.files.layouts.pairs import Key, Pair, by_channel, pair, readers
from isocenter.files.modality import modality_word
from isocenter.files.patients import names_a_person
from isocenter.values import Problem, Split

IMAGES = {"images", "image", "imgs", "img", "imagestr", "imagests"}
LABELS = {
    "labels", "label", "masks", "mask", "labelstr", "labelsts", "segmentations", "segmentation", "seg", "annotations",
    "ground_truth", "groundtruth", "gt",
}  # fmt: skip
TEST = {"imagests", "labelsts"}  # the Decathlon's and nnU-Net's test part


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """Images under a folder for images, masks under one for labels."""
    del options
    places = {_role(member)[0] for member in folder.images}
    return places >= {"image", "label"} or ("label" in places and places == {"label"})


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """Pairs by equal name; several masks of one image are joined."""
    images = [(_key(m), m) for m in folder.images if _role(m)[0] == "image"]
    masks = [(_key(m), m) for m in folder.images if _role(m)[0] == "label"]
    if not images:
        raise DatasetError(
            f"holds {len(masks)} labels and no images", str(folder.root), "Put the images into images/ beside them"
        )
    channels = by_channel(images)
    pairs, problems = pair(channels or _single(images), masks)
    labels, modality = mask_labels(folder, options), modality_word(options.modality)
    classes, called = name_classes(_class_names(pairs), folder, options, declare=not masks)
    width = max(len(one.images) for one in pairs)
    whole = [one for one in pairs if len(one.images) == width]
    found = []
    for one in whole:
        names = [str(n) for n in range(width)] if channels else ["image"]
        references: dict[str, partial] = {}
        if one.masks:
            references["mask"] = partial(load_mask, tuple(m.path for m in one.masks), labels, options.read)
        if called:
            references["class"] = partial(given, called[one.key[0][0]])
        found.append(
            Found(
                one.name,
                readers(one.images, names, options, [modality] * width),
                references,
                files=tuple(m.path for m in (*one.images, *one.masks)),
                key=called[one.key[0][0]] if called else "",
                split=_split(one.images[0]),
            )
        )
    problems += _odd(folder, pairs, whole)
    return Reading(
        tuple(found),
        how=f"images beside labels of the same name, {len(found)} cases",
        classes={"mask": labels, "class": classes},
        problems=tuple(problems),
    )


def _role(member: Member) -> tuple[str | None, int]:
    """("image" | "label", level of the folder that says so)."""
    for level, folder in enumerate(member.folders[:2]):
        if folder.lower() in IMAGES:
            return "image", level
        if folder.lower() in LABELS:
            return "label", level
    return None, 0


def _key(member: Member) -> Key:
    """What image and label have in common: the folders but the one that tells them apart, and the name."""
    level = _role(member)[1]
    folders = member.folders[:level] + member.folders[level + 1 :]
    return folders, member.stem


def _split(member: Member) -> Split | None:
    level = _role(member)[1]
    return "test" if member.folders[level].lower() in TEST else member.split


def _single(images: list[tuple[Key, Member]]) -> dict[Key, list[Member]]:
    """One image a case; two that differ in suffix only are two cases."""
    cases: dict[Key, list[Member]] = {}
    for (folders, stem), member in images:
        key = (folders, stem) if (folders, stem) not in cases else (folders, stem + member.suffix)
        cases[key] = [member]
    return cases


def _class_names(pairs: list[Pair]) -> set[str]:
    """Folders inside images/ are classes where every image lies in one of several and none is a person's name."""
    inside = {one.key[0][0] if one.key[0] else None for one in pairs}
    names = {name for name in inside if name is not None}
    if None in inside or len(names) < 2 or any(names_a_person(name) for name in names):
        return set()
    return names if len(pairs) > len(names) else set()


def _odd(folder: Folder, pairs: list[Pair], whole: list[Pair]) -> list[Problem]:
    problems = []
    short = tuple(one.name for one in pairs if one not in whole)
    if short:
        problems.append(
            Problem("error", f"{len(short)} cases lack a channel", short, "they are left out", "Add the missing files")
        )
    outside = sum(1 for member in folder.images if _role(member)[0] is None)
    if outside:
        problems.append(Problem("note", f"{outside} images lie outside images/ and labels/", why="they are not read"))
    return problems


LAYOUT = Layout(
    "image_folders",
    "images/ beside labels/ or masks/",
    fits,
    read,
    over=frozenset({"suffix_masks", "plain_images"}),
)
