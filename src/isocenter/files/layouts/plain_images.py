"""Images without labels, in a folder or as one file: for prediction."""

from __future__ import annotations

from isocenter.errors import counted
from isocenter.files.index import format_of
from isocenter.files.layouts.cases.folder import Folder
from isocenter.files.layouts.cases.pairs import Key, NamedCase, are_channel_numbers, by_channel, one_each, rows_of
from isocenter.files.layouts.layout import DatasetOptions, Layout, Reading

# Formats that other layouts read; None is an unknown format.
OTHER_LAYOUTS = (None, "dicom", "numpy", "series")


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """A folder with images or films, or one file that some format knows."""
    del options
    if folder.is_file and not folder.images:
        return format_of(folder.root) not in OTHER_LAYOUTS
    return bool(folder.images or folder.films)


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """Each file is a case, or each group of files whose names end in _0000, _0001, ..."""
    members = folder.images or folder.films or folder.members
    keyed = [(Key(member.folders, member.stem, member.split), member) for member in members]
    numbered = by_channel(keyed)
    numbered = numbered if are_channel_numbers(numbered, options.channels, options.absent) else {}
    rows = rows_of([NamedCase(*case) for case in (numbered or one_each(keyed)).items()], options)
    channels = tuple(str(n) for n in range(options.channels or 0)) if numbered else ()
    return Reading(rows, how=counted(len(rows), "image"), channels=channels)


LAYOUT = Layout("plain_images", "images without labels", fits, read)
