"""Routes of series as a page shows them: their grid, and slice after slice."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlalchemy import Row

from hilum.service import configuration
from hilum.service.reading import sliced_volumes
from hilum.service.reading.sliced_volumes import GridShape, RangeShape, SlicedVolume, StoredSlice
from hilum.service.reading.volume_slices import SeriesImages
from hilum.service.records.actor import Actor
from hilum.service.web import access, web_node, worklist_routes
from hilum.service.web.access import ROLES, Who
from hilum.service.web.response_shapes import Responses
from hilum.service.web.web_node import Node, Uid, WebError, WebNode

router = APIRouter(prefix="/api/series", tags=["reading"])
PlaneName = Literal["axial", "coronal", "sagittal", "picture"]
Place = Annotated[int, Query(ge=0)]
FORWARDED = ("forwarded", "x-forwarded-for", "via")  # by a proxy
BYTES = "application/octet-stream"
RAW: Responses = {200: {"content": {BYTES: {}}}}


@router.get("/{series}/grid", dependencies=[access.require_roles(ROLES)])
def get_grid(node: Node, who: Who, series: Uid, image: Place = 0) -> GridShape:
    """The grid of a series, with the planes that show it. image: of a series with several grids or views"""
    every = _open_series(node, who, series)
    return sliced_volumes.grid_shape(_nth_volume(every, image, series), len(every))


@router.get("/{series}/range", dependencies=[access.require_roles(ROLES)])
def get_range(node: Node, who: Who, series: Uid, image: Place = 0, channel: Place = 0) -> RangeShape:
    """The lowest and the highest value of an image, for a window on all of them."""
    volume = _nth_volume(_open_series(node, who, series), image, series)
    try:
        return sliced_volumes.range_shape(volume, channel)
    except IndexError as error:
        raise WebError(404, "there is no such channel", str(channel), "Count them from 0") from error


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
    headers = sliced_volumes.slice_headers(stored)
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
