"""Which mask belongs to which image, by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from isocenter.files.layouts.folder import Member
from isocenter.files.layouts.layout import DatasetOptions
from isocenter.files.layouts.load import load_image
from isocenter.values import Problem

CHANNEL = re.compile(r"_(\d{4})$")  # nnU-Net: case_0000, case_0001, ...
MASK_WORDS = "mask|masks|seg|segmentation|label|labels|gt|groundtruth|annotation|roi"
MASK_SUFFIX = re.compile(rf"(?i)[_.\- ](?:{MASK_WORDS})(?:[_\- ]?\d+)?$")

Key = tuple[tuple[str, ...], str]


@dataclass(frozen=True)
class Pair:
    """One case: its image files in channel order, and all masks drawn on it."""

    key: Key
    images: tuple[Member, ...]
    masks: tuple[Member, ...] = ()

    @property
    def name(self) -> str:
        return "/".join((*self.key[0], self.key[1]))


def pair(
    images: Mapping[Key, Sequence[Member]], masks: Iterable[tuple[Key, Member]]
) -> tuple[list[Pair], list[Problem]]:
    """Images with their masks; a mask has the image's name, or that and a mask's suffix (_mask, _mask_1, _seg)."""
    drawn: dict[Key, list[Member]] = {}
    lost: list[str] = []
    for key, member in masks:
        owner = _owner(key, images)
        if owner is None:
            lost.append("/".join((*key[0], key[1])))
        else:
            drawn.setdefault(owner, []).append(member)
    pairs = [Pair(key, tuple(members), tuple(drawn.get(key, ()))) for key, members in images.items()]
    problem = Problem(
        "warning", f"{len(lost)} labels have no image", tuple(lost), "they are left out", "Add their images, or rename"
    )
    return pairs, [problem] if lost else []


def by_channel(members: Iterable[tuple[Key, Member]]) -> dict[Key, list[Member]] | None:
    """Files by case where all end in a channel number; None where one does not, or a case lacks a channel."""
    cases: dict[Key, dict[str, Member]] = {}
    for (folders, stem), member in members:
        fit = CHANNEL.search(stem)
        if fit is None:
            return None
        cases.setdefault((folders, stem[: fit.start()]), {})[fit.group(1)] = member
    return {key: [files[number] for number in sorted(files)] for key, files in cases.items()}


def readers(
    members: Sequence[Member], names: Sequence[str], options: DatasetOptions, modalities: Sequence[str | None]
) -> dict[str, partial]:
    """{channel: function that reads it}, in order."""
    return {
        name: partial(load_image, member.path, options.read, modality)
        for name, member, modality in zip(names, members, modalities, strict=True)
    }


def _owner(key: Key, images: Mapping[Key, object]) -> Key | None:
    if key in images:
        return key
    folders, stem = key
    fit = MASK_SUFFIX.search(stem)
    bare = (folders, stem[: fit.start()]) if fit else None
    return bare if bare in images else None
