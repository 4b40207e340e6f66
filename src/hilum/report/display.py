"""Display on a screen: orientation, planes, greys and colours of a grid, and an image turned with its outlines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from hilum.errors import GeometryError
from hilum.values import Array, Geometry, Image, Label
from hilum.values.grid_geometry import DIRECTION_TOLERANCE
from hilum.values.voxel_images import OF_CHANNELS, BrightnessCurve

# Okabe and Ito 2008, the seven colours that people with any common colour blindness tell apart; those first that stand
# out from grey on black. Each further one is that of the bright, saturated colours which lies farthest from all before
# it, in OKLab (Ottosson 2020), half as much counting how people without green cones see both (Machado et al. 2009,
# doi:10.1109/TVCG.2009.113).
PALETTE = (
    (86, 180, 233),
    (230, 159, 0),
    (240, 228, 66),
    (204, 121, 167),
    (0, 158, 115),
    (213, 94, 0),
    (0, 114, 178),
    (165, 0, 255),
    (255, 195, 255),
    (75, 255, 240),
    (180, 0, 105),
    (60, 210, 0),
    (255, 60, 255),
    (30, 60, 255),
    (120, 105, 0),
    (120, 120, 255),
    (255, 0, 105),
    (135, 195, 150),
    (120, 255, 0),
    (135, 75, 180),
    (210, 150, 255),
    (150, 150, 0),
    (210, 0, 195),
    (255, 195, 150),
)


@dataclass(frozen=True)
class Ink:
    """The colours of a page and its charts: paper, text, what is faint, lines, and series.

    The first five of the series anybody can tell apart.
    """

    paper: str
    text: str
    faint: str
    line: str
    series: tuple[str, ...]

    @property
    def variables(self) -> dict[str, str]:
        """{name of the variable of a page: colour}"""
        series = {f"series-{place}": colour for place, colour in enumerate(self.series)}
        return {"paper": self.paper, "text": self.text, "faint": self.faint, "line": self.line, **series}


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
LIGHT = Ink("#ffffff", "#1d2730", "#55626d", "#d5dce2", ON_LIGHT)
DARK = Ink("#161c22", "#e4eaf0", "#a3b0bc", "#35404a", ON_DARK)

# A few hot or dead pixels must not decide the greys: half a per cent on either side is cut.
WINDOW_PERCENTILES = (0.5, 99.5)
WINDOW_SAMPLES = 1_000_000  # more voxels do not move a percentile that a person could see


@dataclass(frozen=True)
class ScreenPlane:
    """A plane through a grid that lies as `screen_order` puts it.

    across, down: the axes that run to the right and to the bottom of the screen
    through:      the axis that is scrolled; None for a picture
    edges:        what lies at the left, right, top and bottom ("R", "L", "A", "P"); empty where it is not known
    """

    name: str
    across: int
    down: int
    through: int | None
    edges: tuple[str, str, str, str] | None = None


RADIOLOGICAL = (
    ScreenPlane("axial", 0, 1, 2, ("R", "L", "A", "P")),
    ScreenPlane("coronal", 0, 2, 1, ("R", "L", "S", "I")),
    ScreenPlane("sagittal", 1, 2, 0, ("A", "P", "S", "I")),
)
AS_STORED = (
    ScreenPlane("axes 1 and 2", 0, 1, 2),
    ScreenPlane("axes 1 and 3", 0, 2, 1),
    ScreenPlane("axes 2 and 3", 1, 2, 0),
)
PICTURE = (ScreenPlane("picture", 1, 0, None),)
OPPOSITE = dict(zip("LRAPSI", "RLPAIS", strict=True))


def screen_order(geometry: Geometry) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """(axes, flips) to the order of the screen: to the patient's left, back and feet; as stored where unknown."""
    if geometry.orientation is None:
        return tuple(range(geometry.ndim)), (False,) * geometry.ndim
    axes, flips = geometry.to_canonical
    return axes, tuple(not flip for flip in flips)


def turn_upright(array: Array, axes: Sequence[int], flips: Sequence[bool]) -> Array:
    """(..., *spatial) voxels in the order of the screen, as a view."""
    extra = array.ndim - len(axes)
    moved = array.transpose(*range(extra), *[extra + axis for axis in axes])
    return np.flip(moved, tuple(extra + axis for axis, flip in enumerate(flips) if flip))


def screen_planes(geometry: Geometry) -> tuple[ScreenPlane, ...]:
    """The planes in which a grid that lies upright has something to show: all that are more than a line."""
    if geometry.is_picture:
        return PICTURE
    every = (
        AS_STORED if geometry.orientation is None else tuple(_name_oblique(plane, geometry) for plane in RADIOLOGICAL)
    )
    thick = [plane for plane in every if min(geometry.shape[plane.across], geometry.shape[plane.down]) > 1]
    return tuple(thick) or every[:1]


def stored_plane(geometry: Geometry) -> ScreenPlane:
    """The plane of an image's own slices, as they are stored: columns run across, rows down."""
    if geometry.is_picture:
        return PICTURE[0]
    if geometry.orientation is None:
        return AS_STORED[0]
    right, bottom = geometry.orientation[0], geometry.orientation[1]
    return ScreenPlane("slice", 0, 1, 2, (OPPOSITE[right], right, OPPOSITE[bottom], bottom))


def _name_oblique(plane: ScreenPlane, geometry: Geometry) -> ScreenPlane:
    """The plane, called oblique where its normal runs along none of the patient's axes."""
    across, down = (geometry.affine[:-1, axis] for axis in (plane.across, plane.down))
    normal = np.cross(across, down)
    is_straight = np.abs(normal).max() >= (1 - DIRECTION_TOLERANCE) * np.linalg.norm(normal)
    return plane if is_straight else replace(plane, name=f"oblique {plane.name}")


def oblique_sentences(geometry: Geometry) -> list[str]:
    """Sentences on a grid whose axes run along none of the patient's, or not at right angles."""
    if not geometry.has_sides:
        return []
    sentences = []
    if geometry.is_oblique:
        cosines = np.abs(geometry.affine[:-1, :-1] / np.asarray(geometry.steps)).max(axis=0)
        angle = round(float(np.degrees(np.arccos(cosines.min()))))
        sentences.append(f"The image lies up to {angle}° oblique to the patient: letters name the nearest side.")
    if geometry.is_sheared:
        sentences.append(
            "Its axes are not at right angles, as of a tilted gantry, but are drawn so: in planes across its slices "
            "angles and oblique lengths are not those in the patient."
        )
    return sentences


def finest_plane(geometry: Geometry) -> ScreenPlane:
    """The plane with the finest pixels, most often the one that was acquired; the axial where all are alike."""
    every = screen_planes(geometry)
    thickness = [0.0 if plane.through is None else geometry.steps[plane.through] for plane in every]
    # A tenth is no difference that an eye sees.
    return next(plane for plane, step in zip(every, thickness, strict=True) if 1.1 * step >= max(thickness))


def is_colour(image: Image) -> bool:
    """Whether the first three channels are red, green and blue, not three measurements."""
    return tuple(name.lower() for name in image.channels[:3]) in {("red", "green", "blue"), ("r", "g", "b")}


def grey_window(image: Image, values: Array, channel: int = 0) -> tuple[float, float]:
    """(low, high) of the greys: as the file asks, else from voxels that are measurements, outliers cut.

    values: voxels of the channel, any shape
    """
    stated = header_window(image, channel)
    return automatic_grey_range(image, values) if stated is None else stated


def header_window(image: Image, channel: int = 0) -> tuple[float, float] | None:
    """(low, high) of the greys as the file asks; None where it asks for none."""
    asked = image.facts_of(channel).get("window")
    if asked is None:
        return None
    centre, width = float(asked[0]), float(asked[1])  # PS3.3 C.11.2.1.2
    return centre - width / 2, centre + width / 2


def header_curve(image: Image, channel: int = 0) -> BrightnessCurve | None:
    """The brightness of values as the file asks, where it is no line through its window."""
    _, _, _, *curves = image.facts_of(channel).get("window") or (0, 1, "LINEAR_EXACT")
    return curves[0] if curves else None


def falls(image: Image, channel: int = 0) -> bool:
    """Whether the file asks for higher values to be darker: of a curve its ends decide."""
    curve = header_curve(image, channel)
    if curve is None:
        return bool(image.facts_of(channel).get("lowest_is_white"))
    return curve[-1][1] < curve[0][1]


def share_at_one_end(image: Image, values: Array, greys: tuple[float, float]) -> float:
    """The share of the measurements that a window shows all black, or all white, whichever is more."""
    numbers = measured_voxels(image, thin_voxels(values))
    return max(float(np.mean(numbers <= greys[0])), float(np.mean(numbers >= greys[1]))) if numbers.size else 0.0


def automatic_grey_range(image: Image, values: Array) -> tuple[float, float]:
    """(low, high) of the greys from voxels that are measurements, outliers cut. values: any shape"""
    numbers = measured_voxels(image, thin_voxels(values))
    if numbers.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(numbers.astype(np.float64), WINDOW_PERCENTILES).tolist()
    if low == high:  # most voxels are alike: then the few others are what there is to see
        low, high = float(numbers.min()), float(numbers.max())
    return (low, high) if low < high else (low, low + 1.0)


def match_greys(image: Image, other: Image) -> Image:
    """The image as it is shown in the greys of another, so that both can be compared: of each its first channel."""
    return with_window(image, *grey_window(other, other.data[0]))


def with_window(image: Image, low: float, high: float) -> Image:
    """The image as it is shown with these values black and white, as if its file asked for it."""
    facts = {name: fact for name, fact in image.facts.items() if name != OF_CHANNELS}
    return replace(image, facts={**facts, "window": ((low + high) / 2, high - low, "LINEAR_EXACT")})


def thin_voxels(values: Array) -> Array:
    """Every n-th voxel along all axes, so that about WINDOW_SAMPLES are left."""
    every = max(1, round((values.size / WINDOW_SAMPLES) ** (1 / max(1, values.ndim))))
    return values[(slice(None, None, every),) * values.ndim]


def measured_voxels(image: Image, values: Array) -> Array:
    """(voxels,) those of the values that are finite and not the image's padding."""
    finite = values[np.isfinite(values)]
    if image.padding is None:
        return finite
    low, high = image.padding
    return finite[(finite < low) | (finite > high)]


def foreground_labels(labels: Sequence[Label]) -> tuple[Label, ...]:
    """All labels but the background."""
    return tuple(label for label in labels if label.value != 0)


def label_colours(labels: Sequence[Label]) -> dict[int, tuple[int, int, int]]:
    """{value: (red, green, blue) in 0..255}: a label's own colour, else the next of the palette."""
    return {
        label.value: label.colour or PALETTE[place % len(PALETTE)]
        for place, label in enumerate(foreground_labels(labels))
    }


def length_unit(geometry: Geometry) -> str:
    """The unit of lengths: the grid's own, or a count of samples or pixels where no size is known."""
    return geometry.unit if geometry.physical else "samples" if geometry.is_series else "pixels"


@dataclass(frozen=True, eq=False)
class UprightView:
    """An image and its label maps in the order of the screen.

    grid:      the upright grid
    flips:     per axis of the screen, whether the file counts its slices the other way
    values:    (*spatial), or (*spatial, 3) for colours
    low, high: what is black and what is white
    curve:     points (value, brightness) in place of the line between them
    falls:     whether the line goes from white to black
    """

    grid: Geometry
    flips: tuple[bool, ...]
    values: Array
    low: float
    high: float
    reference: Array | None = None
    prediction: Array | None = None
    curve: BrightnessCurve | None = None
    falls: bool = False

    @property
    def maps(self) -> tuple[Array, ...]:
        """The label maps that there are, the reference first."""
        return tuple(label_map for label_map in (self.reference, self.prediction) if label_map is not None)

    def greys(self, plane: ScreenPlane, at: int) -> Array:
        """(down, across) or (down, across, 3) of one slice, in 0..1; black where there is no number."""
        values = cut_slice(self.values, plane, at).astype(np.float64)
        if self.curve is not None:
            points = np.asarray(self.curve)
            bright: Array = np.interp(values, points[:, 0], points[:, 1])
        else:
            line = np.clip((values - self.low) / (self.high - self.low), 0.0, 1.0)
            bright = 1 - line if self.falls else line
        return np.nan_to_num(bright)

    def fullest_slice(self, plane: ScreenPlane) -> int:
        """The slice with the most of the reference; without one, of the prediction; else the middle."""
        if plane.through is None:
            return 0
        for label_map in self.maps:
            areas = [np.count_nonzero(one) for one in np.moveaxis(label_map, plane.through, 0)]
            if any(areas):
                return int(np.argmax(areas))
        return self.grid.shape[plane.through] // 2

    def steps(self, plane: ScreenPlane) -> tuple[float, float]:
        """Length of one voxel across and down."""
        return self.grid.steps[plane.across], self.grid.steps[plane.down]

    def place(self, plane: ScreenPlane, at: int) -> str:
        """ "axial, slice 18 of 36", counted as the file counts; empty for a picture."""
        if plane.through is None:
            return ""
        size = self.grid.shape[plane.through]
        return f"{plane.name}, slice {size - at if self.flips[plane.through] else at + 1} of {size}"


def view_of(
    image: Image,
    reference: ArrayLike | None = None,
    prediction: ArrayLike | None = None,
    *,
    channel: int = 0,
    frame: int = 0,
) -> UprightView:
    """One channel (all three of a colour picture) and one frame, with label maps (*spatial) or (1, *spatial).

    Raises GeometryError where a label map does not have the image's shape.
    """
    return _view(image, reference, prediction, screen_order(image.geometry), channel, frame)


def stored_view(image: Image) -> UprightView:
    """The first channel (all three of a colour picture) as it is stored, of which slices of DICOM are shown."""
    as_stored = tuple(range(image.geometry.ndim)), (False,) * image.geometry.ndim
    return _view(image, None, None, as_stored)


def _view(
    image: Image,
    reference: ArrayLike | None,
    prediction: ArrayLike | None,
    order: tuple[tuple[int, ...], tuple[bool, ...]],
    channel: int = 0,
    frame: int = 0,
) -> UprightView:
    axes, flips = order
    reference_map, predicted_map = (
        None if given is None else turn_upright(_label_map_on(given, image.geometry, name), axes, flips)
        for given, name in ((reference, "reference"), (prediction, "prediction"))
    )
    values = image.data[slice(3) if is_colour(image) else channel]
    if image.frames is not None:
        values = values[:, frame] if is_colour(image) else values[frame]
    is_plain = is_colour(image) and values.dtype == np.uint8
    place = 0 if is_colour(image) else channel
    low, high = (0.0, 255.0) if is_plain else grey_window(image, values, place)
    curve, falling = (None, False) if is_colour(image) else (header_curve(image, place), falls(image, place))
    values = turn_upright(values, axes, flips)
    if is_colour(image):
        values = np.moveaxis(values, 0, -1)
    grid = image.geometry.permute(axes, flips)
    return UprightView(grid, flips, values, low, high, reference_map, predicted_map, curve, falling)


def cut_slice(array: Array, plane: ScreenPlane, at: int) -> Array:
    """(down, across, ...) of one slice."""
    if plane.through is not None:
        array = array[(slice(None),) * plane.through + (at,)]  # a view: to take it copies volumes that lie otherwise
    return array.swapaxes(0, 1) if plane.across < plane.down else array


def _label_map_on(values: ArrayLike, geometry: Geometry, name: str) -> Array:
    array = np.asarray(values)
    if array.shape == (1, *geometry.shape):
        array = array[0]
    if array.shape != geometry.shape:
        raise GeometryError(
            f"shape {array.shape} on an image of {geometry.shape}", name, "Give label values on the image's own grid"
        )
    return array
