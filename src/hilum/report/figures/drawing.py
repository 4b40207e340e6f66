"""Drawings: charts as SVG in the inks of the page, pictures as small PNGs."""

from __future__ import annotations

import hashlib
import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast
from xml.etree import ElementTree

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_mixed import MixedModeRenderer
from matplotlib.backends.backend_svg import RendererSVG
from PIL import Image as Picture

from hilum import errors
from hilum.report.display import LIGHT, PALETTE, Ink
from hilum.report.page_blocks import Figure

if TYPE_CHECKING:
    from matplotlib.backend_bases import RendererBase

Canvas = matplotlib.figure.Figure  # the object itself, never pyplot: nothing global, safe in threads

# Base64 adds a third; with this a report of thirty pictures stays under four megabytes.
PNG_LIMIT = 100_000
# Letters of SVG: a page needs no base64 for it.
SVG_LIMIT = 130_000
MARKS_DPI = 120  # of the marks and lines of a chart that would be larger
CHART_DPI = 200  # twice the pixels of a plain screen, so that letters stay sharp on a fine one
POINTS = 72  # an inch, of SVG and of letters

# Colours of a picture besides those of outlines: as many as a palette holds, and for one that is too large.
OWN_COLOURS = (256 - len(PALETTE), 57)
CROWDED = 10  # more bars or classes than these are as_svg smaller
SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
OWN = "of-this-drawing-"  # in ids, which have the digest of the drawing in its place
FONT, COLOUR = re.compile(r"font-family:[^;]*;?"), re.compile(r"#[0-9a-f]{6}\b")
INKS = {colour: f"var(--{name}, {colour})" for name, colour in LIGHT.variables.items()}


def draw_chart(
    draw: Callable[[Canvas, Ink], None],
    *,
    title: str,
    caption: str,
    alt: str,
    size: tuple[float, float] = (4.4, 3.0),
    is_file: bool = False,
) -> Figure:
    """The drawing of `draw` as SVG without a ground, whose inks are those of the page.

    size:    in inches of 100 screen pixels
    is_file: whether it is wanted as a file or in a word processor: it has a PNG on white too
    """
    canvas = Canvas(figsize=size, facecolor="none", layout="constrained")
    FigureCanvasAgg(canvas)  # measures letters fast
    draw(canvas, LIGHT)
    as_svg = svg(canvas)
    canvas.set_facecolor(LIGHT.paper)
    picture = encode_png(canvas, CHART_DPI) if is_file else b""
    return Figure(title=title, png=picture, svg=as_svg, caption=caption, alt=alt)


def plain_axes(axes: Axes, ink: Ink, *, rows: bool = False) -> None:
    """Axes with two thin lines and a faint grid: the data are what stands out. rows: each with its name, no grid."""
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(ink.faint)
    axes.tick_params(colors=ink.faint, labelsize=8.5, length=3)
    axes.grid(True, color=ink.line, linewidth=0.6)
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(ink.text)
        label.set_fontsize(9)
        label.set_parse_math(False)  # names are shown as they are, never read as formulas
    if rows:
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0, labelcolor=ink.text)


def draw_legend(axes: Axes, ink: Ink, location: Literal["best", "lower right"] = "best") -> None:
    """A legend without a box; none of so many entries that they would hide what they name."""
    if len(axes.get_legend_handles_labels()[0]) > CROWDED:
        return
    box = axes.legend(loc=location, fontsize=8.5, labelcolor=ink.text, facecolor=ink.paper)
    box.get_frame().set(edgecolor="none", alpha=0.8)
    for text in box.get_texts():
        text.set_parse_math(False)


def caption_unnamed(lines: int) -> str:
    """The caption of a chart with more lines than a legend has room for."""
    return f"{lines} lines, too many to name: the tables state the figures of each." if lines > CROWDED else ""


def short_name(name: str, length: int = 22) -> str:
    """A name that fits under a picture: its ends, which tell cases apart."""
    name = " ".join(name.split())
    if len(name) <= length:
        return name
    head = (length - 1) // 2
    return f"{name[:head]}\N{HORIZONTAL ELLIPSIS}{name[head + 1 - length :]}"


def shorten_all(names: Sequence[str], length: int = 22) -> list[str]:
    """The names as `short_name` makes them; those that it would make alike are whole."""
    short_names = [short_name(name, length) for name in names]
    return [one if short_names.count(one) == 1 else name for one, name in zip(short_names, names, strict=True)]


def cycle_colours(ink: Ink, count: int) -> list[str]:
    """A number of colours of series, from the first again where they do not suffice."""
    return [ink.series[place % len(ink.series)] for place in range(count)]


def encode_png(canvas: Canvas, dpi: float) -> bytes:
    """The drawing as PNG of at most PNG_LIMIT bytes: fewer colours first, then fewer pixels."""
    while True:
        picture = _render(canvas, dpi)
        for colour_count in OWN_COLOURS:
            data = _pack_palette(picture, colour_count)
            if len(data) <= PNG_LIMIT:
                return data
        dpi *= min(0.95, 0.98 * math.sqrt(PNG_LIMIT / len(data)))  # bytes grow with the area


def svg(canvas: Canvas) -> str:
    """The drawing as an element of HTML. Of what would be larger than SVG_LIMIT marks and lines are pixels."""
    text = _as_xml(canvas)
    if len(text) > SVG_LIMIT:
        for axes in canvas.axes:
            for artist in (*axes.lines, *axes.collections, *axes.patches):
                artist.set_rasterized(True)
        text = _as_xml(canvas)
    root = _in_inks(ElementTree.fromstring(text))  # noqa: S314 - matplotlib has just written it
    width, height = (f"{100 * inches:.0f}" for inches in canvas.get_size_inches())
    root.attrib |= {"width": width, "height": height, "style": "stroke-linejoin: round", "xmlns": SVG.strip("{}")}
    written = ElementTree.tostring(root, encoding="unicode")
    return written.replace(OWN, hashlib.sha256(written.encode()).hexdigest()[:10] + "-")  # a page may have many


def _in_inks(root: ElementTree.Element) -> ElementTree.Element:
    """The drawing with variables of the page for colours, without what would change the page around it."""
    for element in list(root.iter()):
        for child in [one for one in element if one.tag in (f"{SVG}metadata", f"{SVG}style")]:
            element.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG)
        if element.tag == "g":
            element.attrib.pop("id", None)
        if link := element.attrib.pop(LINK, None):
            element.set("href", link)
        if style := element.get("style"):
            element.set("style", COLOUR.sub(lambda found: INKS.get(found[0], found[0]), FONT.sub("", style)))
    return root


def _as_xml(canvas: Canvas) -> str:
    out = io.StringIO()
    canvas.set_dpi(POINTS)
    width, height = canvas.get_size_inches()
    letters = _Letters(width * POINTS, height * POINTS, out, image_dpi=MARKS_DPI)
    renderer = MixedModeRenderer(canvas, width, height, MARKS_DPI, letters)
    with warnings.catch_warnings():
        # The page draws the letters by its own fonts; what the font of our measuring lacks is no fault.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        canvas.draw(cast("RendererBase", renderer))  # it hands each call on to one
    renderer.finalize()
    return out.getvalue()


class _Letters(RendererSVG):
    """SVG whose letters are text in the font of the page, and whose ids are the same each time.

    Matplotlib has settings for both, which hold for all drawings of a process.
    """

    ids = 0

    def draw_text(self, gc: Any, x: float, y: float, s: str, prop: Any, angle: float, *more: Any, **given: Any) -> None:
        """A line of text."""
        self._draw_text_as_text(gc, x, y, errors.printable_text(s), prop, angle, *more, **given)

    def _make_id(self, kind: str, content: object) -> str:
        self.ids += 1
        return f"{kind}{OWN}{self.ids}"


def _render(canvas: Canvas, dpi: float) -> Picture.Image:
    canvas.set_dpi(dpi)
    agg = FigureCanvasAgg(canvas)
    agg.draw()
    return Picture.fromarray(np.asarray(agg.buffer_rgba())).convert("RGB")


def _pack_palette(picture: Picture.Image, colour_count: int) -> bytes:
    """PNG with a palette: a third of the size, and on grey pictures no difference to be seen.

    The colours of outlines are always in it: a line has too few pixels to earn its own beside a photograph.
    """
    out, every = io.BytesIO(), Picture.new("P", (1, 1))
    packed = picture.quantize(colour_count, method=Picture.Quantize.MEDIANCUT, dither=Picture.Dither.NONE)
    common = [*(packed.getpalette() or []), *[0] * 3 * colour_count][: 3 * colour_count]
    every.putpalette([*common, *np.ravel(PALETTE).tolist()])
    # Pillow looks for the nearest of given colours in steps of four levels: good for lines, not for greys.
    nearest = np.asarray(picture.quantize(palette=every, dither=Picture.Dither.NONE))
    lined = Picture.fromarray(np.where(nearest >= colour_count, nearest, np.asarray(packed)))
    lined.putpalette(every.getpalette() or [])
    lined.save(out, format="PNG", compress_level=7)
    return out.getvalue()
