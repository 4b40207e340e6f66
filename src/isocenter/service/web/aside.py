"""Routes of objects that were set aside: another one with the same UID came first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Query
from sqlalchemy import select

from isocenter.errors import FormatError
from isocenter.files import file_hash
from isocenter.files.dicom import read_identity
from isocenter.service.objects.aside import Aside, exchange, read_asides
from isocenter.service.records.tables import instances, studies
from isocenter.service.web.access import KEEPING, ROLES, Who, roles
from isocenter.service.web.shapes import AsideShape, Listing
from isocenter.service.web.web_node import Limit, Node, WebError, WebNode

router = APIRouter(prefix="/api/aside", tags=["aside"])


@router.get("", dependencies=[roles(*ROLES)])
def list_aside(node: Node, limit: Limit = 100, after: Annotated[int, Query(ge=0)] = 0) -> Listing[AsideShape]:
    """List what was set aside, and why, oldest first."""
    asides = [one for one in read_asides(node.folder) if one.number > after]
    return Listing[AsideShape](schema="isocenter.aside", rows=_shapes(node, asides[:limit]))


@router.post("/{n}/release", dependencies=[roles(*KEEPING)])
def release_aside(node: Node, who: Who, n: Annotated[int, Path(ge=1, le=2**31)]) -> AsideShape:
    """Let an object take the place of the one that came first, which lies aside instead; its study is done anew."""
    aside = next((one for one in read_asides(node.folder) if one.number == n), None)
    if aside is None:
        raise WebError(404, "there is no such object set aside", str(n), "See /api/aside")
    try:
        identity = read_identity(aside.path)
    except FormatError as error:
        raise WebError(409, f"the object {error.problem}", str(n), "Have it sent again") from error
    is_exchanged = aside.first is not None and node.index.replace(
        aside.first,
        syntax=identity.syntax,
        bytes=aside.path.stat().st_size,
        sha256=file_hash(aside.path),
        exchange=lambda: exchange(node.folder, aside),
        who=who,
    )
    if not is_exchanged:
        raise WebError(409, "the records have no object that it could replace", str(n), "Have it sent again")
    return _shapes(node, [aside])[0]


def _shapes(node: WebNode, asides: Sequence[Aside]) -> list[AsideShape]:
    joined = instances.join(studies, instances.c.study == studies.c.study)
    of_these = instances.c.path.in_([one.first for one in asides if one.first is not None])
    wanted = select(instances.c.path, instances.c.uid, studies.c.uid.label("study_uid")).select_from(joined)
    with node.database.read() as connection:
        firsts = {row.path: (row.study_uid, row.uid) for row in connection.execute(wanted.where(of_these))}
    shapes = []
    for aside in asides:
        study, instance = firsts.get(aside.first or "", (None, None))
        shapes.append(
            AsideShape.model_validate({**vars(aside), "n": aside.number, "study": study, "sop_instance_uid": instance})
        )
    return shapes
