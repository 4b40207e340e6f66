"""`view`: one page to look through an image, with a mask on top."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

from hilum import keywords
from hilum.files import file_formats
from hilum.files.format_options import ReadOptions
from hilum.files.storage import atomic
from hilum.layouts import boxes_of_image
from hilum.layouts.cases import dicom_masks
from hilum.options.images import ViewOptions
from hilum.report import slice_viewer
from hilum.values import BoundingBoxes, Image


@dataclass(frozen=True)
class SliceViewer:
    """The page; shown by a notebook, or to be found at `out`."""

    html: str
    out: Path | None = None

    def _repr_html_(self) -> str:
        return f'<iframe srcdoc="{escape(self.html, quote=True)}" width="100%" height="640"></iframe>'

    def __repr__(self) -> str:
        return str(self.out) if self.out is not None else f"a page of {len(self.html)} characters"


@keywords.takes(ViewOptions)
def view(options: ViewOptions) -> SliceViewer:
    """A self-contained slice viewer; written to `out` if that is given.

    Raises GeometryError where image and mask lie on different grids.
    """
    reading = keywords.narrow_options(options, ReadOptions)
    match options.image:
        case Image() as picture:
            title, file = "image", Path(next(iter(picture.source.paths if picture.source else ()), ""))
        case path:
            picture, title, file = file_formats.read_image(path, reading, options.volume), Path(path).name, Path(path)
    overlays = [] if options.mask is None else [_overlay(options.mask, picture, file, reading)]
    target = Path(options.out) if options.out is not None else None
    page = slice_viewer.viewer_html(picture, overlays, title)
    if target is not None:
        atomic.write_text(target, page, overwrite=options.overwrite)
    return SliceViewer(page, target)


def _overlay(mask: str | Path | Image | BoundingBoxes, picture: Image, file: Path, options: ReadOptions) -> Image:
    """The overlay of the picture, a label map.

    file: of the image, by which a table of boxes names it
    """
    match mask:
        case Image():
            return mask.on_axes_of(picture.geometry)
        case BoundingBoxes():
            return slice_viewer.box_edges(mask, picture.geometry, (), "boxes")
        case _ if boxes_of_image.holds_boxes(Path(mask)):
            return _overlay(boxes_of_image.read_boxes(Path(mask), picture, file), picture, file, options)
        case _ if dicom_masks.is_contoured_object(Path(mask)):
            source = picture.source
            paths = [Path(path) for path in source.paths] if source is not None and source.is_dicom else []
            fill_contours = options.fill_contours
            return dicom_masks.read_contoured_object(Path(mask), picture.geometry, paths, fill_contours=fill_contours)
        case _:
            # A mask that was contoured on the image has its header: where that is ambiguous, both are read alike.
            form, letters = options.prefer, options.orientation
            return file_formats.read(mask, prefer=form, orientation=letters).on_axes_of(picture.geometry)
