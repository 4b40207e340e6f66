"""Real data for tests: what the repository ships with what installed wheels hold, and the larger corpus.

`SHIPPED` has the folders and names of the corpus and fewer files; it lies beside every checkout. `CORPUS` is there for
few. A test that reads the corpus has the mark `corpus`, which the fixture of that name sets by itself.
"""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

import pytest
from _pytest.mark.structures import MarkDecorator, ParameterSet

ROOT = Path(__file__).parents[1]
IN_REPOSITORY = ROOT / "data"
# path in the corpus, package, path in the package, sha256
IN_WHEELS = Path(__file__).parent / "data" / "files_in_wheels.csv"
CORPUS = Path(os.environ.get("HILUM_TEST_DATA", ROOT.parent / "shared" / "data"))
# It holds this at least, so that an empty folder counts as none.
CORPUS_IS_HERE = (CORPUS / "README.md").is_file()
WITHOUT_CORPUS = "the larger corpus is not here: HILUM_TEST_DATA names its folder"


def _assemble() -> Path:
    """A folder with the layout of the corpus, made once for each state of `data/` and of the list of wheels."""
    state = hashlib.sha256(IN_WHEELS.read_bytes() + (IN_REPOSITORY / "files.csv").read_bytes()).hexdigest()[:16]
    folder = ROOT / ".pytest_cache" / f"real-data-{state}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as room:
        partial = Path(room, "assembled")
        shutil.copytree(IN_REPOSITORY, partial)
        for row in wheel_files():
            target = partial / row["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(in_wheel(row["package"], row["path_in_package"]))
        try:
            partial.rename(folder)
        except OSError:  # another worker was first
            if not folder.is_dir():
                raise
    return folder


def wheel_files() -> list[dict[str, str]]:
    """The rows of the list of files that lie in wheels."""
    with IN_WHEELS.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def in_wheel(package: str, path: str) -> bytes:
    """A file of an installed package."""
    return (resources.files(package) / path).read_bytes()


SHIPPED = _assemble()


def find(name: str) -> Path:
    """The path of a file or folder: the shipped one, else that of the corpus, which may not be here."""
    shipped = SHIPPED / name
    return shipped if shipped.exists() else CORPUS / name


def marks(name: str) -> tuple[MarkDecorator, ...]:
    """The marks of a parameter that reads this file or folder: none where it is shipped."""
    return () if (SHIPPED / name).exists() else (pytest.mark.corpus,)


def parameters(folder: str, names: Iterable[str]) -> list[ParameterSet]:
    """Names in a folder as parameters of a test, which `find` leads to; those that are not shipped have the mark."""
    return [pytest.param(name, marks=marks(f"{folder}/{name}")) for name in names]


def facts(shipped: object, corpus: object) -> list[ParameterSet]:
    """The shipped folder and the corpus as parameters of a test, each with what is true of it."""
    return [
        pytest.param(SHIPPED, shipped, id="shipped"),
        pytest.param(CORPUS, corpus, id="corpus", marks=pytest.mark.corpus),
    ]


# For a test that walks over all files: it walks over what is shipped, and where the corpus is here also over that.
FOLDERS = (pytest.param(SHIPPED, id="shipped"), pytest.param(CORPUS, id="corpus", marks=pytest.mark.corpus))
