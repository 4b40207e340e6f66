from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import hilum
from hilum.errors import DatasetError
from situations import write_picture


def pictures(root: Path, empty: int | None = 3) -> Path:
    """Twelve pictures of a disc with masks, of which one is empty."""
    rows, columns = np.indices((24, 24))
    disc = (rows - 12) ** 2 + (columns - 12) ** 2 < 40
    for n in range(12):
        speckle = np.random.default_rng(n).integers(0, 60, disc.shape)
        write_picture(root / "images" / f"image{n}.png", (speckle + 120 * disc).astype(np.uint8))
        write_picture(root / "masks" / f"image{n}.png", (disc * (n != empty)).astype(np.uint8))
    return root


def rewrite(table: Path, case: str, cell: str) -> None:
    """Write what is accepted of a case into a table."""
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["accepted"] = cell if row["case"] == case else ""
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def of_empty_mask(found: hilum.Check):
    [problem] = [one for one in found.problems if "mask is empty" in one.what]
    return problem


@pytest.fixture
def checked(tmp_path):
    """The check of the pictures, and the table that it wrote."""
    found = hilum.check(pictures(tmp_path / "data"), out=tmp_path / "out", threads=1)
    return found, tmp_path / "out" / "dataset.csv"


def test_what_a_person_accepts_is_a_note_until_the_reference_changes(checked, tmp_path):
    found, table = checked
    warning = of_empty_mask(found)
    assert (warning.severity, warning.cases, warning.kind) == ("warning", ("image3",), "empty-mask")
    [accepting] = warning.accepts
    assert f"write into column accepted of dataset.csv {accepting} for image3" in repr(found)
    assert accepting in (table.parent / "check.html").read_text()
    assert f'"{accepting}"' in (table.parent / "check.json").read_text()

    rewrite(table, "image3", accepting)
    accepted = of_empty_mask(hilum.check(table, out=tmp_path / "again", threads=1))
    assert (accepted.severity, accepted.what.endswith("(a person accepts it)")) == ("note", True)
    assert accepting in (tmp_path / "again" / "dataset.csv").read_text()

    write_picture(tmp_path / "data" / "images" / "image3.png", np.full((24, 24), 9, np.uint8))
    lapsed = of_empty_mask(hilum.check(table, threads=1))
    assert lapsed.severity == "warning"
    assert lapsed.what.endswith("(accepted for another version of image or reference)")


@pytest.mark.parametrize(
    ("cell", "fault"), [("ugly@1f0a77c2", "no kind of finding"), ("empty-mask", "names no version")]
)
def test_a_cell_that_accepts_nothing_that_there_is_is_refused_with_its_row(checked, cell, fault):
    _, table = checked
    rewrite(table, "image3", cell)
    with pytest.raises(DatasetError, match=rf"column accepted, row .*{fault}"):
        hilum.check(table, threads=1)
