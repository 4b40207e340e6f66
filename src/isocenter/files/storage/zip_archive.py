"""ZIP archives from strangers: nothing in them unpacks further than the archive says it does."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Of bzip2 and LZMA the library unpacks without end to fill one small buffer; no program writes what we read with them.
UNPACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Weights hardly shrink, and text about fivefold: an archive that grows more than this was made to fill a disk.
LARGEST_GROWTH = 100
MOST_FILES = 10_000
# What the library raises for a damaged archive, or one with a password.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeError)


@contextmanager
def opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive, if all in it is stored or deflated: then a file is cut, and refused, where its stated size ends.

    Raises ValueError for other compressions, and for what is no whole archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            other = next((entry for entry in archive.infolist() if entry.compress_type not in UNPACKED), None)
            if other is not None:
                raise ValueError(f"{other.filename!r} is compressed in a way that is not read")
            yield archive
    except ZIP_ERRORS as error:
        raise ValueError(str(error)) from error


def refuse_growth(path: Path) -> None:
    """Raise ValueError for a ZIP that would unpack to far more than weights and text do; other files pass."""
    if not zipfile.is_zipfile(path):
        return
    with opened_zip(path) as archive:
        entries = archive.infolist()
    size = sum(entry.file_size for entry in entries)
    if len(entries) > MOST_FILES or size > LARGEST_GROWTH * path.stat().st_size:
        problem = f"would unpack to {len(entries)} files and {size:,} bytes, which a small file can claim as an attack"
        raise ValueError(problem)
