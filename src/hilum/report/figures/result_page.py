"""One page that states a result, for viewers that know neither segmentations nor reports: as pixels and as PDF.

Letters that the house's font lacks are taken from fonts that matplotlib finds on the machine.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from unicodedata import east_asian_width

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.font_manager import findfont, fontManager, get_font
from matplotlib.lines import Line2D

from hilum.errors import FormatError
from hilum.report import display, wording
from hilum.report.display import DARK, LIGHT, Ink, ScreenPlane, UprightView
from hilum.report.figures import box_figures, drawing, heat_map, slice_figures
from hilum.report.figures.drawing import Canvas
from hilum.report.figures.slice_figures import GROUND, REFERENCE_LINE
from hilum.values import Array, BoundingBoxes, Finding, Image, Label, Map
from hilum.values.advice_lines import ADVICE

WIDTH, HEIGHT, MARGIN = 8.27, 11.69, 0.6  # inches of A4
TALLEST = 5.2  # inches of the picture
LINE = 0.21  # inches from one line to the next
PIXELS_AN_INCH = 120
LETTERS_A_LINE = 92
# Where the columns of the table begin, in inches, and how many letters fit into each.
COLUMNS = (("Finding", 0.82, 34), ("Value", 3.45, 24), ("Interval", 5.15, 15), ("Probability", 6.3, 20))
# Metadata of a PDF that would change from one making to the next.
UNDATED: Mapping[str, str | None] = {"CreationDate": None, "Creator": "Hilum", "Producer": "Hilum"}


@dataclass(frozen=True, eq=False)
class ResultPage:
    """A result on one page: its key slice with outlines and boxes, and its findings as a table.

    masks:    (*spatial) values on the image's grid, and what they mean
    findings: in the order of the table; the called boxes are among them
    heads:    the first line is the model, the others say more of it and of the study
    notes:    sentences under the table, without which the result would be misread
    text:     what readers have to be told, in bold
    heat:     what the answer rests on, drawn as colours, with its words beneath the slice
    The slice is drawn as it is stored, with letters where sides are known.
    """

    image: Image
    masks: Sequence[tuple[Array, Sequence[Label]]]
    findings: Sequence[Finding]
    heads: Sequence[str]
    notes: Sequence[str] = ()
    text: str = ""
    heat: Map | None = None

    def pixels(self) -> Array:
        """(rows, columns, 3) uint8, bright on dark as images are read.

        Raises FormatError for letters that the page cannot show.
        """
        agg = FigureCanvasAgg(self._draw(DARK, PIXELS_AN_INCH))
        agg.draw()
        return np.asarray(agg.buffer_rgba())[..., :3].copy()

    def pdf(self) -> bytes:
        """The page as PDF, dark on white as pages are printed: the same bytes each time.

        Raises FormatError for letters that the page cannot show.
        """
        out = io.BytesIO()
        page = self._draw(LIGHT, 2 * PIXELS_AN_INCH)
        page.savefig(out, format="pdf", facecolor=LIGHT.paper, metadata={**UNDATED, "Title": self.heads[0]})
        return out.getvalue()

    @property
    def boxes(self) -> BoundingBoxes:
        """The boxes that are called, on the image's own grid."""
        called = [one for one in self.findings if one.box is not None]
        if not called:
            return BoundingBoxes.none(self.image.geometry.ndim, scored=True)
        scores = np.array([one.probability for one in called], dtype=np.float64)
        return BoundingBoxes(np.array([one.value for one in called]), tuple(one.concept for one in called), scores)

    def key_slice(self) -> int:
        """The slice with most of what is marked; without a mark that of the most evidence, else the middle one."""
        shape = self.image.geometry.shape
        if len(shape) < 3:
            return 0
        areas = np.zeros(shape[2])
        for mask, _ in self.masks:
            areas += np.count_nonzero(mask, axis=(0, 1))
        for low, high in zip(self.boxes.low, self.boxes.high, strict=True):
            first, last = max(0, math.floor(low[2])), max(1, math.ceil(high[2]))
            areas[first:last] += np.prod((high - low)[:2])
        if not areas.any() and self.heat is not None:
            areas = heat_map.evidence_shares(np.asarray(self.heat.data)).max(axis=(0, 1))
        return int(areas.argmax()) if areas.any() else shape[2] // 2

    def _draw(self, ink: Ink, dpi: float) -> Canvas:
        canvas = Canvas(figsize=(WIDTH, HEIGHT), dpi=dpi, facecolor=ink.paper)
        top = _put_lines(canvas, self.heads[:1], MARGIN, ink.text, size=14, weight="bold")
        top = _put_lines(canvas, self.heads[1:], top + 0.08, ink.faint)
        top = _put_lines(canvas, [self.text] if self.text else [], top, ink.text, weight="bold")
        top = self._put_slice(canvas, top + 0.05, ink)
        notes = [line for note in self.notes for line in _wrap(note)]
        rows, room = list(_rows(self.findings)), int((HEIGHT - MARGIN - top) / LINE) - len(notes) - 3
        if len(rows) > room:
            notes.insert(0, f"and {len(rows) - room} more findings, for which this page has no room")
        top = _put_table(canvas, rows[: max(0, room)], top, ink, self._colours()) if rows else top
        _put_lines(canvas, notes, top + 0.1, ink.faint)
        return canvas

    def _colours(self) -> dict[str, tuple[int, int, int]]:
        """{name of a structure or a box: its colour}."""
        layers = [labels for _, labels in self.masks] + [_classes(self.boxes)]
        return {
            one.name: display.label_colours(labels)[one.value]
            for labels in layers
            for one in display.foreground_labels(labels)
        }

    def _put_slice(self, canvas: Canvas, top: float, ink: Ink) -> float:
        """Draw the key slice, and give where its caption ends, in inches from the top."""
        view, plane, at = display.stored_view(self.image), display.stored_plane(self.image.geometry), self.key_slice()
        across, down = _size(view, plane)
        scale = min((WIDTH - 2 * MARGIN) / across, TALLEST / down)
        width, height = across * scale, down * scale
        corner = ((WIDTH - width) / 2 / WIDTH, 1 - (top + height) / HEIGHT)
        axes = canvas.add_axes((*corner, width / WIDTH, height / HEIGHT), facecolor=GROUND)
        axes.set_axis_off()
        slice_figures.put_greys(axes, view, plane, at)
        if self.heat is not None:
            heat_map.put_heat(
                axes, view, display.cut_slice(heat_map.evidence_shares(np.asarray(self.heat.data)), plane, at), plane
            )
        for mask, labels in self.masks:
            slice_figures.put_outlines(
                axes, display.cut_slice(np.asarray(mask), plane, at), view.steps(plane), labels, REFERENCE_LINE
            )
        box_figures.put_boxes(axes, view, plane, at, self.boxes, _classes(self.boxes), REFERENCE_LINE, scores=True)
        slice_figures.put_letters(axes, plane)
        slice_figures.put_scale_bar(axes, view.grid, plane)
        place = "" if plane.through is None else f"Slice {at + 1} of {view.grid.shape[2]}"
        words = [] if self.heat is None else [f"Colours: {self.heat.words}"]
        return _put_lines(canvas, [*([place] if place else []), *words], top + height + 0.08, ink.faint) + 0.12


def _size(view: UprightView, plane: ScreenPlane) -> tuple[float, float]:
    """Lengths of the slice across and down."""
    across, down = view.steps(plane)
    return view.grid.shape[plane.across] * across, view.grid.shape[plane.down] * down


def _classes(boxes: BoundingBoxes) -> list[Label]:
    return [Label(n, name) for n, name in enumerate(dict.fromkeys(boxes.names), start=1)]


def _wrap(text: str, letters: int = LETTERS_A_LINE) -> list[str]:
    """The lines of a text, each of so many letters at most; of wide ones half as many."""
    return textwrap.wrap(text, letters // 2 if is_wide(text) else letters)


def _put_lines(
    canvas: Canvas, texts: Sequence[str], top: float, colour: str, *, size: float = 9, weight: str = "normal"
) -> float:
    """Write texts below one another, and give where they end, in inches from the top."""
    step = LINE * max(1.0, size / 10)
    for text in texts:
        for line in _wrap(text, int(LETTERS_A_LINE * 9 / size)):
            _put_text(canvas, MARGIN, top, line, colour, size=size, weight=weight)
            top += step
    return top


def _put_text(canvas: Canvas, left: float, top: float, text: str, colour: str, **style: Any) -> None:
    families, missing = font_families(text)
    if missing:
        problem = f"no font of this machine has the letters {''.join(missing)}, of {drawing.short_name(text)!r}"
        raise FormatError(problem, "page", "Install a font with them, such as Noto Sans CJK, or ask for seg and sr")
    canvas.text(
        left / WIDTH, 1 - top / HEIGHT, text, color=colour, va="top", family=families, parse_math=False, **style
    )


def _put_table(
    canvas: Canvas, rows: Sequence[tuple[str, ...]], top: float, ink: Ink, named: Mapping[str, tuple[int, int, int]]
) -> float:
    """Draw the table of findings, each with the colour in which it is drawn, and give where it ends."""
    for title, left, _ in COLUMNS:
        _put_text(canvas, left, top, title, ink.faint, size=8.5)
    top += LINE
    canvas.add_artist(_rule(top - 0.03, ink.faint, 0.8))
    for concept, *cells in rows:
        if concept in named:
            line = Line2D([MARGIN / WIDTH, (MARGIN + 0.13) / WIDTH], [1 - (top + 0.09) / HEIGHT] * 2)
            line.set(
                color=slice_figures.hex_colour(named[concept]),
                linewidth=4,
                solid_capstyle="butt",
                transform=canvas.transFigure,
            )
            canvas.add_artist(line)
        for (_, left, letters), cell in zip(COLUMNS, cells, strict=True):
            limit = letters // 2 if is_wide(cell) else letters
            _put_text(canvas, left, top, drawing.short_name(cell, limit), ink.text, size=9)
        top += LINE
        canvas.add_artist(_rule(top - 0.03, ink.line, 0.5))
    return top


def _rule(top: float, colour: str, width: float) -> Line2D:
    high = 1 - top / HEIGHT
    return Line2D([MARGIN / WIDTH, 1 - MARGIN / WIDTH], [high, high], color=colour, linewidth=width)


def _rows(findings: Sequence[Finding]) -> Iterator[tuple[str, ...]]:
    """(concept, then the cells of `COLUMNS`) of each finding."""
    for finding in findings:
        structure = (
            finding.group if finding.label is not None else ""
        )  # which may have the part of the task before its name
        is_size = structure.rpartition(": ")[2] == finding.concept
        name = structure if is_size else ": ".join(filter(None, (structure, finding.concept)))
        chance = "" if finding.probability is None else wording.share_text(finding.probability, 1)
        doubt = ", uncalibrated" if chance and not finding.calibrated else ""
        yield finding.concept, name, _value(finding), _interval(finding), f"{chance}{doubt}"


def _value(finding: Finding) -> str:
    """The value in words: of a box its size, of one of several classes whether it is the answer."""
    unit = "" if finding.unit == "1" else finding.unit  # UCUM's of a plain number
    if finding.box is not None:
        low, high = np.split(np.asarray(finding.value, dtype=np.float64), 2)
        sizes = high - low if len(low) > 2 else (high - low)[::-1]  # a picture's axes are rows and columns
        return f"box, {' × '.join(f'{size:.0f}' for size in sizes)} {unit}"
    if finding.called is not None and finding.value is None:
        is_advice = finding.group == ADVICE
        text = (ADVICE if is_advice else "the model's answer") if finding.called else ""
    elif isinstance(finding.value, bool | np.bool_):
        text = "present" if finding.value else "absent"
    elif isinstance(finding.value, int | np.integer):
        text = f"{finding.value} {unit}".strip()
    elif isinstance(finding.value, float | np.floating):
        text = wording.number_text(float(finding.value), unit)
    else:
        text = "" if finding.value is None else f"{finding.value} {unit}".strip()
    return text


def _interval(finding: Finding) -> str:
    """The ends of the interval, or the one that is known."""
    low = None if finding.low is None else wording.number_text(finding.low)
    high = None if finding.high is None else wording.number_text(finding.high)
    if low is not None and high is not None:
        return f"{low} to {high}"
    return f"from {low}" if low is not None else f"up to {high}" if high is not None else ""


FONT = "DejaVu Sans"  # comes with matplotlib, so that a page looks the same everywhere
# Has a sign for each kind of letter, and no letter.
NO_LETTERS = "Last Resort"
REGULAR = ("normal", "regular", "book", "roman", "medium", 400, 500)


def font_families(text: str) -> tuple[list[str], list[str]]:
    """(families that together have the letters of a text, `FONT` first; letters that no font of the machine has)."""
    chosen, letters_known = [FONT], _letters(findfont(FONT))
    missing = [letter for letter in dict.fromkeys(text) if ord(letter) not in letters_known and not letter.isspace()]
    for family, path in _others() if missing else ():
        letters_known = _letters(path)
        if any(ord(letter) in letters_known for letter in missing):
            chosen.append(family)
            missing = [letter for letter in missing if ord(letter) not in letters_known]
        if not missing:
            break
    return chosen, missing


def is_wide(text: str) -> bool:
    """Whether a text has letters as wide as they are high, as those of Chinese, Japanese and Korean are."""
    return any(east_asian_width(letter) in "WF" for letter in text)


def _others() -> Iterator[tuple[str, str]]:
    """(family, file) of the upright fonts of the machine but `FONT`, each family once, in the order of their names."""
    families_seen = {FONT}
    for entry in sorted(fontManager.ttflist, key=lambda entry: (entry.name, entry.fname)):
        is_upright = entry.style == "normal" and entry.weight in REGULAR
        if is_upright and entry.name not in families_seen and not entry.name.startswith(NO_LETTERS):
            families_seen.add(entry.name)
            yield entry.name, entry.fname


@cache
def _letters(path: str) -> frozenset[int]:
    """The code points that a font's file has letters for; none where the file is gone since fonts were looked for."""
    try:
        return frozenset(get_font(path).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
