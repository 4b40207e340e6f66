"""The brightness of rescaled values: display windows and VOI LUTs, PS3.3 C.11.2."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hilum.errors import FormatError
from hilum.files.dicom import tags
from hilum.files.dicom.elements import DicomDataset
from hilum.files.dicom.reading import value_maps
from hilum.files.dicom.reading.value_maps import LookupTable, ValueMeaning, Values
from hilum.values.voxel_images import BrightnessCurve

LINEAR, LINEAR_EXACT, SIGMOID = "LINEAR", "LINEAR_EXACT", "SIGMOID"
# Screens show 256 levels: nearer than half of one nobody sees, and more points than levels say nothing.
MOST_POINTS, NEAR = 256, 1 / 512
PER_FRAME = "PerFrameFunctionalGroupsSequence"


@dataclass(frozen=True)
class DisplayWindow:
    """A display window in the image's own values, PS3.3 C.11.2.1.2."""

    centre: float
    width: float
    function: str = LINEAR

    @property
    def is_linear(self) -> bool:
        """Whether it is defined over whole values, its ends counted."""
        return self.function == LINEAR


def display_window(
    dataset: DicomDataset, frame: int = 0, meaning: ValueMeaning | None = None, where: str = ""
) -> DisplayWindow | None:
    """The first stated window, in the values of `rescale_stored`; None where none is, or real world values are."""
    window = _stated_window(dataset, frame, meaning, where)
    mirror = None if window is None else value_maps.value_map(dataset, frame, meaning, where).mirror
    if window is None or mirror is None:
        return window
    # LINEAR counts its ends to whole values, so its mirror image lies one further up.
    return replace(window, centre=mirror - window.centre + window.is_linear)


def frames_with_window(dataset: DicomDataset, frames: int) -> list[bool]:
    """Whether each frame has a window, or a table in its place: its own, the shared one, or that of the object."""
    shared = tags.items(dataset, "SharedFunctionalGroupsSequence")[:1]
    group = "FrameVOILUTSequence"
    if any(
        _states_window(holder) for holder in (dataset, *(one for item in shared for one in tags.items(item, group)))
    ):
        return [True] * frames
    own = [any(map(_states_window, tags.items(item, group))) for item in tags.items(dataset, PER_FRAME)]
    return own if len(own) == frames else [False] * frames


def _states_window(holder: DicomDataset) -> bool:
    return bool(tags.words(holder, "WindowCenter") or tags.items(holder, "VOILUTSequence"))


def _stated_window(dataset: DicomDataset, frame: int, meaning: ValueMeaning | None, where: str) -> DisplayWindow | None:
    """The first stated window, in values before a MONOCHROME1 picture is inverted; a damaged one counts as none.

    Without one that in which the VOI LUT rises.
    """
    if meaning is not None and meaning.real_world:
        return None
    holding = value_maps.attribute_holder(dataset, "WindowCenter", frame, "FrameVOILUTSequence")
    try:
        centres, widths = tags.numbers(holding, "WindowCenter", where), tags.numbers(holding, "WindowWidth", where)
        table = None if centres and widths else _voi_lut(dataset, frame)
        window = None if table is None else _rise_of(value_maps.lookup_table(table, where))
    except FormatError:  # it only says how a picture may be shown
        return None
    if centres and widths and widths[0] > 0:
        window = DisplayWindow(centres[0], widths[0], tags.text(holding, "VOILUTFunction") or LINEAR)
    if window is None:
        return None
    return window if meaning is None or meaning.suv is None else _scale_window(window, meaning.suv)


def _voi_lut(dataset: DicomDataset, frame: int) -> DicomDataset | None:
    """The first table of values to brightness of a frame, PS3.3 C.11.2.1.1."""
    return tags.first_item(
        value_maps.attribute_holder(dataset, "VOILUTSequence", frame, "FrameVOILUTSequence"), "VOILUTSequence"
    )


def _rise_of(lut: LookupTable) -> DisplayWindow | None:
    """The window whose line goes through the tenth and the ninth tenth of a table's rise; None of one that is flat."""
    levels, rises = lut.table.astype(np.float64), lut.table[0] <= lut.table[-1]
    levels = np.maximum.accumulate(levels if rises else levels[::-1])
    if levels[0] == levels[-1]:
        return None
    tenths = levels[0] + (levels[-1] - levels[0]) * np.array([0.1, 0.9])
    after = np.searchsorted(levels, tenths)
    low, high = after - (levels[after] - tenths) / (levels[after] - levels[after - 1])
    centre = float(low + high) / 2
    return DisplayWindow(
        lut.first + (centre if rises else len(levels) - 1 - centre), float(high - low) / 0.8, LINEAR_EXACT
    )


def _scale_window(window: DisplayWindow, factor: float) -> DisplayWindow:
    """The same window over values that are `factor` times larger; LINEAR is only defined over whole values."""
    if window.is_linear:
        window = DisplayWindow(window.centre - 0.5, max(window.width - 1, 1e-6), LINEAR_EXACT)
    return replace(window, centre=window.centre * factor, width=window.width * factor)


def display_brightness(
    values: Values,
    dataset: DicomDataset,
    frame: int = 0,
    meaning: ValueMeaning | None = None,
    where: str = "",
    window: DisplayWindow | None = None,
) -> NDArray[np.float32]:
    """Rescaled values as brightness from 0 (black) to 1, of a grey picture.

    Through the given window, else the file's VOI LUT, else its window, else their range. Each of them is about values
    that are not inverted; then the lowest value of every MONOCHROME1 and INVERSE picture is white.
    PS3.3 C.7.6.3.1.2 and C.11.6
    window: in values of the modality LUT, as viewers ask for it, PS3.18 8.3.5.1.4
    """
    mirror = value_maps.value_map(dataset, frame, meaning, where).mirror
    plain = values if mirror is None else mirror - values.astype(np.float64)
    bright = _bright(plain, dataset, frame, meaning, where) if window is None else apply_window(plain, window)
    return 1 - bright if _is_lowest_white(dataset) else bright


def _is_lowest_white(dataset: DicomDataset) -> bool:
    """Whether the lowest value before inversion is white, PS3.3 C.7.6.3.1.2 and C.11.6.1.2; both say so only once."""
    is_inverse = tags.text(dataset, "PresentationLUTShape") == "INVERSE"
    return is_inverse or tags.text(dataset, "PhotometricInterpretation") == "MONOCHROME1"


def shows_lowest_white(dataset: DicomDataset, frame: int, meant: ValueMeaning, where: str) -> bool:
    """Whether the lowest value of the image itself is white: not where the values were inverted."""
    if meant.real_world or not _is_lowest_white(dataset):
        return False
    return value_maps.value_map(dataset, frame, meant, where).mirror is None


def _bright(
    values: Values, dataset: DicomDataset, frame: int, meaning: ValueMeaning | None, where: str
) -> NDArray[np.float32]:
    """Brightness of values that are not inverted, as the file's VOI LUT or window has it, else from their range."""
    table = _voi_lut(dataset, frame)
    if table is not None and not (meaning is not None and (meaning.real_world or meaning.suv)):
        lut = value_maps.lookup_table(table, where)
        index = np.clip(np.rint(values.astype(np.float64)).astype(np.int64) - lut.first, 0, len(lut.table) - 1)
        return np.asarray(lut.table[index] / float((1 << lut.bits) - 1), dtype=np.float32)
    window = _stated_window(dataset, frame, meaning, where)
    if window is None:
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        window = DisplayWindow((low + high) / 2, max(high - low, 1e-12), LINEAR_EXACT)
    return apply_window(values, window)


def apply_window(values: Values, window: DisplayWindow) -> NDArray[np.float32]:
    """Brightness 0..1 through a window, PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    brightness = FUNCTIONS.get(window.function, _linear)
    return np.asarray(brightness(values.astype(np.float64) - window.centre, window.width), dtype=np.float32)


def _linear(offset: Values, width: float) -> Values:
    return offset > -0.5 if width <= 1 else np.clip((offset + 0.5) / (width - 1) + 0.5, 0, 1)


def _linear_exact(offset: Values, width: float) -> Values:
    return np.clip(offset / width + 0.5, 0, 1)


def _sigmoid(offset: Values, width: float) -> Values:
    return 1 / (1 + np.exp(-4 * offset / width))


# VOI LUT Function, PS3.3 C.11.2.1.3: brightness from the distance to the window's centre, and its width.
FUNCTIONS = {LINEAR_EXACT: _linear_exact, SIGMOID: _sigmoid}


def window_fact(
    dataset: DicomDataset, frame: int, meant: ValueMeaning, where: str
) -> tuple[float, float, str] | tuple[float, float, str, BrightnessCurve] | None:
    """The display window of a frame as a fact of its image: centre, width and function; None where none is stated.

    A table, or a function that is no line, is a curve behind them. The window of a table is where it rises.
    """
    window = display_window(dataset, frame, meant, where)
    if window is None:
        return None
    curve = _stated_curve(dataset, frame, meant, where, window)
    plain = (window.centre, window.width, window.function)
    return plain if curve is None else (*plain, curve)


def _stated_curve(
    dataset: DicomDataset, frame: int, meant: ValueMeaning, where: str, window: DisplayWindow
) -> BrightnessCurve | None:
    """The brightness of the image's values by the VOI LUT, else a sigmoid; None where a line shows the same.

    A table goes before a window, as in pydicom and cornerstone. window: in the image's values
    """
    low, high = window.centre - window.width / 2, window.centre + window.width / 2
    table = None if meant.suv else _voi_lut(dataset, frame)
    if table is None and window.function != SIGMOID:
        return None
    if table is None:
        values = np.linspace(low - 1.5 * window.width, high + 1.5 * window.width, 1025)
        bright = apply_window(values, window).astype(np.float64)
        is_inverted = shows_lowest_white(dataset, frame, meant, where)
    else:
        try:
            lut = value_maps.lookup_table(table, where)
        except FormatError:  # it only says how a picture may be shown
            return None
        bright = lut.table / float((1 << lut.bits) - 1)
        values = lut.first + np.arange(len(bright), dtype=np.float64)
        mirror = value_maps.value_map(dataset, frame, meant, where).mirror
        if mirror is not None:
            values, bright = (mirror - values)[::-1], bright[::-1]
        is_inverted = _is_lowest_white(dataset)
    bright = 1 - bright if is_inverted else bright
    line = np.clip((values - low) / (high - low), 0, 1)
    line = 1 - line if shows_lowest_white(dataset, frame, meant, where) else line
    if np.abs(line - bright).max() <= NEAR:
        return None
    return _points_of_curve(values, bright)


def _points_of_curve(values: NDArray[np.float64], bright: NDArray[np.float64]) -> BrightnessCurve:
    """The points whose joining lines follow the curve; each further one is where they are farthest from it."""
    kept = [0, len(values) - 1] if len(values) > 1 else [0]
    while len(kept) < min(MOST_POINTS, len(values)):
        apart = np.abs(np.interp(values, values[kept], bright[kept]) - bright)
        farthest = int(apart.argmax())
        if apart[farthest] <= NEAR:
            break
        insort(kept, farthest)
    return tuple((float(values[place]), round(float(bright[place]), 5)) for place in kept)
