"""Routes of series as a page draws them: their grid, and slice after slice."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field
from sqlalchemy import Row

from isocenter.report import display
from isocenter.report.slice_viewer import WINDOWS
from isocenter.service import configuration
from isocenter.service.reading import volume_slices
from isocenter.service.reading.volume_slices import PICTURE, SeriesImages, SlicedVolume, StoredSlice
from isocenter.service.records.actor import Actor
from isocenter.service.web import access, web_node, worklist_routes
from isocenter.service.web.access import ROLES, Who
from isocenter.service.web.web_node import Node, Uid, WebError, WebNode

router = APIRouter(prefix="/api/series", tags=["reading"])
PlaneName = Literal["axial", "coronal", "sagittal", "picture"]
Place = Annotated[int, Query(ge=0)]
FORWARDED = ("forwarded", "x-forwarded-for", "via")  # by a proxy
BYTES = "application/octet-stream"
RAW: dict[int | str, dict[str, Any]] = {200: {"content": {BYTES: {}}}}
WINDOW_SLICES = 5  # of a volume, for its automatic window
MOST_AT_ONE_END = 0.95  # of the voxels: a header's window that leaves more is not shown first


class SideShape(BaseModel):
    """The axis of the source's array along which rows or columns of a plane follow each other; mm: of a step."""

    axis: int
    reversed: bool
    mm: float | None


class PlaneShape(BaseModel):
    """A plane: the axis that is scrolled (none of a picture), how many slices it has, and its sides."""

    axis: int | None
    count: int
    rows: SideShape
    columns: SideShape


class PresetShape(BaseModel):
    """A window that has a name; window: centre and width."""

    name: str
    window: tuple[float, float]


class RangeShape(BaseModel):
    """The lowest and the highest value of an image, padding aside."""

    low: float
    high: float


class GridShape(BaseModel):
    """The grid of an image of a series.

    shape:  of the source's own array: of a volume (columns, rows, slices), a picture (rows, columns), a clip with its
            frames first
    affine: index to RAS+ mm; of a picture of known size its two axes; null where no size is known, and of a clip
    window: centre and width, of the first preset
    oriented: whether left and right are known, which the names of planes otherwise do not state
    frames: volumes that follow each other in time; images: how many grids the series has, channels: of this one
    """

    schema_: str = Field(alias="schema")
    version: int = 1
    kind: Literal["volume", "picture", "clip"]
    shape: list[int]
    affine: list[list[float]] | None
    oriented: bool
    unit: str
    window: tuple[float, float]
    presets: list[PresetShape]
    colour: bool
    planes: dict[str, PlaneShape]
    frames: int
    times: list[float] | None
    channels: list[str]
    images: int
    modality: str
    notes: list[str]


@router.get("/{series}/grid", dependencies=[access.require_roles(ROLES)])
def get_grid(node: Node, who: Who, series: Uid, image: Place = 0) -> GridShape:
    """The grid of a series, with the planes that show it. image: of a series with several grids or views"""
    every = _open_series(node, who, series)
    return grid_shape(_nth_volume(every, image, series), len(every))


@router.get("/{series}/range", dependencies=[access.require_roles(ROLES)])
def get_range(node: Node, who: Who, series: Uid, image: Place = 0, channel: Place = 0) -> RangeShape:
    """The lowest and the highest value of an image, for a window on all of them."""
    volume = _nth_volume(_open_series(node, who, series), image, series)
    name, count = _thick_plane(volume)
    ends = list[float]()
    for frame in range(1 if name == PICTURE else volume.image.frames or 1):
        for k in range(count):
            values = display.measured_voxels(
                volume.image, _values(slice_of(volume, name, k, frame=frame, channel=channel))
            )
            ends += [float(values.min()), float(values.max())] if values.size else []
    return RangeShape(low=min(ends, default=0.0), high=max(ends, default=1.0))


@router.get(
    "/{series}/slices/{plane}/{k}", response_class=Response, responses=RAW, dependencies=[access.require_roles(ROLES)]
)
def get_slice(
    node: Node,
    who: Who,
    request: Request,
    series: Uid,
    plane: PlaneName,
    k: int,
    image: Place = 0,
    frame: Place = 0,
    channel: Place = 0,
) -> Response:
    """Slice k of a plane: the k-th along the source's axis, from 0, as raw little-endian numbers."""
    volume = _nth_volume(_open_series(node, who, series), image, series)
    return slice_answer(request, slice_of(volume, plane, k, frame=frame, channel=channel))


def volumes_of_series(node: WebNode, uid: str, study: str) -> list[SlicedVolume]:
    """The images of a series of a study. WebError where it is not here."""
    images = SeriesImages(node.database, node.folder, node.volumes)
    web_node.refuse_gone(node, study, uid)
    return images.images_of_row(_only(images.rows(uid, study), uid))


def _open_series(node: WebNode, who: Actor, uid: str) -> list[SlicedVolume]:
    """The same of a series that is in one study alone, which somebody now has open."""
    images = SeriesImages(node.database, node.folder, node.volumes)
    row = _only(images.rows(uid), uid)
    web_node.refuse_gone(node, row.study, uid)
    worklist_routes.record_view(node, who, row.study)
    return images.images_of_row(row)


def _only(rows: Sequence[Row[*tuple[Any, ...]]], uid: str) -> Row[*tuple[Any, ...]]:
    if not rows:
        raise WebError(404, "there is no such series", uid, "See /api/studies")
    if len(rows) > 1:
        raise WebError(409, "two studies have a series of this UID", uid, "Have one of them sent under its own UIDs")
    return rows[0]


def _nth_volume(volumes: list[SlicedVolume], number: int, where: str) -> SlicedVolume:
    if number >= len(volumes):
        raise WebError(404, f"the series has {len(volumes)} images", where, "Count them from 0")
    return volumes[number]


def slice_of(volume: SlicedVolume, plane: str, number: int, *, frame: int = 0, channel: int = 0) -> StoredSlice:
    """A slice. WebError for a plane or slice that there is not."""
    try:
        return volume.slice(plane, number, frame=frame, channel=channel)
    except (KeyError, IndexError) as error:
        choices = ", ".join(f"{name} 0 to {view.count - 1}" for name, view in volume.views.items())
        raise WebError(404, "there is no such slice", f"{plane} {number}", f"Ask for one of {choices}") from error


def slice_answer(request: Request, stored: StoredSlice) -> Response:
    """A slice as raw bytes, with its size and what its numbers mean in headers."""
    body = np.ascontiguousarray(stored.pixels).tobytes()
    rows, columns = stored.pixels.shape[:2]
    headers = {
        "X-Rows": str(rows),
        "X-Columns": str(columns),
        "X-Type": stored.kind,
        "X-Slope": repr(stored.slope),
        "X-Intercept": repr(stored.intercept),
    }
    if "gzip" in request.headers.get("accept-encoding", "") and not _is_near(request):
        body = _gzip(body)
        headers["Content-Encoding"] = "gzip"
    return Response(body, headers=headers, media_type=BYTES)


def _is_near(request: Request) -> bool:
    """Whether a client on this machine asks, and no proxy for another: packing would take longer than sending."""
    address = "" if request.client is None else request.client.host
    return configuration.is_loopback(address) and not any(name in request.headers for name in FORWARDED)


def _gzip(body: bytes) -> bytes:
    """The bytes as gzip without a search for repeats: noise has none, and on CT it takes half the time of level 1."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    return packer.compress(body) + packer.flush()


def grid_shape(volume: SlicedVolume, images: int) -> GridShape:
    """The grid of an image. images: of its series"""
    image, kind = volume.image, volume_slices.image_kind(volume.image)
    colour = display.is_colour(image)
    windows, notes = _windows(volume)
    return GridShape(
        schema="isocenter.grid",
        kind=kind,
        shape=list(volume.shape),
        affine=_affine(volume),
        oriented=image.geometry.orientation is not None,
        unit=str(image.facts_of(0).get("unit", "")),
        window=next(iter(windows.values()), (127.5, 255.0)),
        presets=[PresetShape(name=name, window=one) for name, one in windows.items()],
        colour=colour,
        planes={name: _plane(view) for name, view in volume.views.items()},
        frames=image.frames or 1 if kind == "volume" else 1,
        times=None if image.times is None else list(image.times),
        channels=["colour"] if colour else list(image.channels),
        images=images,
        modality=image.modality,
        notes=[*image.notes, *notes],
    )


def _windows(volume: SlicedVolume) -> tuple[dict[str, tuple[float, float]], list[str]]:
    """{name: (centre, width)}, first what is shown, none of colours; and a sentence where that is not the header's."""
    image = volume.image
    if display.is_colour(image):
        return {}, []
    values = _sample(volume)
    greys = {"automatic": display.automatic_window(image, values)}
    notes = list[str]()
    if (stated := display.header_window(image)) is not None:
        shares = [display.share_at_one_end(image, values, one) for one in (stated, greys["automatic"])]
        is_lost = shares[0] > MOST_AT_ONE_END >= shares[1]
        greys = {**greys, "header": stated} if is_lost else {"header": stated, **greys}
        if is_lost:
            notes = [
                f"The header's window shows {100 * shares[0]:.0f} % of the image as black or white alone: the "
                "automatic window is shown."
            ]
    own = {name: ((low + high) / 2, high - low) for name, (low, high) in greys.items()}
    return {**own, **WINDOWS.get(image.modality, {})}, notes


def _plane(view: Any) -> PlaneShape:
    return PlaneShape(
        axis=view.axis, count=view.count, rows=SideShape(**vars(view.rows)), columns=SideShape(**vars(view.columns))
    )


def _affine(volume: SlicedVolume) -> list[list[float]] | None:
    """Four by four; None where the size is not known, and of a clip, whose first axis is time."""
    geometry = volume.image.geometry
    if not geometry.physical or volume_slices.image_kind(volume.image) == "clip":
        return None
    if geometry.is_volume:
        return geometry.affine.tolist()
    matrix = np.eye(4)
    matrix[:2, :2], matrix[:2, 3] = geometry.affine[:2, :2], geometry.affine[:2, 2]
    return matrix.tolist()


def _sample(volume: SlicedVolume) -> Any:
    """Values of a few slices of the first channel."""
    name, count = _thick_plane(volume)
    places = sorted({round(n * (count - 1) / (WINDOW_SLICES - 1)) for n in range(WINDOW_SLICES)})
    return np.stack([_values(volume.slice(name, place)) for place in places])


def _values(part: StoredSlice) -> Any:
    return part.pixels * part.slope + part.intercept


def _thick_plane(volume: SlicedVolume) -> tuple[str, int]:
    """The plane of an image whose slices lie in one file each, and their number."""
    name = PICTURE if PICTURE in volume.views else max(volume.views, key=lambda one: volume.views[one].axis or 0)
    return name, volume.views[name].count
