"""Segmentations and structure sets in a folder of DICOM as masks on the grid of the series that they were drawn on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from isocenter.files.dicom import (
    DRAWN,
    STRUCTURE_SET,
    SeriesFiles,
    items,
    looks_like_dicom,
    originals,
    rasterise,
    read_header,
    read_segmentation,
    text,
    whole,
)
from isocenter.files.layouts.cases.classes import parse_labels
from isocenter.files.layouts.cases.segments import by_name, one_numbering
from isocenter.files.layouts.layout import DatasetOptions
from isocenter.values import Geometry, Image, Label

# Sequence, name and number of the structures in a file: PS3.3 C.8.20.2 and C.8.8.5.
SEGMENTS = ("SegmentSequence", "SegmentLabel", "SegmentNumber")
CONTOURS = ("StructureSetROISequence", "ROIName", "ROINumber")


def is_drawn(path: Path) -> bool:
    """Whether a file is a DICOM segmentation or structure set, which is drawn on an image."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(132)
    return looks_like_dicom(start) and read_header(path).sop_class in DRAWN


def drawn_on(path: Path, grid: Geometry, image: Sequence[Path] = ()) -> Image:
    """A segmentation, or the contours of a structure set, on the grid of the image that it was drawn on.

    image: the files of that image, as far as known: contours on another image are refused
    Planes without a frame or contour are background. Raises what `read_segmentation` and `rasterise` raise.
    """
    if read_header(path).sop_class == STRUCTURE_SET:
        return rasterise(path, grid, [text(read_header(one).dataset, "SOPInstanceUID") for one in image])
    return read_segmentation(path, on=grid)


def drawn_masks(
    drawn: Sequence[SeriesFiles], image: Callable[[], Image], files: tuple[Path, ...], labels: tuple[Label, ...]
) -> dict[str, Callable[[], Image]]:
    """{kind, of all objects but the first kind:name: function that reads it} of the objects drawn on one image.

    files: those of the image
    """
    kinds = ["mask", *(f"mask:{other.name}" for other in drawn[1:])]
    loaders = (partial(load_drawn, one.paths, image, files, labels) for one in drawn)
    return dict(zip(kinds, loaders, strict=False))


def load_drawn(
    paths: tuple[Path, ...], image: Callable[[], Image], files: tuple[Path, ...], labels: tuple[Label, ...]
) -> Image:
    """A segmentation or structure set on its image's grid, numbered as in the whole data set: by name.

    paths: of one object; several, with the same UID and different contents, are refused
    What `labels` does not name is background. Raises FormatError where what it names overlaps.
    """
    [head], _ = originals([read_header(path) for path in paths], str(paths[0].parent))
    return by_name(drawn_on(head.path, image().geometry, files), labels, head.path)


def by_image(
    everything: Sequence[SeriesFiles], images: Sequence[SeriesFiles]
) -> tuple[dict[str, list[SeriesFiles]], list[str]]:
    """{series UID: what was drawn on it}, and the names of what was drawn on images that are not here.

    A segmentation that names no series belongs to the one series with its frame of reference.
    """
    drawn: dict[str, list[SeriesFiles]] = defaultdict(list)
    lost = []
    for one in everything:
        if one.sop_class not in DRAWN:
            continue
        owners = [image.uid for image in images if image.uid in one.references]
        if not owners and not one.references and one.frame_of_reference:
            owners = [i.uid for i in images if i.frame_of_reference == one.frame_of_reference]
        if len(owners) == 1:
            drawn[owners[0]].append(one)
        else:
            lost.append(one.name)
    return drawn, lost


def drawn_labels(drawn: Sequence[SeriesFiles], options: DatasetOptions) -> tuple[Label, ...]:
    """One numbering for all: that of the files where they agree, else the names in order."""
    if options.labels is not None:
        return tuple(label for label in parse_labels(options.labels) if label.value)
    return one_numbering(map(_structures, drawn))


def _structures(drawn: SeriesFiles) -> dict[str, int]:
    """{name: number} of the structures in one file, from its header."""
    path = drawn.paths[0]
    sequence, name, number = CONTOURS if drawn.sop_class == STRUCTURE_SET else SEGMENTS
    structures = [
        (text(one, name), whole(one, number, str(path)) or 0) for one in items(read_header(path).dataset, sequence)
    ]
    times = Counter(name for name, _ in structures)
    return {
        (name if name and times[name] == 1 else f"{name} {value}".strip()): value for name, value in structures if value
    }
