"""The files that an image file names or needs: in its own folder or below it, and nowhere else."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

from isocenter.errors import FormatError

REMEDY = "Put both files into one folder"


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path lies in a folder or below it once all links are followed."""
    return path.resolve().is_relative_to(folder.resolve())


def is_named_inside(path: Path, folder: Path) -> bool:
    """Whether the list of a data set, by this path, names a file in the set's folder or below it.

    A link is followed wherever it leads, as in a folder without a list: data stores make sets of links.
    """
    steps = path.relative_to(folder).parts if path.is_relative_to(folder) else ("..",)
    return ".." not in steps or is_inside(path, folder)


def inside_folder(name: str, header: Path) -> Path:
    """The file that an image file names, in the image file's own folder or below it; images come from strangers.

    Raises FormatError for a path or link that leads elsewhere, for a list or pattern of files, and for a missing file.
    """
    if name.upper().startswith("LIST") or "%" in name:
        raise FormatError("the voxels are spread over several files", str(header), "Save it as one file")
    where = PureWindowsPath(name)  # takes both kinds of slash, on every system
    if where.is_absolute() or where.drive or where.root or ".." in where.parts:
        raise FormatError(f"the header places the voxels at {name!r}, outside its folder", str(header), REMEDY)
    path = header.parent.joinpath(*where.parts)
    if not path.is_file():
        raise FormatError(f"the file with the voxels, {name!r}, is missing", str(header), REMEDY)
    return not_elsewhere(path, header)


def not_elsewhere(path: Path, image: Path) -> Path:
    """The file that belongs to an image file, if no link leads it out of the image file's folder.

    Raises FormatError where one does.
    """
    if not is_inside(path, image.parent):
        raise FormatError(f"{path.name!r} is a link that leads elsewhere", str(image), REMEDY)
    return path


def each_once(*paths: Path) -> tuple[str, ...]:
    """Paths of files that were read, as an Image's source lists them."""
    return tuple(dict.fromkeys(str(path) for path in paths))
