"""The page of a result: its key slice, its outlines as they lie in the file, its words, and its bytes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager

from hilum.errors import FormatError
from hilum.report import display
from hilum.report.figures import result_page
from hilum.report.figures.result_page import FONT, ResultPage
from hilum.values import Finding, Geometry, Image, Label

LIVER = Label(1, "liver", (255, 0, 0))
SIZE = Finding("liver", 12.34, "ml", low=11.0, high=13.5, group="liver", label=1)
# Columns run to the patient's left, rows to the back, slices upwards: as scanners store axial images.
GRID = Geometry((20, 30, 6), np.diag([-1.0, -1.0, 2.0, 1.0]))


def page_of(*findings: Finding, marked: int | None = 2, text: str = "", name: str = "liver") -> ResultPage:
    mask = np.zeros(GRID.shape, np.uint8)
    if marked is not None:
        mask[3:6, 20:26, marked] = 1
        mask[3, 20, :] = 1
    image = Image(np.zeros((1, *GRID.shape), np.float32), GRID, modality="CT", channels=("CT",))
    return ResultPage(image, [(mask, [LIVER])], findings or (SIZE,), ["model"], text=text)


def words_of(page: ResultPage, folder: Path) -> str:
    (folder / "page.pdf").write_bytes(page.pdf())
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext (Debian: poppler-utils) is not installed")
    told = subprocess.run(["pdftotext", folder / "page.pdf", "-"], check=True, capture_output=True, text=True)
    return " ".join(told.stdout.split())


def test_the_key_slice_has_most_of_what_is_marked_and_is_the_middle_one_without_a_mark():
    box = Finding("nodule", [0, 0, 4, 20, 30, 5], "voxels", 0.9, box=0)
    assert page_of().key_slice() == 2
    assert page_of(box).key_slice() == 4
    assert page_of(marked=None).key_slice() == 3


def test_the_slice_is_drawn_as_it_is_stored_with_the_letters_of_its_sides():
    assert display.stored_plane(GRID).edges == ("R", "L", "A", "P")
    pixels = page_of().pixels().astype(int)
    red = np.argwhere((pixels[..., 0] > 200) & (pixels[..., 1:].max(axis=-1) < 60))
    rows, columns = red[red[:, 1] > 0.12 * pixels.shape[1]].mean(axis=0) / pixels.shape[:2]  # without the table's key
    assert columns < 0.5  # low columns are at the left
    assert 0.3 < rows < 0.6  # high rows are at the bottom of the picture


def test_the_page_states_values_intervals_probabilities_and_the_text_of_the_node(tmp_path: Path):
    likely = Finding("effusion", True, probability=0.934, calibrated=True)
    unsure = Finding("nodule", False, probability=0.2)
    words = words_of(page_of(SIZE, likely, unsure, text="For research use only"), tmp_path)
    for part in ("model", "For research use only", "12.3 ml", "11.0 to 13.5", "93.4 %", "20.0 %, uncalibrated"):
        assert part in words
    assert "93.4 %, uncalibrated" not in words


def test_findings_without_room_are_counted(tmp_path: Path):
    assert "more findings, for which this page has no room" in words_of(page_of(*[SIZE] * 60), tmp_path)


def test_the_pdf_has_the_same_bytes_each_time_and_one_page(tmp_path: Path):
    assert page_of().pdf() == page_of().pdf()
    (tmp_path / "page.pdf").write_bytes(page_of().pdf())
    if shutil.which("pdfinfo"):
        told = subprocess.run(["pdfinfo", tmp_path / "page.pdf"], check=True, capture_output=True, text=True)
        assert "Pages:           1" in told.stdout
        assert told.stderr == ""


def test_letters_that_no_font_of_the_machine_has_are_refused_and_named():
    with pytest.raises(FormatError, match="letters \U0010fffd\U0010fffc, of"):
        page_of(Finding("a\U0010fffd\U0010fffc", 1.0, "ml")).pixels()


def test_letters_that_the_house_font_lacks_are_drawn_with_a_font_of_the_machine(tmp_path: Path, monkeypatch):
    letter = "\ue4d2"  # of private use, which no other font has
    monkeypatch.setattr(fontManager, "ttflist", [*fontManager.ttflist])
    fontManager.addfont(square_of(letter, tmp_path / "square.ttf"))
    assert result_page.font_families(f"a{letter}") == ([FONT, "Square"], [])
    page = page_of(Finding(letter * 3, 1.0, "ml"))
    assert np.any(page.pixels() != page_of(Finding("   ", 1.0, "ml")).pixels())
    assert page.pdf() == page.pdf()


def square_of(letter: str, path: Path) -> Path:
    """A font with one letter, a filled square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(corner)
    pen.closePath()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "square"])
    font.setupCharacterMap({ord(letter): "square"})
    font.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    font.setupHorizontalMetrics({".notdef": (800, 0), "square": (800, 0)})
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Square", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(path)
    return path
