"""A slice viewer as one HTML file: the image, what lies over it, and the values under the cursor.

Voxels travel as short text that a browser unpacks: the fewest bits that hold the values, gzip, base64. Boxes are drawn
as a label map of their edges, which a viewer shows as it shows any other.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hilum.errors import FormatError, GeometryError
from hilum.report import display, page_blocks
from hilum.report.display import PALETTE
from hilum.report.figures import slice_figures
from hilum.report.page_blocks import Gallery, ReportPage, Section
from hilum.values import Array, BoundingBoxes, Geometry, Image, Label, voxel_images
from hilum.values.voxel_images import WHOLE_NUMBERS

# All frames and channels together. 20 million voxels of CT are about 25 MB of page, which a browser opens in three
# seconds; larger images are thinned, and the page says so.
VOXEL_LIMIT = 20_000_000
# Centre and width in HU that radiology departments set their monitors to.
WINDOWS = {"CT": {"soft tissue": (40, 400), "lung": (-600, 1500), "bone": (400, 1800), "brain": (40, 80)}}
CODES = 65_536  # values that 16 bits tell apart


def viewer_html(image: Image, overlays: Sequence[Image], title: str, *, limit: int = VOXEL_LIMIT) -> str:
    """One page that scrolls through the image, shows what lies over it, and names the value under the cursor.

    overlays: label maps on the image's grid, with time where the image has it, shown under the channel's name
    limit:    of voxels; of a larger image every n-th voxel is kept, values unchanged, and the page says so
    Opened with `#voxel=i,j,k` it starts at that voxel, counted as in the file, from 0.
    Raises GeometryError for an overlay on another grid, FormatError for one that is no label map.
    """
    image = image.with_pixels(image.data)  # read once
    if image.geometry.is_series:
        return _lines(image, overlays, title)
    overlays = [single for overlay in overlays for single in _singles(overlay)]
    for overlay in overlays:
        _check(overlay, image)
    axes, flips = display.screen_order(image.geometry)
    grid = image.geometry.permute(axes, flips)
    series = image.shape[0] * (image.frames or 1)
    every = thinning_steps(grid.shape, grid.steps, max(1, limit // series))
    channels = _channels(image, every)
    maps = [_overlay(overlay, place, every) for place, overlay in enumerate(overlays)]
    facts = {
        "title": title,
        "modality": image.modality,
        "length": display.length_unit(grid),
        "physical": grid.physical,
        "oriented": grid.orientation is not None,
        "shape": _thinned_shape(grid, every),
        "steps": [step * n for step, n in zip(grid.steps, every, strict=True)],
        "affine": (grid.affine @ np.diag([*every, 1.0])).tolist(),
        "file": {"axes": axes, "flips": flips, "shape": image.geometry.shape, "every": every},
        "planes": [
            vars(plane)
            for plane in sorted(display.screen_planes(grid), key=lambda plane: plane != display.finest_plane(grid))
        ],
        "frames": image.frames or 1,
        "times": None if image.times is None else [float(time) for time in image.times],
        "colour": display.is_colour(image),
        "presets": WINDOWS.get(image.modality, {}),
        "channels": channels,
        "overlays": maps,
        "start": _start(overlays, grid, every),
        "accuracy": _accuracy(image, channels, every),
        "notes": image.notes,
    }
    return page_blocks.template_environment().get_template("viewer.html.jinja").render(title=title, facts=facts)


def viewer_files() -> dict[str, str]:
    """{name: content} of the viewer as a module and its style, for pages that bring their own slices."""
    names = ("viewer.js", "viewer.css")
    templates = page_blocks.template_environment()
    return {name: templates.get_template(name).render() for name in names}


def _lines(image: Image, overlays: Sequence[Image], title: str) -> str:
    """A series needs no scrolling: all of it, with its overlays under it."""
    marks = []
    for index, overlay in enumerate(single for several in overlays for single in _singles(several)):
        _check(overlay, image)
        values_known = {label.value for label in overlay.labels}
        unnamed = [Label(value, str(value)) for value in np.unique(overlay.data).astype(int).tolist()]
        labels = [*overlay.labels, *(one for one in unnamed if one.value not in values_known)]
        marks.append((_name_of(overlay, index), overlay.data[0], labels))
    shown = Gallery([slice_figures.trace_plot(image, marks, title)])
    return page_blocks.render_page(ReportPage(title, sections=[Section("Series", [shown])], notes=image.notes))


def _singles(overlay: Image) -> list[Image]:
    """Each channel as a map of its own: structures that overlap have one each."""
    if overlay.shape[0] == 1:
        return [overlay]
    parts = zip(overlay.channels, overlay.data, strict=True)
    return [replace(overlay, pixels=part[None], channels=(name,)) for name, part in parts]


def _check(overlay: Image, image: Image) -> None:
    where = overlay.source.paths[0] if overlay.source and overlay.source.paths else overlay.channels[0]
    grid = image.geometry
    overlay.geometry.refuse_other(
        grid, "mask and image lie on different grids", where, overlay.geometry.remedy_on(grid)
    )
    if overlay.frames not in (None, image.frames):
        raise GeometryError(
            f"has {overlay.frames} frames, the image {image.frames or 'none'}", where, "Give as many, or none"
        )
    if problem := voxel_images.words_for_fractions(overlay.data):
        raise FormatError(problem, where, WHOLE_NUMBERS)


def _laid_out(image: Image, every: Sequence[int]) -> Array:
    """(channels, frames, *spatial) in the order of the screen, thinned."""
    data = image.data if image.frames is not None else image.data[:, None]
    on_screen = display.turn_upright(data, *display.screen_order(image.geometry))
    return on_screen[(slice(None), slice(None), *[slice(None, None, step) for step in every])]


def _thinned_shape(grid: Geometry, every: Sequence[int]) -> list[int]:
    return [-(-size // step) for size, step in zip(grid.shape, every, strict=True)]


def _channels(image: Image, every: Sequence[int]) -> list[dict[str, Any]]:
    """The voxels and greys of each channel; red, green and blue make up a single one."""
    voxels = _laid_out(image, every)
    if display.is_colour(image):
        packed = pack_values(np.moveaxis(voxels[:3], 0, -1))
        greys = (0, 255) if image.dtype == np.uint8 else (packed.low, packed.high)
        return [_channel("colour", packed, greys, image.facts_of(0))]
    channels = []
    for place, (name, values) in enumerate(zip(image.channels, voxels, strict=True)):
        greys = display.grey_window(image, values, place)
        channel = _channel(name, pack_values(values), greys, image.facts_of(place))
        channels.append({**channel, "curve": display.header_curve(image, place), "falls": display.falls(image, place)})
    return channels


def _channel(name: str, packed: Packed, greys: tuple[float, float], facts: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "unit": str(facts.get("unit", "")), "window": greys, **vars(packed)}


def _overlay(overlay: Image, index: int, every: Sequence[int]) -> dict[str, Any]:
    """A label map as codes that count the labels that occur."""
    voxels = _laid_out(overlay, every)[0]
    values, codes = np.unique(voxels, return_inverse=True)
    values = values.astype(np.int64)
    # Code 0 is background, also where no voxel is of it, and where a number below it comes first.
    is_marked = values != 0
    codes, values = np.where(is_marked, np.cumsum(is_marked), 0)[codes], np.array([0, *values[is_marked]])
    if len(values) > CODES:
        raise FormatError(f"has {len(values)} labels", overlay.channels[0], f"Give at most {CODES - 1}")
    kind = code_type(len(values) - 1)
    colour_of, names = display.label_colours(overlay.labels), {label.value: label.name for label in overlay.labels}
    labels = [
        {
            "value": v,
            "name": names.get(v, str(v)),
            "colour": colour_of.get(v, PALETTE[(n + len(colour_of)) % len(PALETTE)]),
        }
        for n, v in enumerate(values[1:].tolist())
    ]
    data = encode_codes(codes.reshape(voxels.shape).astype(kind))
    style = "both" if overlay.facts.get(EDGES) else ""
    facts = {"name": _name_of(overlay, index), "frames": overlay.frames or 1, "labels": labels, "style": style}
    return {**facts, "bits": 8 * kind.itemsize, "data": data}


def _name_of(overlay: Image, index: int) -> str:
    """The name of an overlay by its channel; a channel with a mere number is counted among the overlays."""
    return overlay.channels[0] if overlay.channels[0] != "0" else f"overlay {index + 1}"


def _start(overlays: Sequence[Image], grid: Geometry, every: Sequence[int]) -> list[int]:
    """The first position of the crosshair: amid the largest slice of what is marked, else amid the image."""
    for overlay in overlays:
        laid_out = _laid_out(overlay, every)[0].any(axis=0)
        if laid_out.any():
            return _amid(laid_out)
    return [size // 2 for size in _thinned_shape(grid, every)]


def _amid(is_marked: Array) -> list[int]:
    """A voxel of the mask, near the centre of its largest slice."""
    fixed: list[int] = []
    while is_marked.ndim > 2:
        voxels = np.count_nonzero(is_marked, axis=tuple(range(is_marked.ndim - 1)))
        fixed.insert(0, int(voxels.argmax()))
        is_marked = is_marked[..., fixed[0]]
    inside = np.argwhere(is_marked)
    nearest = np.linalg.norm(inside - inside.mean(axis=0), axis=1).argmin()
    return [*inside[nearest].tolist(), *fixed]


def _accuracy(image: Image, channels: Sequence[dict[str, Any]], every: Sequence[int]) -> list[str]:
    """Sentences on how exact the values shown are."""
    sentences = []
    if max(every) > 1:
        kept = " x ".join(str(step) for step in every)
        sentences.append(
            f"The image is too large for one page: one voxel of {kept} is shown, its value as in the file."
        )
    names = [f" ({channel['name']})" if len(channels) > 1 else "" for channel in channels]
    steps = [(f"{channel['slope']:.2g}", channel["exact"]) for channel in channels]
    rounded = [f"{step}{name}" for (step, exact), name in zip(steps, names, strict=True) if not exact]
    sentences.append(f"Values are rounded to steps of {', '.join(rounded)}." if rounded else "Values are exact.")
    if not image.geometry.physical:
        unit = "voxel" if image.geometry.is_volume else "pixel"
        sentences.append(f"The size of a {unit} in mm is not known: lengths are in {unit}s.")
    if image.geometry.is_volume and image.geometry.orientation is None:
        sentences.append("Left and right are not known: the axes are shown as stored.")
    return [*sentences, *display.oblique_sentences(image.geometry)]


@dataclass(frozen=True)
class Packed:
    """Codes as text, and how a value comes back: code * slope + intercept.

    data:      base64 of gzip of little-endian codes in C order
    bits:      8 or 16
    missing:   the code of what is no number; None where all are numbers
    exact:     whether every value comes back as it was, else to within half a slope
    low, high: the smallest and the largest value
    """

    data: str
    bits: int
    slope: float
    intercept: float
    missing: int | None
    exact: bool
    low: float
    high: float


def pack_values(values: Array) -> Packed:
    """Any numbers as codes of 8 or 16 bits: whole numbers exactly where they fit, others in equal steps."""
    finite = np.isfinite(values)
    is_whole = bool(finite.all())
    finite_values = values.ravel() if is_whole else values[finite]
    low, high = (float(finite_values.min()), float(finite_values.max())) if finite_values.size else (0.0, 0.0)
    spare = 0 if is_whole else 1  # one code for what is no number
    exact = low == high or (high - low < CODES - spare and bool(np.array_equal(finite_values, np.rint(finite_values))))
    slope = 1.0 if exact else (high - low) / (CODES - 1 - spare)
    codes = np.rint((finite_values.astype(np.float64) - low) / slope)
    if is_whole:
        return _pack(codes.reshape(values.shape), slope, None, exact, low, high)
    every = np.full(values.shape, round((high - low) / slope) + 1.0)
    every[finite] = codes
    return _pack(every, slope, round((high - low) / slope) + 1, exact, low, high)


def encode_codes(codes: Array) -> str:
    """Base64 of gzip of the bytes in C order; the same for the same voxels."""
    return base64.b64encode(gzip.compress(np.ascontiguousarray(codes).tobytes(), 6, mtime=0)).decode("ascii")


def code_type(largest: int) -> np.dtype:
    """The little-endian type of fewest bits that holds the code."""
    return np.dtype("<u1" if largest < 256 else "<u2")


def thinning_steps(shape: Sequence[int], steps: Sequence[float], limit: int) -> tuple[int, ...]:
    """Every how many-th voxel to keep per axis so that at most `limit` are left, the finest axes first."""
    every = [1] * len(shape)
    while np.prod([-(-size // step) for size, step in zip(shape, every, strict=True)]) > max(1, limit):
        thick = [axis for axis, size in enumerate(shape) if size > every[axis]]
        finest = min(steps[axis] * every[axis] for axis in thick)
        for axis in thick:  # axes that are alike stay alike
            every[axis] += steps[axis] * every[axis] < 1.1 * finest
    return tuple(every)


def _pack(codes: Array, slope: float, missing: int | None, exact: bool, low: float, high: float) -> Packed:
    kind = code_type(max(round((high - low) / slope), missing or 0))
    return Packed(encode_codes(codes.astype(kind)), 8 * kind.itemsize, slope, low, missing, exact, low, high)


# What marks such a map: a fill of lines would hardly be seen.
EDGES = "edges"


def box_edges(boxes: BoundingBoxes, geometry: Geometry, labels: Sequence[Label], name: str) -> Image:
    """The voxels in which the edges of boxes lie, each with the value of its class; a later box over an earlier one.

    boxes:  on this grid
    labels: names of the classes; a class that is not among them gets a value of its own
    """
    values = {label.name: label.value for label in labels}
    for other in sorted(set(boxes.names) - set(values)):
        values[other] = max(values.values(), default=0) + 1
    edges = np.zeros(geometry.shape, dtype=np.min_scalar_type(max(values.values(), default=1)))
    for corners, of in zip(boxes.corners.reshape(-1, 2, boxes.axes), boxes.names, strict=True):
        _draw(edges, np.floor(corners[0]).astype(int), np.ceil(corners[1]).astype(int), values[of])
    others = [Label(value, of) for of, value in list(values.items())[len(labels) :]]
    return Image(edges[None], geometry, channels=(name,), labels=(*labels, *others), facts={EDGES: True})


def overlay_image(placed: Image | BoundingBoxes, geometry: Geometry, labels: Sequence[Label], name: str) -> Image:
    """References as a label map for the viewer: a map as it is, boxes as their edges."""
    if isinstance(placed, BoundingBoxes):
        return box_edges(placed, geometry, labels, name)
    return Image(placed.data, placed.geometry, channels=(name,), labels=tuple(labels))


def _draw(edges: np.ndarray, low: np.ndarray, high: np.ndarray, value: int) -> None:
    """The outermost voxels of one box, as far as they lie in the image."""
    low, high = np.maximum(low, 0), np.minimum(high, edges.shape)
    box = tuple(slice(start, end) for start, end in zip(low, high, strict=True))
    inner = tuple(slice(start + 1, end - 1) for start, end in zip(low, high, strict=True))
    if not (high > low).all():
        return
    interior = edges[inner].copy()
    edges[box] = value
    edges[inner] = interior
