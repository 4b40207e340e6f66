"""Maps of what an answer rests on, in colour over the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from hilum.report import display
from hilum.report.display import Ink, ScreenPlane, UprightView
from hilum.report.figures import drawing, slice_figures
from hilum.report.figures.drawing import Canvas
from hilum.report.figures.slice_figures import MOST_PANELS, REFERENCE_LINE, SLICE_DPI
from hilum.report.page_blocks import Figure
from hilum.values import Array, Image, Label

# Share of the largest value from which a map is opaque, and below which it is not seen.
FULL, FAINT = 0.85, 0.15
# Images up to this side, in voxels, are shown with fewer pixels: they have no detail for more.
COARSE, COARSE_DPI = 128, 90
# Of the voxels with evidence; what is above has the same colour (0.99 in Smilkov et al., arXiv:1706.03825 section 3).
STRONGEST = 0.99
# Of what experts marked, on a map between violet and yellow.
MARKED = (Label(1, "marked", colour=(90, 220, 255)),)
FAILED = "failed"
# Beneath a map without any evidence, which would else look like one that was forgotten.
NOWHERE = "Nothing in the image supports the target"
# Of thousands of names a drawing would be larger than any picture can be.
MOST_BARS = 30


def heat_overlay(
    image: Image,
    data: Array,
    title: str,
    *,
    caption: str = "",
    failed: bool = False,
    channel: int = 0,
    among: Sequence[Array] = (),
    inside: Array | None = None,
) -> Figure:
    """A map over its image, through the voxel of the most evidence, or the middle without any; of a clip one frame.

    data:    (*spatial), of a clip (frames, *spatial); more is more evidence, and what is below 0 is not shown
    failed:  the method did not pass its tests, which is written across
    channel: the image beneath, of several
    among:   maps beside which this one is seen: their sum sets the place that is shown, the strongest of them the
             colours, so that their pictures can be compared
    inside:  (*spatial) what experts marked, which is outlined
    """
    whole = _evidence(np.sum(np.stack(among), axis=0) if among else data)
    top = max(_strongest(one) for one in among or [data])
    evidence, frame = _shares(data, top), 0
    if image.frames is not None:
        frame = int(whole.reshape(len(whole), -1).sum(axis=1).argmax())
        evidence, whole = evidence[frame], whole[frame]
    has_evidence = bool(evidence.any())
    caption = caption if has_evidence else ". ".join(filter(None, (caption.rstrip("."), NOWHERE)))
    what = f"{'Failed map' if failed else 'Map'} of what the answer rests on"
    if image.geometry.is_series:
        return _over_series(image, evidence, title, caption, what, failed=failed)
    axes, flips = display.screen_order(image.geometry)
    view = display.view_of(image, None if inside is None else inside.astype(np.uint8), frame=frame, channel=channel)
    evidence, whole = display.turn_upright(evidence, axes, flips), display.turn_upright(whole, axes, flips)
    peak = np.unravel_index(int(whole.argmax()), whole.shape) if whole.any() else [size // 2 for size in whole.shape]
    shown = [
        (plane, 0 if plane.through is None else int(peak[plane.through])) for plane in display.screen_planes(view.grid)
    ]
    canvas, panels = slice_figures.plane_panels(view.grid, [plane for plane, _ in shown])
    for panel, (plane, at) in zip(panels, shown, strict=True):
        slice_figures.put_greys(panel, view, plane, at)
        put_heat(panel, view, display.cut_slice(evidence, plane, at), plane)
        if view.reference is not None:
            slice_figures.put_outlines(
                panel, display.cut_slice(view.reference, plane, at), view.steps(plane), MARKED, REFERENCE_LINE
            )
        slice_figures.put_letters(panel, plane)
    slice_figures.put_scale_bar(panels[0], view.grid, shown[0][0])
    if failed:
        _put_failed(canvas)
    places = [view.place(plane, at) for plane, at in shown] + (
        [f"frame {frame + 1} of {image.frames}"] if image.frames else []
    )
    text = "; ".join(filter(None, places))
    full = " ".join(filter(None, (f"{caption.rstrip('.')}." if caption else "", f"Shown: {text}." if text else "")))
    dpi = COARSE_DPI if max(view.grid.shape) <= COARSE else SLICE_DPI
    return Figure(title, drawing.encode_png(canvas, dpi), f"{what} ({title})", full, wide=len(shown) > 1)


def evidence_shares(data: Array) -> Array:
    """The evidence of a map as shares of its strongest, from 0 to 1."""
    return _shares(data, _strongest(data))


def _shares(data: Array, top: float) -> Array:
    evidence = _evidence(data)
    evidence /= max(top, 1e-30)
    return np.clip(evidence, 0, 1, out=evidence)


def _evidence(data: Array) -> Array:
    evidence = np.nan_to_num(np.asarray(data, dtype=np.result_type(data, np.float32)))  # a copy
    return cast("Array", np.clip(evidence, 0, None, out=evidence))


def _strongest(data: Array) -> float:
    """The value with the strongest colour: a few single voxels far above all others would leave the rest unseen."""
    held = _evidence(data)
    return float(np.quantile(held[held > 0], STRONGEST)) if held.any() else 0.0


def _put_failed(canvas: Canvas) -> None:
    """Across the whole width, white with a dark edge, so that it is read on a bright image too."""
    size = 72 * min(0.9 * canvas.get_figwidth() / (0.62 * len(FAILED)), 0.6 * canvas.get_figheight())
    halo = [withStroke(linewidth=3, foreground="#000000d0")]
    canvas.text(
        0.5, 0.5, FAILED, fontsize=size, color="#ffffffa0", ha="center", va="center", rotation=18, path_effects=halo
    )


def bar_chart(values: Mapping[str, float], title: str, *, axis: str, caption: str = "") -> Figure:
    """One horizontal bar a name, from 0; of very many those that are farthest from it, the farthest first."""
    if len(values) > MOST_BARS:
        farthest = sorted(values.items(), key=lambda item: -abs(item[1]))[:MOST_BARS]
        caption = f"{caption} The {MOST_BARS} of {len(values)} that are farthest from 0.".strip()
        values = dict(farthest)

    def draw(canvas: Canvas, ink: Ink) -> None:
        """Bars to the right speak for, those to the left against."""
        axes = canvas.subplots()
        drawing.plain_axes(axes, ink)
        colours = [ink.series[0] if value >= 0 else ink.series[1] for value in values.values()]
        axes.barh(range(len(values)), list(values.values()), color=colours)
        axes.set_yticks(range(len(values)), drawing.shorten_all(list(values)), parse_math=False)
        axes.axvline(0, color=ink.faint, linewidth=0.8)
        axes.invert_yaxis()
        axes.set_xlabel(axis)

    alt = f"{title}: " + ", ".join(f"{name} {value:.3g}" for name, value in values.items())
    return drawing.draw_chart(draw, title=title, caption=caption, alt=alt, size=(4.4, 0.9 + 0.28 * len(values)))


def put_heat(axes: Axes, view: UprightView, evidence: Array, plane: ScreenPlane) -> None:
    """Colours that cover the more the more evidence there is. evidence: from 0 to 1, as `evidence_shares` makes it"""
    across, down = view.steps(plane)
    extent = (-across / 2, (evidence.shape[1] - 0.5) * across, (evidence.shape[0] - 0.5) * down, -down / 2)
    cover = 0.7 * np.clip((evidence - FAINT) / (FULL - FAINT), 0, 1)
    axes.imshow(evidence, cmap="inferno", vmin=0, vmax=1, alpha=cover, extent=extent, interpolation="nearest")


def _over_series(image: Image, evidence: Array, title: str, caption: str, what: str, *, failed: bool) -> Figure:
    def draw(canvas: Canvas, ink: Ink) -> None:
        """A panel a channel, the map as colours behind the line."""
        data = image.data[:MOST_PANELS]
        panels = np.atleast_1d(canvas.subplots(len(data), 1, sharex=True))
        for axes, name, values in zip(panels, image.channels, data, strict=False):
            drawing.plain_axes(axes, ink)
            slice_figures.put_trace(axes, image.geometry, values, ink.text)
            axes.set_ylabel(drawing.short_name(name, 14))
            ends = np.sort(image.geometry.to_world(np.array([[-0.5], [len(evidence) - 0.5]]))[:, 0])
            shown = evidence[None] if image.geometry.affine[0, 0] > 0 else evidence[None, ::-1]
            low, high = axes.get_ylim()
            colours: dict[str, Any] = {"cmap": "inferno", "vmin": 0, "vmax": 1, "alpha": 0.6 * shown}
            axes.imshow(shown, extent=(*ends, low, high), aspect="auto", **colours)
        panels[-1].set_xlabel(display.length_unit(image.geometry))
        if failed:
            canvas.text(0.5, 0.5, FAILED, fontsize=30, color=ink.faint, ha="center", va="center", rotation=12)

    size = (7.2, 1.0 + 1.3 * min(len(image.data), MOST_PANELS))
    return drawing.draw_chart(draw, title=title, caption=caption, alt=f"{what} ({title})", size=size, is_file=True)
