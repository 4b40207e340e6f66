"""The files below a folder, through links too, and those that an image file names or needs, which lie nowhere else."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

from hilum.errors import DatasetError, FormatError

# Folders that file systems keep for themselves, at the top of a disk.
OF_SYSTEMS = frozenset({"lost+found", "System Volume Information", "$RECYCLE.BIN"})


def files_below(root: Path) -> Iterator[Path]:
    """Every file that is not hidden, folder by folder in the order of their names; each real folder once.

    A link to a folder inside of `root` or around it is passed over: its files come under their own names, or never end.
    So are pipes and devices, which never end either. A link that leads nowhere counts as the file that is missing.
    Raises DatasetError for a folder that cannot be listed: cases would be missing without a word.
    """
    home = root.resolve()
    visited: set[Path] = set()
    waiting = [root]
    while waiting:
        folders, files = _list_folder(waiting.pop())
        yield from files
        waiting += reversed([folder for folder in folders if _is_new(folder, home, visited)])


def _list_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders and the files of a folder, by their names."""
    folders, files = list[Path](), list[Path]()
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith(".") or entry.name in OF_SYSTEMS:
                    continue
                match _kind(entry):
                    case stat.S_IFDIR:
                        folders.append(folder / entry.name)
                    case stat.S_IFREG:
                        files.append(folder / entry.name)
    except OSError as error:
        _refuse(error)
    return folders, files


def _kind(entry: os.DirEntry[str]) -> int:
    """The kind of an entry or of what it leads to, as `stat.S_IFMT` has it; 0 for neither file nor folder."""
    if not entry.is_symlink():
        return stat.S_IFDIR if entry.is_dir() else stat.S_IFREG if entry.is_file() else 0
    try:
        return stat.S_IFMT(entry.stat().st_mode)
    except OSError:  # it leads nowhere
        return stat.S_IFREG


def _is_new(folder: Path, home: Path, visited: set[Path]) -> bool:
    """Whether a folder is to be entered; notes it as seen."""
    real = folder.resolve()
    if folder.is_symlink() and (real.is_relative_to(home) or home.is_relative_to(real)):
        return False
    if real in visited:
        return False
    visited.add(real)
    return True


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # a folder that somebody deletes meanwhile is no longer there
        raise DatasetError(
            f"the folder cannot be listed ({error.strerror})",
            str(error.filename),
            "Give yourself the right to read it, or choose a folder without it",
        ) from error


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


def unique_paths(*paths: Path) -> tuple[str, ...]:
    """Paths of files that were read, as an Image's source lists them."""
    return tuple(dict.fromkeys(str(path) for path in paths))
