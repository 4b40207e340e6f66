"""Routes of health, for whoever starts and stops nodes: no token is asked for, and nothing of patients is said."""

from __future__ import annotations

from collections.abc import Iterator

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Response

from isocenter.errors import ResourceError
from isocenter.service.stored import ALIVE
from isocenter.service.web.access import ANYBODY, roles
from isocenter.service.web.node import free_bytes
from isocenter.service.web.shapes import LiveShape, PartShape, ReadyShape
from isocenter.service.web.web_node import Node, WebNode

router = APIRouter(prefix="/health", tags=["health"], dependencies=[roles(ANYBODY)])
SILENT_S = 60.0
# Threads of its own: where all others answer someone, who asks whether the node is ready does not wait for them.
THREADS = CapacityLimiter(2)


@router.get("/live")
async def live() -> LiveShape:
    """The web process answers."""
    return LiveShape()


@router.get("/ready", responses={503: {"model": ReadyShape}})
async def ready(node: Node, response: Response) -> ReadyShape:
    """Database, disk and processes of the node work: it may be sent studies."""
    parts = await to_thread.run_sync(parts_of, node, limiter=THREADS)
    is_ready = all(part.ok for part in parts)
    response.status_code = 200 if is_ready else 503
    return ReadyShape(ready=is_ready, parts=parts)


def parts_of(node: WebNode) -> list[PartShape]:
    """Whether each part of the node works, and if not, why."""
    return [_database(node), _disk(node), *_roles(node)]


def silences(node: WebNode) -> dict[str, float]:
    """{process: seconds since it last said that it is alive}; none where they say nothing.

    By the clock that stamps the signs, which is another machine's where the folder is: this process signs each second.
    """
    folder = node.folder / ALIVE
    if not folder.is_dir():
        return {}
    signed = {path.name: path.stat().st_mtime for path in sorted(folder.iterdir())}
    return {name: max(signed.values()) - at for name, at in signed.items()}


def _database(node: WebNode) -> PartShape:
    try:
        node.database.now()
    except ResourceError:  # its words name the machine
        return PartShape(part="database", ok=False, problem="it does not answer")
    return PartShape(part="database", ok=True)


def _disk(node: WebNode) -> PartShape:
    wanted = node.settings.node.min_free_gb
    if free_bytes(node) < wanted * 1e9:
        return PartShape(part="disk", ok=False, problem=f"less than {wanted:g} GB are free")
    return PartShape(part="disk", ok=True)


def _roles(node: WebNode) -> Iterator[PartShape]:
    silent = silences(node)
    if not any(name.startswith("keeper") for name in silent):  # what comes in would lie there unseen
        yield PartShape(part="keeper", ok=False, problem="it is not running")
    for role, seconds in silent.items():
        is_silent = seconds > SILENT_S
        yield PartShape(part=role, ok=not is_silent, problem=f"silent for {seconds:.0f} s" if is_silent else None)
