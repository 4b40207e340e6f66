"""Read every file of the DICOM and NIfTI corpora and write what comes of each: `python bench/corpus.py`.

A row for each file or series that was refused, or read with a note, with the words of both; the others by name.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from hilum.errors import HilumError
from hilum.files import file_formats
from hilum.values import Image

HERE = Path(__file__).parent
DATA = HERE.parent.parent / "shared" / "data"
# Files that describe the corpus and are no part of it.
DESCRIPTIONS = (".md", ".csv", ".json", ".txt", ".tsv")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="the folder with dicom/ and nifti/")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "corpus.md")
    given = parser.parse_args()
    if not given.data.is_dir():
        sys.exit(f"{given.data}: there is no such folder. Give the data with --data.")
    text = page(given.data)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(text, encoding="utf-8")
    print(f"wrote {given.out}")


def page(data: Path) -> str:
    """The whole page."""
    parts = [
        "# What comes of every file of the corpora",
        "Written by `python bench/corpus.py`, which reads each file and each DICOM series, voxels included. A file is "
        "read with the right geometry and values, or refused: here by what is wrong; the error also says where, "
        "and what to do. `tests/files/` compares geometry and values with other implementations.",
    ]
    for title, folder in (
        ("DICOM series", data / "dicom" / "series"),
        ("DICOM objects", data / "dicom" / "files"),
        ("Damaged DICOM", data / "dicom" / "broken"),
        ("NIfTI and other volumes", data / "nifti"),
    ):
        if folder.is_dir():
            parts.append(section(title, folder))
    return "\n\n".join(parts) + "\n"


def section(title: str, folder: Path) -> str:
    rows = [row for path in items(folder) for row in outcomes(path, folder)]
    read = [(name, what) for name, outcome, what in rows if outcome == "read"]
    plain = [name for name, what in read if not what.endswith(")")]
    lines = [f"## {title}", "", f"{len(read)} images read, {len(rows) - len(read)} refused."]
    if plain:
        lines += ["", f"Read without a note: {', '.join(map(escaped, plain))}."]
    odd = [row for row in rows if row[0] not in plain or row[1] == "refused"]
    if odd:
        lines += ["", "| file | outcome | what |", "|---|---|---|"]
        lines += [f"| {escaped(name)} | {outcome} | {escaped(what)} |" for name, outcome, what in odd]
    return "\n".join(lines)


def items(folder: Path) -> Iterator[Path]:
    """The files of a folder; folders of DICOM series are one item."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and any(file_formats.format_of(file) == "dicom" for file in path.rglob("*") if file.is_file()):
            yield path
        elif path.is_dir():
            yield from items(path)
        elif not is_description(path, folder):
            yield path


def is_description(path: Path, folder: Path) -> bool:
    """Beside the data lie tables, notes, and reference volumes of a DICOM series."""
    reference = any((folder / path.name.split(suffix)[0]).is_dir() for suffix in (".nii.gz", ".tilt_corrected"))
    return path.suffix in DESCRIPTIONS or reference


def outcomes(path: Path, folder: Path) -> Iterator[tuple[str, str, str]]:
    """(name, "read" or "refused", what) for each image of a file."""
    name = path.relative_to(folder).as_posix()
    started = time.perf_counter()
    try:
        volumes = file_formats.read_volumes(path)
    except HilumError as error:
        yield name, "refused", words_of(error, folder)
        return
    for volume in volumes:
        shown = name if len(volumes) == 1 else f"{name}: {volume}"
        try:
            image = volumes[volume]
            _ = image.data
            yield shown, "read", described(image)
        except HilumError as error:
            yield shown, "refused", words_of(error, folder)
    taken = time.perf_counter() - started
    if taken > 10:
        print(f"{name} took {taken:.0f} s")


def described(image: Image) -> str:
    """Size, spacing, orientation and kind of values of one image, and what was odd."""
    size = " x ".join(str(n) for n in image.geometry.shape)
    several = [f"{image.frames} frames" if image.frames else "", f"{len(image.channels)} channels"]
    spacing = "size in mm unknown" if image.spacing is None else " x ".join(f"{s:.4g}" for s in image.spacing) + " mm"
    facts = [
        image.modality,
        size,
        *(several if len(image.channels) > 1 else several[:1]),
        spacing,
        image.geometry.orientation or "sides unknown",
        "sheared" if image.geometry.is_sheared else "",
        str(image.dtype),
        str(image.facts.get("unit", "")),
    ]
    notes = "; ".join(image.notes)
    return ", ".join(fact for fact in facts if fact) + (f" ({notes})" if notes else "")


def words_of(error: HilumError, folder: Path) -> str:
    """What was refused, without the remedy and the place of the data on this machine."""
    return error.problem.replace(f"{folder}/", "").rstrip(".")


def escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    main()
