"""A mask beside its image, told by a suffix: `x.jpg` and `x_mask.png`, `x_image` and `x_mask`, `x_1stHO` and `x_2ndHO`.

Where several people drew one image, the first is the reference and the others are kept as "mask:<name>".
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import partial

from isocenter.files.layouts.classes import mask_labels, name_classes
from isocenter.files.layouts.folder import Folder, Member
from isocenter.files.layouts.image_folders import IMAGES, LABELS
from isocenter.files.layouts.layout import DatasetOptions, Found, Layout, Reading
from isocenter.files.layouts.load import given, load_mask
from isocenter.files.layouts.pairs import MASK_WORDS, readers
from isocenter.files.modality import modality_word
from isocenter.files.patients import names_a_person
from isocenter.values import Problem

MASK = re.compile(
    rf"(?i)^(?P<base>.+?)[_.\- ](?:(?P<mask>(?:{MASK_WORDS})(?:[_\- ]?\d+)?)"
    r"|(?P<observer>(?:1st|2nd|3rd|[4-9]th)(?:HO|observer|manual)?|(?:manual|observer|rater|expert|reader|annotator)[_-]?\d+))$"
)
IMAGE_SUFFIX = re.compile(r"(?i)[_.\- ](?:image|img|im|scan|volume|vol)$")

Key = tuple[tuple[str, ...], str]


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """At least one mask lies beside its image."""
    del options
    images, masks = _sorted(folder)
    return any(_owner(key, images) for key in masks)


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """Pairs by the name without suffix, within one folder."""
    images, masks = _sorted(folder)
    drawn: dict[Key, dict[str, list[Member]]] = defaultdict(lambda: defaultdict(list))
    lost = []
    for (folders, base), marks in masks.items():
        owner = _owner((folders, base), images)
        for observer, member in marks:
            if owner is None:
                lost.append(member.name)
            else:
                drawn[owner][observer].append(member)
    labels, modality = mask_labels(folder, options), modality_word(options.modality)
    classes, called = _classes(list(images), folder, options)
    found = []
    for key, image in images.items():
        observers = drawn.get(key, {})
        references = _references(observers, labels, options)
        if called:
            references["class"] = partial(given, called[key[0][0]])
        files = (image, *(member for observer in sorted(observers) for member in observers[observer]))
        found.append(
            Found(
                "/".join((*key[0], key[1])),
                readers([image], ["image"], options, [modality]),
                references,
                files=tuple(member.path for member in files),
                key=called[key[0][0]] if called else "",
                split=image.split,
            )
        )
    people = sorted({observer for marks in drawn.values() for observer in marks if observer})
    seen = f"; observer {people[0]} is the reference, {', '.join(people[1:])} kept beside" if len(people) > 1 else ""
    problem = Problem("warning", f"{len(lost)} masks have no image", tuple(lost), "they are left out", "Rename them")
    return Reading(
        tuple(found),
        how=f"each image beside its mask{seen}",
        classes={"mask": labels, "class": classes},
        problems=(problem,) if lost else (),
    )


def _sorted(folder: Folder) -> tuple[dict[Key, Member], dict[Key, list[tuple[str, Member]]]]:
    """Images by (folders, name without suffix), masks likewise with who drew them."""
    images: dict[Key, Member] = {}
    masks: dict[Key, list[tuple[str, Member]]] = defaultdict(list)
    for member in folder.images:
        if member.folders and member.folders[0].lower() in IMAGES | LABELS:
            continue
        fit = MASK.match(member.stem)
        if fit:
            masks[(member.folders, fit["base"])].append((fit["observer"] or "", member))
        else:
            images[(member.folders, IMAGE_SUFFIX.sub("", member.stem))] = member
    return images, masks


def _owner(key: Key, images: dict[Key, Member]) -> Key | None:
    """The image of a mask: of the same name, or of the name without its last word (x_lesion_mask of x)."""
    folders, base = key
    shorter = re.sub(r"[_.\- ][A-Za-z]+$", "", base)
    return next(((folders, name) for name in (base, shorter) if (folders, name) in images), None)


def _references(observers: dict[str, list[Member]], labels: Sequence, options: DatasetOptions) -> dict[str, partial]:
    references = {}
    for rank, observer in enumerate(sorted(observers)):
        kind = "mask" if rank == 0 else f"mask:{observer}"
        paths = tuple(member.path for member in observers[observer])
        references[kind] = partial(load_mask, paths, tuple(labels), options.read)
    return references


def _classes(keys: list[Key], folder: Folder, options: DatasetOptions) -> tuple[tuple, dict[str, str]]:
    """The folders that the pairs lie in are classes, if there are several and none is a person's name."""
    folders = {key[0][0] if key[0] else "" for key in keys}
    if "" in folders or len(folders) < 2 or len(keys) == len(folders) or any(names_a_person(name) for name in folders):
        return (), {}
    return name_classes(folders, folder, options, declare=False)


LAYOUT = Layout(
    "suffix_masks",
    "each image beside its mask, told by suffix",
    fits,
    read,
    over=frozenset({"class_folders", "plain_images"}),
)
