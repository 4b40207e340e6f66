"""Masks of single structures of one image, each in a file of its own, which become one label map."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from isocenter.errors import DatasetError, UsageError, counted, listed
from isocenter.files.layouts.cases.classes import mask_labels
from isocenter.files.layouts.cases.folder import Folder, Member
from isocenter.files.layouts.cases.names import LABEL_NAME, LAST_WORD, ORDER
from isocenter.files.layouts.cases.pairs import Key, owner_of, owners_of
from isocenter.files.layouts.layout import DatasetOptions, left_out
from isocenter.values import Label, Problem


def by_structure(
    masks: Sequence[tuple[Key, Member]], images: Mapping[Key, object]
) -> tuple[list[tuple[Key, Member]], dict[Member, str]]:
    """Masks under the keys of their images, and {mask: its structure}, by folders that bear the structures' names.

    Only where no mask has its image without one. One folder around all of them names no structure.
    """
    if any(owner_of(key, images) for key, _ in masks):
        return list(masks), {}
    owned = [_of_structure(key, images) for key, _ in masks]
    keyed = [(key if owner is None else owner[0], member) for (key, member), owner in zip(masks, owned, strict=True)]
    named = {member: owner[1] for (_, member), owner in zip(masks, owned, strict=True) if owner is not None}
    return keyed, named if len(set(named.values())) > 1 else {}


def _of_structure(key: Key, images: Mapping[Key, object]) -> tuple[Key, str] | None:
    """The image of a mask in the folder of its structure, and the structure; None where no image has its name."""
    for place, name in enumerate(key.folders):
        bare = key._replace(folders=key.folders[:place] + key.folders[place + 1 :])
        for own in (bare, bare.called(LAST_WORD.sub("", bare.stem))):
            if (owner := owner_of(own, images)) is not None:
                return owner, _named_by(name)
    return None


def by_folder_of_masks(
    masks: Sequence[tuple[Key, Member]], folders: Mapping[Member, str], images: Mapping[Key, object]
) -> dict[Member, str]:
    """{mask: its structure} by its folder of masks where one image has masks in several of these; else empty.

    `lung masks/x.png` and `infection masks/x.png` show two structures of x, and are no two pieces of one.
    """
    of_image: dict[Key, set[str]] = defaultdict(set)
    for (_, member), owner in zip(masks, owners_of([key for key, _ in masks], images), strict=True):
        if owner is not None:
            of_image[owner].add(folders[member])
    if all(len(own) == 1 for own in of_image.values()):
        return {}
    names = {folder: _named_by(folder) for folder in {folders[member] for _, member in masks}}
    is_clear = len(set(names.values())) == len(names)
    return {member: names[folders[member]] if is_clear else folders[member] for _, member in masks}


def _named_by(folder: str) -> str:
    """The structure that the name of a folder of masks states; the whole name where it states none."""
    bare = ORDER.sub("", folder)
    return LABEL_NAME.sub("", bare).strip("_- ") or bare


def structure_labels(named: Iterable[str], folder: Folder, options: DatasetOptions) -> dict[str, Label]:
    """{structure that a mask's name says: its label}, or those that --labels names; empty where names say none.

    Raises DatasetError where some masks name a structure and others none ("").
    """
    names = sorted(set(named))
    if names in ([], [""]):
        return {}
    if "" in names:
        problem = f"some masks name a structure ({listed(names[1:])}), and others none"
        remedy = "Put them into one label map with a number for each structure, or take away what is not meant"
        raise DatasetError(problem, str(folder.root), remedy)
    if options.labels is None:
        return {name: Label(number, name) for number, name in enumerate(names, start=1)}
    asked = {label.name: label for label in mask_labels(folder, options)}
    if unknown := sorted(set(asked) - set(names)):
        problem = f"no mask is named {listed(unknown)}"
        raise UsageError(problem, f"--labels {options.labels}", f"Choose from {listed(names)}")
    return asked


def without_structure(cases: Sequence[str], structures: Collection[str]) -> tuple[Problem, ...]:
    """The problem that cases lack the mask of a structure; none where all have one of each."""
    what = f"{counted(len(cases), 'case lacks', 'cases lack')} masks of some of {listed(structures)}"
    return left_out(cases, what, "Add them, empty ones where a structure is not there, or name those to read")
