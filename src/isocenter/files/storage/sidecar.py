"""The voxel file that a header names."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

from isocenter.errors import FormatError


def inside_folder(name: str, header: Path) -> Path:
    """The voxel file that a header names, in the header's own folder or below it; headers come from strangers.

    Raises FormatError for a path that leads elsewhere, for a list or pattern of files, and where it is missing.
    """
    if name.upper().startswith("LIST") or "%" in name:
        raise FormatError("the voxels are spread over several files", str(header), "Save it as one file")
    where = PureWindowsPath(name)  # takes both kinds of slash, on every system
    if where.is_absolute() or where.drive or where.root or ".." in where.parts:
        raise FormatError(
            f"the header places the voxels at {name!r}, outside its folder",
            str(header),
            "Put both files into one folder",
        )
    path = header.parent.joinpath(*where.parts)
    if not path.is_file():
        raise FormatError(f"the file with the voxels, {name!r}, is missing", str(header), "Put both into one folder")
    if not path.resolve().is_relative_to(header.parent.resolve()):
        raise FormatError(f"{name!r} is a link that leads elsewhere", str(header), "Put both files into one folder")
    return path
