"""Images without labels, in a folder or as one file: for prediction."""

from __future__ import annotations

from isocenter.files.layouts.folder import Folder
from isocenter.files.layouts.layout import DatasetOptions, Found, Layout, Reading
from isocenter.files.layouts.pairs import by_channel, readers
from isocenter.files.modality import modality_word


def fits(folder: Folder, options: DatasetOptions) -> bool:
    del options
    return bool(folder.images)


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """Each file is a case, or each group of files whose names end in _0000, _0001, ..."""
    keyed = [((member.folders, member.stem), member) for member in folder.images]
    cases = by_channel(keyed) or {(folders, stem + member.suffix): [member] for (folders, stem), member in keyed}
    modality = modality_word(options.modality)
    found = []
    for members in cases.values():
        names = ["image"] if len(members) == 1 else [str(n) for n in range(len(members))]
        found.append(
            Found(
                "/".join((*members[0].folders, _stem(members[0].stem, len(members)))),
                readers(members, names, options, [modality] * len(members)),
                files=tuple(member.path for member in members),
            )
        )
    return Reading(tuple(found), how=f"{len(found)} images without labels")


def _stem(stem: str, channels: int) -> str:
    return stem if channels == 1 else stem[: -len("_0000")]


LAYOUT = Layout("plain_images", "images without labels", fits, read)
