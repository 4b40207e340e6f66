"""Drawings as small PNGs, in the inks of a light and a dark page."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image as Picture

from isocenter.report.blocks import Figure
from isocenter.report.display import PALETTE

Canvas = matplotlib.figure.Figure  # the object itself, never pyplot: nothing global, safe in threads

# Base64 adds a third; with this a report of thirty pictures stays under four megabytes.
PNG_LIMIT = 100_000
# Of 255: a pixel whose colour is so near to that of an outline belongs to it.
ALIKE = 24
CHART_DPI = 200  # twice the pixels of a plain screen, so that letters stay sharp on a fine one

# Colours of a picture besides those of outlines: as many as a palette holds, and for one that is too large.
OWN_COLOURS = (256 - len(PALETTE), 57)
# (channels, 256) bit n: whether a level is near to that of colour n of the outlines; far faster than differences.
_APART = np.abs(np.arange(256)[:, None, None] - np.array(PALETTE)[None])  # (256, colours, channels)
NEAR = ((_APART < ALIKE) << np.arange(len(PALETTE))[:, None]).sum(axis=1).T.astype(np.uint32)
CROWDED = 10  # more bars or classes than these are drawn smaller


@dataclass(frozen=True)
class Ink:
    """The colours of a chart: paper, text, faint lines, and series, the first five of which anybody can tell apart."""

    paper: str
    text: str
    faint: str
    grid: str
    series: tuple[str, ...]


# Five after Okabe and Ito 2008, darkened or lightened until they stand 3:1 against the paper (WCAG 2.2, 1.4.11). Each
# further one does too, and lies farthest from all before it and from the text, by the measure of `PALETTE`.
ON_LIGHT = (
    "#0068a8", "#c25400", "#00805d", "#a3487a", "#8a6d00",
    "#ff00ff", "#8700ff", "#8787f0", "#690087", "#781e00",
    "#0000e1", "#ff4b96", "#4ba500", "#c300c3", "#005a00",
    "#1e69ff", "#1ea5a5", "#b487a5", "#1e3c87", "#784bb4",
)  # fmt: skip
ON_DARK = (
    "#56b4e9", "#f0a848", "#35c79b", "#e29bc3", "#f0e442",
    "#9600ff", "#d20000", "#1e7800", "#2d69a5", "#ff00e1",
    "#a53c96", "#00f000", "#a5781e", "#b478ff", "#4bffc3",
    "#ff4b78", "#0087ff", "#009687", "#4ba500", "#a5c300",
)  # fmt: skip
LIGHT = Ink("#ffffff", "#1d2730", "#5c6975", "#e3e8ec", ON_LIGHT)
DARK = Ink("#161c22", "#e4eaf0", "#9aa7b3", "#2c353e", ON_DARK)


def chart(
    draw: Callable[[Canvas, Ink], None],
    *,
    title: str,
    caption: str,
    alt: str,
    size: tuple[float, float] = (4.4, 3.0),
) -> Figure:
    """The drawing of `draw` in both inks. size: in inches of 100 screen pixels."""
    light, dark = (_drawn(draw, ink, size) for ink in (LIGHT, DARK))
    first = png(light, CHART_DPI)  # which finds out where everything lies: half of the time of a drawing
    _lie_as(dark, light)
    return Figure(title=title, png=first, dark=png(dark, CHART_DPI), caption=caption, alt=alt, density=CHART_DPI / 100)


def plain(axes: Axes, ink: Ink) -> None:
    """Axes with two thin lines and a faint grid: the data are what stands out."""
    axes.set_facecolor(ink.paper)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(ink.faint)
    axes.tick_params(colors=ink.faint, labelsize=8.5, length=3)
    axes.grid(True, color=ink.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(ink.text)
        label.set_fontsize(9)
        label.set_parse_math(False)  # names are shown as they are, never read as formulas


def legend(axes: Axes, ink: Ink, location: Literal["best", "lower right"] = "best") -> None:
    """A legend without a box; none of so many entries that they would hide what they name."""
    if len(axes.get_legend_handles_labels()[0]) > CROWDED:
        return
    box = axes.legend(loc=location, fontsize=8.5, labelcolor=ink.text, facecolor=ink.paper)
    box.get_frame().set(edgecolor="none", alpha=0.8)
    for text in box.get_texts():
        text.set_parse_math(False)


def unnamed(lines: int) -> str:
    """The caption of a chart with more lines than a legend has room for."""
    return f"{lines} lines, too many to name: the tables state the figures of each." if lines > CROWDED else ""


def short(name: str, length: int = 22) -> str:
    """A name that fits under a picture: its ends, which tell cases apart."""
    name = " ".join(name.split())
    if len(name) <= length:
        return name
    head = (length - 1) // 2
    return f"{name[:head]}\N{HORIZONTAL ELLIPSIS}{name[head + 1 - length :]}"


def shortened(names: Sequence[str], length: int = 22) -> list[str]:
    """The names as `short` makes them; those that it would make alike are whole."""
    short_names = [short(name, length) for name in names]
    return [one if short_names.count(one) == 1 else name for one, name in zip(short_names, names, strict=True)]


def cycle(ink: Ink, count: int) -> list[str]:
    """A number of colours of series, from the first again where they do not suffice."""
    return [ink.series[place % len(ink.series)] for place in range(count)]


def png(canvas: Canvas, dpi: float) -> bytes:
    """The drawing as PNG of at most PNG_LIMIT bytes: fewer colours first, then fewer pixels."""
    while True:
        picture = _rendered(canvas, dpi)
        for colour_count in OWN_COLOURS:
            data = _packed(picture, colour_count)
            if len(data) <= PNG_LIMIT:
                return data
        dpi *= min(0.95, 0.98 * math.sqrt(PNG_LIMIT / len(data)))  # bytes grow with the area


def _drawn(draw: Callable[[Canvas, Ink], None], ink: Ink, size: tuple[float, float]) -> Canvas:
    canvas = Canvas(figsize=size, facecolor=ink.paper, layout="constrained")
    draw(canvas, ink)
    return canvas


def _lie_as(canvas: Canvas, laid_out: Canvas) -> None:
    """The axes where those of the same drawing in another ink came to lie, with their ends: colours move nothing."""
    canvas.set_layout_engine("none")
    for axes, others in zip(canvas.axes, laid_out.axes, strict=True):
        axes.set(position=others.get_position(original=True), xlim=others.get_xlim(), ylim=others.get_ylim())


def _rendered(canvas: Canvas, dpi: float) -> Picture.Image:
    canvas.set_dpi(dpi)
    agg = FigureCanvasAgg(canvas)
    agg.draw()
    return Picture.fromarray(np.asarray(agg.buffer_rgba())).convert("RGB")


def _packed(picture: Picture.Image, colour_count: int) -> bytes:
    """PNG with a palette: a third of the size, and on grey pictures no difference to be seen.

    The colours of outlines are always in it: a line has too few pixels to earn its own beside a photograph. A pixel of
    the photograph that looks like an outline keeps a colour of its own where one is nearer.
    """
    out = io.BytesIO()
    packed = picture.quantize(colour_count, method=Picture.Quantize.MEDIANCUT, dither=Picture.Dither.NONE)
    common = (packed.getpalette() or [])[: 3 * colour_count]
    every = np.array([*common, *[0] * (3 * colour_count - len(common)), *np.ravel(PALETTE)]).reshape(-1, 3)
    pixels, places = np.asarray(picture), np.array(packed)
    near = NEAR[0][pixels[..., 0]] & NEAR[1][pixels[..., 1]] & NEAR[2][pixels[..., 2]]
    outlined = np.nonzero(near)
    colours_seen, others = pixels[outlined], places[outlined]
    lines = colour_count + np.frexp(near[outlined])[1] - 1  # the highest bit: of colours that are alike the last
    is_line = np.abs(colours_seen - every[lines]).sum(axis=1) <= np.abs(colours_seen - every[others]).sum(axis=1)
    places[outlined] = np.where(is_line, lines, others)
    again = Picture.fromarray(places)
    again.putpalette(every.ravel().tolist())
    again.save(out, format="PNG", compress_level=7)
    return out.getvalue()
