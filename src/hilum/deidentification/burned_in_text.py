"""Text that is burned into the pixels of DICOM objects: found, blacked, or shown to a person. PS3.15 E.3.1

Burned In Annotation is not believed: every object with a picture is looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from hilum import installation
from hilum.deidentification import pixel_bytes, stated_text
from hilum.errors import ResourceError
from hilum.files.dicom import tags
from hilum.files.dicom.elements import DicomDataset
from hilum.files.dicom.reading import colour_spaces, pixel_decoding, pixel_layout
from hilum.files.dicom.reading.pixel_layout import PixelLayout
from hilum.files.dicom.uids import EXPLICIT, LABEL_MAP, NATIVE, SEGMENTATION
from hilum.lazy import cv2, ndimage, onnxruntime, pil_image, pydicom
from hilum.quality import image_quality
from hilum.values import Floats

EVERY = 10  # frames of a clip: the first, the tenth, ... and the extremes of all are looked at
# Shares of pixels that are darker than black and brighter than white on the picture that the detector sees.
DARK, BRIGHT = 0.1, 99.9
WIDE = 2.0  # times this range: pixels beyond it may be text, and are looked at apart
SHOWN_SIDE = 900  # pixels of a picture for a person
# What shows structures or numbers, and no picture that anybody wrote into.
NO_PICTURES = (SEGMENTATION, LABEL_MAP)
Stored = NDArray[Any]
Shape = tuple[int, ...]
MODEL = Path("models", "PP-OCRv6_det_small.onnx")
# Sides to which a picture is brought for it: the model was made for 736, and small pictures gain by a larger scale.
SHORT_SIDE, LARGEST_SCALE, STRIDE = 736, 3.0, 32
TILE, OVERLAP = 1472, 96  # pixels; larger pictures are looked at in parts, so that memory has a bound
# Probability of a pixel within a place; of a place on average, so that it is looked at a second time; and the mean of
# both looks. Text that people read has above 0.8 in both, anatomy is mostly not seen again.
SEEN, CANDIDATE, UNSURE, SURE = 0.3, 0.5, 0.7, 0.8
AROUND, SECOND_HEIGHT, SECOND_SCALES = 1.5, 40, (0.5, 4.0)  # of the second look, in heights of the line and in pixels
# What is hardly longer than high is a single sign, as the marker of a side; names and numbers are longer. A tall place
# is a line that was turned, or a sign.
LEAST_WIDTH, LEAST_HEIGHT = 1.3, 2.2
SMALLEST = 4  # pixels of a place's shorter side in the scaled picture
# A line is no higher than this share of the picture's shorter side, or these pixels where they are the smaller share.
HIGHEST, HIGH_ENOUGH, HIGHEST_OF_SMALL = 0.1, 48, 0.2
MOST_OF_PICTURE = 0.4  # of the shorter side, which no line of text takes with its margins
LEVELS = (SEEN, 0.6, 0.9)  # of probability: what is too high at one is taken apart at the next
MARGIN, ALONG = 0.6, 2.0  # of its height: the model states the core of a line, whose ends are the least sure

Plane = NDArray[np.uint8]


@dataclass(frozen=True)
class HiddenPlaces:
    """What is blacked in every frame of one object.

    places:  text, and what may be text
    regions: those of an ultrasound image, where there is text outside them: all outside is blacked
    picture: PNG of what a person has to look at, with the places that are unsure
    doubt:   why a person has to look whatever the places are; empty of most
    """

    places: tuple[TextPlace, ...] = ()
    regions: tuple[tuple[int, int, int, int], ...] = ()
    picture: bytes = b""
    doubt: str = ""

    @property
    def needs_look(self) -> bool:
        """Whether a person has to look before it is handed on."""
        return bool(self.unsure or self.doubt)

    @property
    def unsure(self) -> list[TextPlace]:
        """Places that a person has to look at."""
        return [one for one in self.places if not one.is_sure and not self._is_outside(one)]

    def mask(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """(rows, columns) that become black."""
        hidden = np.full(shape, bool(self.regions))
        for top, bottom, left, right in self.regions:
            hidden[top:bottom, left:right] = False
        for place in self.places:
            hidden[place.region] = True
        return hidden

    def _is_outside(self, place: TextPlace) -> bool:
        return bool(self.regions) and is_outside(place, self.regions)


def is_outside(place: TextPlace, regions: Sequence[tuple[int, int, int, int]]) -> bool:
    """Whether the middle of a place lies in none of some regions."""
    row, column = (place.box[0] + place.box[1]) / 2, (place.box[2] + place.box[3]) / 2
    return not any(top <= row < bottom and left <= column < right for top, bottom, left, right in regions)


@dataclass(eq=False)
class SeriesLook:
    """The pictures of one series: single slices are looked at where the extremes of all show something.

    A clip is looked at by its first frame, its extremes and every tenth frame.
    """

    extremes: dict[Shape, tuple[Stored, Stored]] = field(default_factory=dict)
    members: Counter[Shape] = field(default_factory=Counter)
    firsts: dict[Shape, Path] = field(default_factory=dict)
    shows_text: dict[Shape, bool] = field(default_factory=dict)
    clips: dict[Path, HiddenPlaces] = field(default_factory=dict)

    def add(self, path: Path, dataset: pydicom.Dataset) -> None:
        """Note what a file shows. Raises FormatError for pixels that cannot be decoded; ResourceError."""
        if not _is_picture(dataset):
            self.clips[path] = HiddenPlaces()
        elif pixel_layout.layout_from_header(dataset, str(path)).frames > 1:
            self.clips[path] = _find_in_clip(dataset, str(path))
        else:
            [frame] = pixel_decoding.iterate_frames(dataset, str(path))
            seen, extremes = self.members[frame.shape], self.extremes.get(frame.shape)
            # A series of one picture takes no memory: it is looked at by itself. So is the first of several.
            self.extremes |= {frame.shape: _extend(extremes, frame)} if seen else {}
            self.firsts |= {} if seen else {frame.shape: path}
            self.members[frame.shape] += 1

    def find(self, path: Path, dataset: pydicom.Dataset) -> HiddenPlaces:
        """The places of one file, once all are noted."""
        if path in self.clips:
            return self.clips[path]
        [frame] = pixel_decoding.iterate_frames(dataset, str(path))
        is_one_of_many = self.members[frame.shape] > 1 and self.firsts[frame.shape] != path
        if is_one_of_many and not stated_text.statement(dataset):
            if frame.shape not in self.shows_text:
                self.shows_text[frame.shape] = any(map(_places_in, self.extremes[frame.shape]))
            if not self.shows_text[frame.shape]:
                return HiddenPlaces()
        return _hidden([(frame, _places_in(frame))], dataset)


def _is_picture(dataset: pydicom.Dataset) -> bool:
    if not pixel_decoding.has_pixels(dataset) or tags.text(dataset, "SOPClassUID") in NO_PICTURES:
        return False
    return pixel_layout.floating_bits(dataset) is None and tags.text(dataset, "Modality") != "RTDOSE"


def _extend(so_far: tuple[Stored, Stored] | None, frame: Stored) -> tuple[Stored, Stored]:
    """The highest and the lowest values of frames."""
    return (frame, frame) if so_far is None else (np.maximum(so_far[0], frame), np.minimum(so_far[1], frame))


def _find_in_clip(dataset: pydicom.Dataset, where: str) -> HiddenPlaces:
    extremes, looks = None, []
    for number, frame in enumerate(pixel_decoding.iterate_frames(dataset, where)):
        extremes = _extend(extremes, frame)
        if number % EVERY == 0:
            looks.append((frame, _places_in(frame)))
    return _hidden([*looks, *((one, _places_in(one)) for one in extremes or ())], dataset)


def find_in_picture(frame: Stored) -> HiddenPlaces:
    """The places of a picture of (rows, columns) or (rows, columns, 3) that is no DICOM object."""
    return _hidden([(frame, _places_in(frame))], pydicom.Dataset())


def _places_in(frame: Stored) -> list[TextPlace]:
    return [place for view in _views(frame) for place in find_text(view)]


def _views(frame: Stored) -> Iterator[NDArray[np.uint8]]:
    """The frame as a screen shows it, and once more where far brighter or darker pixels would be lost on it."""
    low, high = np.percentile(frame, (DARK, BRIGHT))
    least, most = float(frame.min()), float(frame.max())
    if most == least:
        return
    if high > low:
        yield _scale(frame, low, high)
    if most - least > WIDE * (high - low):
        yield _scale(frame, least, most)


def _scale(frame: Stored, low: float, high: float) -> NDArray[np.uint8]:
    return ((frame.astype(np.float32) - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)


def _hidden(looks: list[tuple[Stored, list[TextPlace]]], dataset: pydicom.Dataset) -> HiddenPlaces:
    places = tuple(dict.fromkeys(place for _, found in looks for place in found))
    regions = _regions(dataset)
    has_text_outside = any(is_outside(one, regions) for one in places)
    hidden = HiddenPlaces(places, regions if has_text_outside else (), doubt=stated_text.standing_doubt(dataset))
    if not hidden.needs_look:
        return hidden
    shown_frames = [frame for frame, found in looks if any(one in hidden.unsure for one in found)]
    frame = next(iter(shown_frames), looks[0][0])
    view = next(_views(frame), np.zeros(frame.shape, np.uint8))  # of one value alone there is no view
    return replace(hidden, picture=draw_places(view, hidden))


def _regions(dataset: DicomDataset) -> tuple[tuple[int, int, int, int], ...]:
    """Rows and columns of the regions that an ultrasound image states, PS3.3 C.8.5.5."""
    edges = ("RegionLocationMinY0", "RegionLocationMaxY1", "RegionLocationMinX0", "RegionLocationMaxX1")
    items = tags.items(dataset, "SequenceOfUltrasoundRegions")
    stated = [[tags.lenient_number(item, edge) for edge in edges] for item in items]
    whole = [[int(one) for one in edge if one is not None] for edge in stated]
    return tuple((a, b + 1, c, d + 1) for a, b, c, d in (one for one in whole if len(one) == 4))


def draw_places(view: NDArray[np.uint8], hidden: HiddenPlaces) -> bytes:
    """A PNG with yellow frames around what is unsure, all else that is hidden black."""
    colour = np.repeat(view[..., None], 3, axis=2) if view.ndim == 2 else view.copy()
    sure = replace(hidden, places=tuple(one for one in hidden.places if one not in hidden.unsure))
    colour[sure.mask(view.shape[:2])] = 0
    for place in hidden.unsure:
        top, bottom, left, right = place.box
        ring = np.zeros(view.shape[:2], dtype=bool)
        ring[max(top - 2, 0) : bottom + 2, max(left - 2, 0) : right + 2] = True
        ring[place.region] = False
        colour[ring] = (255, 221, 0)
    picture, file = pil_image.fromarray(colour), BytesIO()
    picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    picture.save(file, "PNG")
    return file.getvalue()


def hide_places(dataset: pydicom.Dataset, hidden: HiddenPlaces, where: str) -> None:
    """Black the places in every frame, and write all frames anew without compression; other pixels keep their values.

    Colour becomes RGB. Raises FormatError for pixels that cannot be decoded.
    """
    layout = pixel_layout.layout_from_header(dataset, where)
    frames = pixel_decoding.decode_frames(dataset, where, indices=True)
    frames[:, hidden.mask((layout.rows, layout.columns))] = _black(frames, layout, dataset, where)
    syntax = layout.syntax if layout.syntax in NATIVE else EXPLICIT
    for keyword in pixel_bytes.OFFSET_TABLES:
        if keyword in dataset:
            del dataset[keyword]
    words = np.packbits(frames, bitorder="little") if layout.allocated == 1 else frames
    order: Literal["<", ">"] = ">" if layout.is_big_endian else "<"
    content = np.ascontiguousarray(words, dtype=words.dtype.newbyteorder(order)).tobytes()
    dataset.PixelData = content + bytes(len(content) % 2)
    dataset["PixelData"].VR = "OW" if layout.allocated > 8 else "OB"
    dataset["PixelData"].is_undefined_length = False
    dataset.HighBit = layout.stored - 1
    if layout.samples > 1:
        dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)


def _black(frames: Stored, layout: PixelLayout, dataset: pydicom.Dataset, where: str) -> Any:
    """The stored value that is darkest on a screen."""
    if layout.samples > 1:
        return 0
    if not layout.is_palette:
        return frames.max() if layout.photometric == "MONOCHROME1" else frames.min()
    entries = np.arange(1 << min(layout.stored, 16), dtype=frames.dtype)
    return entries[colour_spaces.rgb_of_palette(entries[None], dataset, where)[0].astype(int).sum(axis=1).argmin()]


def is_text_free(dataset: pydicom.Dataset, group: int) -> bool:
    """Whether nothing in the bitmap of an overlay looks like text; not where it cannot be read."""
    try:
        overlay = np.asarray(dataset.overlay_array(group), dtype=np.uint8) * 255
    except tags.pydicom_errors():
        return False
    frames = overlay if overlay.ndim == 3 else overlay[None]
    return not any(find_text(frame) for frame in frames)


# Places of text in a picture, by the detector of RapidOCR (PP-OCRv6, Apache-2.0) and by pieces like letters.
#
# Of that package the model alone is used, which lies in its wheel: nothing of it runs, and nothing is downloaded.
# Liao et al., Real-time Scene Text Detection with Differentiable Binarization, AAAI 2020, for the map that it gives.


@dataclass(frozen=True)
class TextPlace:
    """A place with text, or with what may be text.

    box: first and last row, first and last column, each last one outside
    """

    box: tuple[int, int, int, int]
    certainty: float

    @property
    def is_sure(self) -> bool:
        """Whether nobody has to look."""
        return self.certainty >= SURE

    @property
    def height(self) -> int:
        """Pixels of its shorter side."""
        top, bottom, left, right = self.box
        return min(bottom - top, right - left)

    @property
    def region(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        top, bottom, left, right = self.box
        return slice(top, bottom), slice(left, right)


def find_text(plane: Plane) -> list[TextPlace]:
    """Places in a picture of (rows, columns) or (rows, columns, 3), from 0 to 255.

    Raises ResourceError where the detector is not installed.
    """
    rows, columns = plane.shape[:2]
    scale = min(max(SHORT_SIDE / min(rows, columns), 1.0), LARGEST_SCALE)
    side = min(rows, columns)
    highest = max(HIGHEST * side, min(HIGH_ENOUGH, HIGHEST_OF_SMALL * side))
    places = list(_places(_probability(plane, scale), scale, (rows, columns), highest))
    grey: NDArray[Any] = plane if plane.ndim == 2 else plane.max(axis=2)
    letters = image_quality.find_letters(grey)
    further = [] if letters is None else _further(letters, places)
    seen_twice = (_look_again(plane, place) for place in (*places, *further))
    return [one for one in seen_twice if one.certainty >= UNSURE and one.height <= MOST_OF_PICTURE * side]


def _look_again(plane: Plane, place: TextPlace) -> TextPlace:
    """The place as the detector sees it by itself, at a scale at which it is a line of the usual height."""
    top, bottom, left, right = place.box
    height = place.height
    margin = int(AROUND * height)
    first, start = max(top - margin, 0), max(left - margin, 0)
    crop = plane[first : bottom + margin, start : right + margin]
    scale = float(np.clip(SECOND_HEIGHT / height, *SECOND_SCALES))
    again = list(_places(_probability(crop, scale), scale, (crop.shape[0], crop.shape[1]), 2 * height))
    if not again:
        return TextPlace(place.box, 0.0)
    boxes = np.array([place.box, *(np.add(one.box, (first, first, start, start)) for one in again)])
    box = (*boxes[:, 0:1].min(0), *boxes[:, 1:2].max(0), *boxes[:, 2:3].min(0), *boxes[:, 3:4].max(0))
    certainty = (place.certainty + max(one.certainty for one in again)) / 2
    top, bottom, left, right = map(int, box)
    return TextPlace((top, bottom, left, right), certainty)


def _places(probability: Floats, scale: float, shape: tuple[int, int], highest: float) -> Iterator[TextPlace]:
    for where, certainty in _lines(probability, LEVELS, highest * scale):
        height, width = (part.stop - part.start for part in where)
        is_line = width >= LEAST_WIDTH * height or height >= LEAST_HEIGHT * width
        if certainty < CANDIDATE or not is_line or min(height, width) < SMALLEST:
            continue
        across = MARGIN * min(height, width) + 1
        margins = (across, ALONG * across) if width > height else (ALONG * across, across)
        edges = [((one.start - by) / scale, (one.stop + by) / scale) for one, by in zip(where, margins, strict=True)]
        ends = [(max(int(a), 0), min(int(np.ceil(b)), size)) for (a, b), size in zip(edges, shape, strict=True)]
        yield TextPlace((*ends[0], *ends[1]), certainty)


def _lines(
    probability: Floats, levels: Sequence[float], highest: float, offset: tuple[int, int] = (0, 0)
) -> Iterator[tuple[tuple[slice, slice], float]]:
    """(rows and columns, mean probability) of each piece that is no higher than a line."""
    pieces, _ = ndimage.label(probability > levels[0])
    for number, where in enumerate(ndimage.find_objects(pieces), start=1):
        inside = np.where(pieces[where] == number, probability[where], 0)
        top, left = (part.start + start for part, start in zip(where, offset, strict=True))
        if min(inside.shape) <= highest:
            rows, columns = inside.shape
            # What was taken apart may be a part of anything: the second look alone speaks for it.
            certainty = float(inside[inside > 0].mean()) if levels is LEVELS else CANDIDATE
            yield (slice(top, top + rows), slice(left, left + columns)), certainty
        elif levels[1:]:
            yield from _lines(inside, levels[1:], highest, (top, left))


def _further(letters: NDArray[np.bool_], places: list[TextPlace]) -> Iterator[TextPlace]:
    """Letters in a row where the detector sees nothing at first."""
    known = np.zeros(letters.shape, dtype=bool)
    for place in places:
        known[place.region] = True
    pieces, _ = ndimage.label(ndimage.binary_dilation(letters & ~known, iterations=6))
    for where in ndimage.find_objects(pieces):
        if (letters & ~known)[where].any():
            yield TextPlace((where[0].start, where[0].stop, where[1].start, where[1].stop), CANDIDATE)


def _probability(plane: Plane, scale: float) -> Floats:
    """(rows, columns) of the scaled picture: the probability of text, computed in tiles."""
    colour: NDArray[Any] = plane if plane.ndim == 3 else np.repeat(plane[..., None], 3, axis=2)
    if scale != 1:
        colour = cv2.resize(colour, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    rows, columns = colour.shape[:2]
    whole = np.zeros((rows, columns), np.float32)
    for top in range(0, max(rows - OVERLAP, 1), TILE - OVERLAP):
        for left in range(0, max(columns - OVERLAP, 1), TILE - OVERLAP):
            part = slice(top, top + TILE), slice(left, left + TILE)
            np.maximum(whole[part], _infer(colour[part]), out=whole[part])
    return whole


def _infer(tile: NDArray[np.uint8]) -> Floats:
    rows, columns = tile.shape[:2]
    padding = (0, -rows % STRIDE), (0, -columns % STRIDE), (0, 0)
    image = np.pad(tile, padding, mode="edge").astype(np.float32) / 127.5 - 1
    session = _session()
    [answer] = session.run(None, {session.get_inputs()[0].name: image.transpose(2, 0, 1)[None]})
    return cast("Floats", answer[0, 0, :rows, :columns])


@cache
def _session() -> Any:
    spec = find_spec("rapidocr")
    path = None if spec is None or spec.origin is None else Path(spec.origin).parent / MODEL
    if path is None or not path.is_file():
        remedy = installation.install_line("deidentify")
        raise ResourceError("the detector of text in images is not installed", "clean-pixels", remedy)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
