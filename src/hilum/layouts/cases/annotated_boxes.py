"""Boxes and outlines as files state them, x before y; boxes are brought onto the axes of their image here."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.errors import DatasetError
from hilum.layouts.cases import mask_pairs, table_reading, text_names
from hilum.layouts.cases.dataset_folder import Folder, FolderMember
from hilum.values import BoundingBoxes, Floats, Geometry, Image, Split, grouping

# Files count voxels from 0 or from 1, and round: a box may lie so far outside, and is cut back.
SLACK = 1.0
# Shares of an image are rounded: an edge may lie so far outside.
ROUNDING = 1e-3

# DICOM's axes run to the patient's left and back, ours to the right and front.
FROM_DICOM = np.array([-1.0, -1.0, 1.0])

# Images in all folders by name with suffix, in small letters.
NamedImages = Mapping[str, Sequence[FolderMember]]
# Its corners (x, y), of which the last is joined to the first.
Ring = tuple[tuple[float, float], ...]
CORNERS_OF_ELLIPSE = 64  # its area is then .2 % too small


@dataclass(frozen=True)
class Outline:
    """The outline of one object in a picture, as polygons or as lengths of runs.

    rings: polygons, of which the object is all that one of them holds
    holes: of each ring, polygons that are cut out of it alone; empty where no ring has any
    runs:  numbers of pixels outside, inside, outside and so on, down the columns from the first
    size:  (columns, rows) that the runs are of
    """

    rings: tuple[Ring, ...] = ()
    runs: tuple[int, ...] = ()
    size: tuple[int, int] = (0, 0)
    holes: tuple[tuple[Ring, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.holes and len(self.holes) != len(self.rings):
            raise ValueError(f"{len(self.rings)} rings, and holes of {len(self.holes)}")

    def fills(self, columns: int, rows: int) -> bool:
        """Whether its runs, where it has any, are those of a picture of this size."""
        is_whole = sum(self.runs) == rows * columns and min(self.runs, default=0) >= 0
        return not self.runs or (is_whole and self.size == (columns, rows))

    @property
    def parts(self) -> Sequence[tuple[Ring, tuple[Ring, ...]]]:
        """Each ring with its holes."""
        return list(zip(self.rings, self.holes or [()] * len(self.rings), strict=True))


@dataclass(frozen=True)
class AnnotatedBox:
    """One box as a file states it, and the outline of what is in it where there is one.

    low, high: (x, y[, z]) edges in voxels, counted from 0
    where:     in the file, in words
    track:     the number of its object in every frame of a clip
    """

    name: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    where: str
    ignored: bool = False
    outline: Outline | None = None
    track: int | None = None

    @classmethod
    def around(cls, name: str, rings: Sequence[Ring], where: str, holes: Sequence[Sequence[Ring]] = ()) -> AnnotatedBox:
        """The area inside polygons, with the edges of them all.

        holes: of each polygon, those that are cut out of it
        Raises ValueError for a polygon of fewer than three corners, and for a corner that is no number.
        """
        if any(len(ring) < 3 for ring in rings) or not rings:
            raise ValueError("an outline of fewer than three corners")
        if not all(map(math.isfinite, (edge for ring in rings for corner in ring for edge in corner))):
            raise ValueError("an outline with a corner that is no number")
        x, y = zip(*(corner for ring in rings for corner in ring), strict=True)
        kept_holes = tuple(map(tuple, holes)) if any(holes) else ()
        outline = Outline(tuple(rings), holes=kept_holes)
        return cls(name, (min(x), min(y)), (max(x), max(y)), where, outline=outline)

    @classmethod
    def in_groups(cls, shapes: Iterable[tuple[str, Hashable | None, Ring, str]]) -> list[AnnotatedBox]:
        """The objects of shapes (name, group, corners, where): those of one name and one group are one object."""
        groups: dict[Hashable, list[tuple[str, Ring, str]]] = {}
        for number, (name, group, ring, where) in enumerate(shapes):
            groups.setdefault((number,) if group is None else (name, group), []).append((name, ring, where))
        return [cls.around(own[0][0], [ring for _, ring, _ in own], own[0][2]) for own in groups.values()]

    @classmethod
    def of_pixels(
        cls, name: str, stored: NDArray[np.bool_], corner: tuple[int, int], size: tuple[int, int] | None, where: str
    ) -> AnnotatedBox:
        """The outline of (rows, columns) pixels from a corner (x, y) on; ValueError where they leave the image."""
        if size is None:
            raise ValueError("a mask, and the image's size is not stated")
        (x, y), (columns, rows), (height, width) = corner, size, stored.shape
        if x < 0 or y < 0 or x + width > columns or y + height > rows:
            raise ValueError(f"a mask of {width} x {height} at ({x}, {y}), beyond the image")
        outline = Outline(runs=_runs_of(stored, corner, size), size=size)
        return cls(name, (float(x), float(y)), (float(x + width), float(y + height)), where, outline=outline)


@dataclass(frozen=True)
class UnreadObject:
    """An object that a file states and that cannot be read: its place is unknown, and no background.

    words:     what is wrong with it, and where
    name:      its class as the file states it; empty where that cannot be read
    low, high: (x, y[, z]) edges of its place as the annotation states them; empty where it may lie anywhere
    """

    words: str
    name: str = ""
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @classmethod
    def of_corners(cls, words: str, name: str, corners: Any) -> UnreadObject:
        """The object whose place these corners (x, y[, z]) mark; it may lie anywhere where they are no numbers, or one.

        corners: as a file states them, so that they may be anything
        """
        try:
            places = np.array(list(corners), dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            return cls(words, name)
        if places.ndim != 2 or len(places) < 2 or places.shape[1] not in (2, 3) or not np.isfinite(places).all():
            return cls(words, name)
        return cls(words, name, tuple(places.min(axis=0).tolist()), tuple(places.max(axis=0).tolist()))

    def scaled(self, size: Sequence[int]) -> UnreadObject:
        """The same one in voxels of an image of this size, where its edges were shares."""
        low, high = (tuple(share * n for share, n in zip(ends, size, strict=False)) for ends in (self.low, self.high))
        return replace(self, low=low, high=high)

    def edges_on(self, size: Sequence[int]) -> tuple[Floats, Floats]:
        """Its edges within an image of so many voxels along x, y[, z]; all of that where its place is not stated."""
        low, high = np.zeros(len(size)), np.array(size, dtype=np.float64)
        whole = high.copy()
        stated = min(len(self.low), len(size))  # a box in two axes is all that lies behind it
        low[:stated] = np.clip(self.low[:stated], 0.0, whole[:stated])
        high[:stated] = np.clip(self.high[:stated], 0.0, whole[:stated])
        return (low, high) if (high > low).all() else (np.zeros(len(size)), whole)


def ellipse_corners(centre: tuple[float, float], radii: tuple[float, float], turn: float = 0.0) -> Ring:
    """Corners of an ellipse with radii along x and y, turned by so many radians from x towards y."""
    angles = np.linspace(0, 2 * np.pi, CORNERS_OF_ELLIPSE, endpoint=False)
    corners = [(centre[0] + radii[0] * np.cos(a), centre[1] + radii[1] * np.sin(a)) for a in angles]
    return turn_corners(corners, centre, turn)


def turn_corners(corners: Sequence[tuple[float, float]], centre: tuple[float, float], turn: float) -> Ring:
    """Corners turned about a centre by so many radians from x towards y, clockwise as pictures are seen."""
    cosine, sine = math.cos(turn), math.sin(turn)
    apart = [(x - centre[0], y - centre[1]) for x, y in corners]
    return tuple((centre[0] + x * cosine - y * sine, centre[1] + x * sine + y * cosine) for x, y in apart)


def _runs_of(stored: NDArray[np.bool_], corner: tuple[int, int], size: tuple[int, int]) -> tuple[int, ...]:
    """Numbers of pixels outside, inside, outside and so on, down the columns from the first.

    size: of the image, (columns, rows); as a file may state any, an image of that size is never made
    """
    (x, y), (columns, rows) = corner, size
    framed = np.pad(stored.T, ((0, 0), (1, 1)))
    column, row = np.nonzero(framed[:, 1:] != framed[:, :-1])
    changes, times = np.unique((column + x) * rows + row + y, return_counts=True)
    # A column that ends inside is no change before one that begins inside, and after the last none follows.
    changes = changes[(times == 1) & (changes < rows * columns)]
    return tuple(np.diff(np.concatenate([[0], changes, [rows * columns]])).tolist())


@dataclass(frozen=True)
class Annotation:
    """The boxes that a file states for one image.

    size:      (columns, rows) as stated, None where they are not
    in_shares: numbers are shares of the image's width and height, not voxels
    in_mm:     numbers are mm along the patient's left, back and head (DICOM's axes), and each box is around a ball
    unread:    objects that cannot be read
    """

    path: Path
    boxes: tuple[AnnotatedBox, ...]
    size: tuple[int, int] | None = None
    in_shares: bool = False
    in_mm: bool = False
    unread: tuple[UnreadObject, ...] = ()

    @property
    def has_unread_outlines(self) -> bool:
        """Whether an object, or the outline of one, cannot be read or lies beyond the image, if its size is known."""
        outlined = [(box, box.outline) for box in self.boxes if box.outline is not None]
        return bool(self.unread) or not all(
            outline.fills(*(self.size or outline.size)) and self._may_hold(box) for box, outline in outlined
        )

    def _may_hold(self, box: AnnotatedBox) -> bool:
        """Whether a box lies within the image, as far as that is known without it."""
        slack, whole = SLACK, self.size or (math.inf, math.inf)
        if self.in_shares:
            slack, whole = ROUNDING, (1, 1)
        ends = zip(box.high, whole, strict=False)
        return min(box.low) >= -slack and all(edge <= size + slack for edge, size in ends)

    @property
    def digest(self) -> str:
        """SHA-256 of this annotation: the rest of a file of many images does not change the case."""
        stated: list[Any] = [self.size]
        stated += [[{k: v for k, v in asdict(box).items() if v is not None} for box in self.boxes]]
        stated += [asdict(one) for one in self.unread]
        return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()

    def placed_on(self, geometry: Geometry) -> Annotation:
        """The same annotation in voxels of the image that it was made on; an object beyond that is one unread.

        Raises DatasetError, by file, for an image of another size than the file states, and by file and box where none
        of its objects lies on the image: as `edges_inside` does, for shares beyond it, and for mm on an image that does
        not say where it lies.
        """
        size = columns_and_rows(geometry)
        if self.size is not None and self.size != size[:2]:
            stated, actual = (f"{columns} x {rows}" for columns, rows in (self.size, size[:2]))
            problem = f"is of an image of {stated} pixels (columns x rows), and the image has {actual}"
            raise DatasetError(problem, str(self.path), "Give the image that it was annotated on")
        placed, beyond = list[AnnotatedBox](), list[tuple[AnnotatedBox, DatasetError]]()
        for box in self.boxes:
            try:
                on_image = self._in_voxels(box, geometry)
                edges_inside(on_image, size, str(self.path))
            except DatasetError as error:
                beyond.append((box, error))
            else:
                placed.append(on_image)
        if beyond and not placed:
            raise beyond[0][1]
        unread = [*self.unread]
        unread += [UnreadObject.of_corners(error.problem, box.name, (box.low, box.high)) for box, error in beyond]
        if self.in_shares:
            unread = [one.scaled(size) for one in unread]
        return replace(self, boxes=tuple(placed), unread=tuple(unread), in_shares=False, in_mm=False)

    def _in_voxels(self, box: AnnotatedBox, geometry: Geometry) -> AnnotatedBox:
        """A box whose numbers were shares, mm or voxels."""
        if self.in_mm:
            return _around_ball(box, geometry, self.path)
        size = columns_and_rows(geometry)
        return _of_shares(box, (size[0], size[1]), self.path) if self.in_shares else box


def load_boxes(annotation: Annotation, called: Mapping[str, str], image: Callable[[], Image]) -> BoundingBoxes:
    """The boxes on their image's axes; what was cut back or left out stands in their notes.

    Where an object cannot be read there is neither right nor wrong, of its class or of all.
    called: {name in the file: name of the class}
    Raises DatasetError as `Annotation.placed_on` does.
    """
    geometry, where = image().geometry, str(annotation.path)
    size = columns_and_rows(geometry)
    placed = annotation.placed_on(geometry)
    corners, names, ignored, notes = [], list[str](), list[bool](), list[str]()
    tracks = list[int | None]()
    seen: set[tuple[Any, ...]] = set()
    for box in placed.boxes:
        if any(low == high for low, high in zip(box.low, box.high, strict=True)):
            notes.append(f"{box.where} ({box.name}) has no extent, and is left out")
            continue
        edges, cut = edges_inside(box, size, where)
        same = (box.name, *edges.ravel().tolist())
        if same in seen:
            notes.append(f"{box.where} ({box.name}) occurs twice, and counts once")
            continue
        seen.add(same)
        notes += [f"{box.where} ({box.name}) reached beyond the image, and was cut back"] if cut else []
        names.append(called[box.name])
        ignored.append(box.ignored)
        tracks.append(box.track)
        corners.append(np.ravel(edges[:, ::-1] if geometry.is_picture else edges))  # along the image's own axes
    for unread in placed.unread:
        notes.append(f"{unread.words}: its place is unknown")
        edges = np.array(unread.edges_on(size))
        for name in [called[unread.name]] if unread.name in called else sorted(set(called.values())):
            names.append(name)
            ignored.append(True)
            tracks.append(None)
            corners.append(np.ravel(edges[:, ::-1] if geometry.is_picture else edges))
    return BoundingBoxes(
        np.array(corners).reshape(-1, 2 * geometry.ndim),
        tuple(names),
        ignored=np.array(ignored, dtype=bool),
        notes=tuple(notes),
        numbers=() if any(track is None for track in tracks) else tuple(track or 0 for track in tracks),
    )


def annotated_names(annotations: Sequence[Annotation]) -> set[str]:
    """Every class that is annotated, also where the object cannot be read."""
    readable = {box.name for annotation in annotations for box in annotation.boxes}
    return readable | {one.name for annotation in annotations for one in annotation.unread if one.name}


def images_by_file_name(folder: Folder, *, bare: bool = False) -> NamedImages:
    """The images of a folder by their names in small letters; bare: also by those without a suffix."""
    whole = ((table_reading.compose_letters(one.path.name), one) for one in folder.images)
    named = ((name, one) for full, one in whole for name in {full, one.stem if bare else full})
    return grouping.by_key((name.casefold(), one) for name, one in named)


def image_named(
    images: NamedImages,
    name: str,
    near: Sequence[Path],
    where: Path,
    *,
    split: Split | None = None,
    others: Collection[Path] = (),
    within: str = "",
) -> FolderMember | None:
    """The image of this name: in one of the folders `near`, the best first, else the only one that is called so.

    name:   may start with folders; where these are there, the image lies in them or is missing
    where:  it is named
    split:  of what names it: an image of another part is not meant
    others: folders whose images other files annotate, where it is not looked for
    within: the name of a folder above it, where there is one
    A mask that is called as its image is not meant either. Raises DatasetError where several images are called so and
    none lies near.
    """
    wanted = PurePosixPath(table_reading.compose_letters(name).replace("\\", "/"))
    alike = images.get(wanted.name.casefold(), ())
    same = [one for one in alike if wanted.name in (table_reading.compose_letters(one.path.name), one.stem)] or alike
    for place in near:
        here = [one for one in same if text_names.folded_path(one.path) == text_names.folded_path(place / wanted)]
        if len(here) == 1:
            return here[0]
    is_stated = len(wanted.parts) > 1 and not wanted.is_absolute()
    if not same or (is_stated and any((place / wanted.parent).is_dir() for place in near)):
        return None
    known = [one for one in same if one.path.parent not in others and (split is None or one.split in (None, split))]
    known = [one for one in known if not mask_pairs.is_called_mask(one.path)] or known
    known = [one for one in known if within and within in one.path.parts] or known
    if len(known) > 1:
        paths = errors.list_phrase(member.path for member in known)
        problem = f"names {name}, and several images are called so ({paths})"
        raise DatasetError(problem, str(where), "Write the folder with the name, or rename")
    return known[0] if known else None


def edges_inside(box: AnnotatedBox, size: tuple[int, ...], where: str) -> tuple[Floats, bool]:
    """(2, axes) edges within the image of this size, and whether they were cut back.

    Raises DatasetError, by file and box, for one whose end lies before its start or lies outside the image.
    """
    if len(box.low) not in (len(size), 2) or (len(box.low) == 2 and size[2:] not in ((), (1,))):
        problem = f"{box.where} ({box.name}) has {len(box.low)} axes, the image {size}"
        raise DatasetError(problem, where, "Give x0, y0, x1, y1 of pictures, and z0, z1 of volumes too")
    flat = len(box.low) < len(size)  # of a volume with a single slice
    low, high = np.array([*box.low, *[0.0] * flat]), np.array([*box.high, *[1.0] * flat])
    stated = f"{box.where} ({box.name}) from {_spell(box.low)} to {_spell(box.high)}"
    if not np.isfinite([low, high]).all():
        raise DatasetError(f"{stated} is not a box", where, "Give numbers")
    if (high < low).any():
        raise DatasetError(f"{stated} ends before it starts", where, "Write the smaller corner first")
    whole = np.array(size, dtype=float)
    if (low < -SLACK).any() or (high > whole + SLACK).any() or (low >= whole).any() or (high <= 0).any():
        problem = f"{stated} lies outside the image of {_spell(size)}"
        raise DatasetError(problem, where, "Check whether box and image belong to each other; count voxels from 0")
    edges = np.clip([low, high], 0.0, whole)
    return edges, bool((edges != [low, high]).any())


def _of_shares(box: AnnotatedBox, size: tuple[int, int], path: Path) -> AnnotatedBox:
    """A box, and its outline, of which the numbers were shares."""
    if min(box.low) < -ROUNDING or max(box.high) > 1 + ROUNDING:
        problem = f"{box.where} reaches from {box.low} to {box.high} of the image"
        raise DatasetError(problem, str(path), "Write shares of the image's width and height, 0 to 1")

    def scaled(corner: tuple[float, ...]) -> tuple[float, float]:
        x, y = (min(max(share, 0.0), 1.0) * whole for share, whole in zip(corner, size, strict=True))
        return x, y

    outline = box.outline
    if outline is not None:
        rings = tuple(tuple(map(scaled, ring)) for ring in outline.rings)
        holes = tuple(tuple(tuple(map(scaled, ring)) for ring in own) for own in outline.holes)
        outline = Outline(rings, holes=holes) if rings else None
    return replace(box, low=scaled(box.low), high=scaled(box.high), outline=outline)


def _around_ball(box: AnnotatedBox, geometry: Geometry, path: Path) -> AnnotatedBox:
    """The box of a ball on the axes of a volume: along each axis it reaches as far, whichever way the axis runs."""
    if geometry.ndim != len(box.low) or not geometry.oriented:
        problem = f"{box.where} is stated in mm, and the image does not say where it lies"
        raise DatasetError(problem, str(path), "Give volumes with their position, as in MetaImage, NIfTI or DICOM")
    low, high = np.array(box.low), np.array(box.high)
    centre = geometry.to_index((low + high) / 2 * FROM_DICOM)
    reach = (high - low).max() / 2 * np.linalg.norm(np.linalg.inv(geometry.affine[:-1, :-1]), axis=1)
    # An index is the centre of a voxel, which reaches from n to n + 1.
    edges, whole = centre + 0.5 + np.outer([-1, 1], reach), np.array(geometry.shape)
    if (centre >= -0.5).all() and (centre <= whole - 0.5).all():
        # Nobody stated where it ends: that of a nodule in the last slices reaches beyond them, however far.
        edges = edges.clip(-SLACK, whole + SLACK)
    first, last = (tuple(edge.tolist()) for edge in edges)
    return replace(box, low=first, high=last)


def columns_and_rows(geometry: Geometry) -> tuple[int, ...]:
    """Voxels along x, y[, z]: a picture has its rows first."""
    return geometry.shape[::-1] if geometry.is_picture else geometry.shape


def _spell(numbers: Sequence[float]) -> str:
    return f"({', '.join(f'{number:g}' for number in numbers)})"
