"""Images without labels, in a folder or as one file: for prediction."""

from __future__ import annotations

from hilum import errors
from hilum.files import file_formats
from hilum.layouts.cases import mask_pairs
from hilum.layouts.cases.dataset_folder import Folder
from hilum.layouts.cases.mask_pairs import IMAGE, NamedCase, PairKey
from hilum.layouts.layout import DatasetOptions, Example, Layout, Reading

# Formats that other layouts read; None is an unknown format.
OTHER_LAYOUTS = (None, "dicom", "numpy", "series")


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """A folder with images or clips, or one file that some format knows."""
    if folder.is_file and not folder.images:
        return file_formats.format_of(folder.root) not in OTHER_LAYOUTS
    return bool(folder.images or folder.clips)


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """Each file is a case, or each group of files whose names end in _0000, _0001, ..."""
    members = folder.images or folder.clips or folder.members
    cases = mask_pairs.group_into_cases([(PairKey.of_file(member), member) for member in members], options)
    rows = mask_pairs.rows_of_cases([NamedCase(*case) for case in cases.items()], options)
    is_numbered = any(IMAGE not in own for own in cases.values())
    channels = tuple(str(n) for n in range(options.channels or 0)) if is_numbered else ()
    return Reading(rows, how=errors.count_phrase(len(rows), "image"), channels=channels)


EXAMPLE: Example = {f"x{n}.png": n for n in range(2)}
LAYOUT = Layout("plain_images", "images without labels", fits, read, example=EXAMPLE)
