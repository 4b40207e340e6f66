"""The OHIF viewer: its released build, unmodified, with the settings that lead it to this node.

https://docs.ohif.org/configuration/configurationFiles
"""

from __future__ import annotations

import json
import mimetypes
import re

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response

from isocenter.service.web.access import ROLES, roles
from isocenter.service.web.web_node import Node, WebError, WebNode

INDEX, CONFIG = "index.html", "app-config.js"
SOURCE = "isocenter"
# What the build names after its contents never changes under its name.
NAMED_BY_CONTENTS, FOR_EVER = re.compile(r"(^|\.)[0-9a-f]{16}\."), "private, max-age=31536000, immutable"
# A browser compiles and runs only what is stated to be that, and what a machine knows of suffixes differs.
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".css": "text/css"}
router = APIRouter(dependencies=[roles(*ROLES)])


@router.get(f"/{CONFIG}")
async def viewer_settings(node: Node) -> Response:
    """The settings of the viewer, in place of those of its build."""
    text = json.dumps(_settings(node), indent=1).replace("</", "<\\/")
    return Response(f"window.config = {text};\n", media_type=TYPES[".js"])


@router.get("/{path:path}", response_class=FileResponse)
def viewer_file(node: Node, path: str) -> FileResponse:
    """A file of the build; an address within the viewer, such as /viewer, is its page."""
    assert node.settings.ohif is not None  # noqa: S101 - else there is no such application
    root = node.settings.ohif.folder.resolve()
    try:
        file = (root / path).resolve()
        is_there = file.is_relative_to(root) and file.is_file()
    except (OSError, ValueError):  # a name that no file can have
        is_there = False
    if is_there:
        kept = {"Cache-Control": FOR_EVER} if NAMED_BY_CONTENTS.search(file.name) else {}
        media = TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        return FileResponse(file, headers=kept, media_type=media)
    if "." in path.rpartition("/")[2] or path.startswith("dicomweb/"):
        raise WebError(404, "there is no such file", "the viewer", "Begin at /")
    return FileResponse(root / INDEX, media_type="text/html")


def _settings(node: WebNode) -> dict[str, object]:
    """The settings as OHIF names them: one source, this node; nothing that leads to another machine."""
    source = {
        "friendlyName": node.settings.node.name,
        "name": SOURCE,
        "wadoUriRoot": "/dicomweb",
        "qidoRoot": "/dicomweb",
        "wadoRoot": "/dicomweb",
        "qidoSupportsIncludeField": True,
        "supportsFuzzyMatching": False,
        "supportsWildcard": True,
        "imageRendering": "wadors",
        "thumbnailRendering": "wadors",
        "enableStudyLazyLoad": True,
        "omitQuotationForMultipartRequest": True,
    }
    named = {"namespace": "@ohif/extension-default.dataSourcesModule.dicomweb", "sourceName": SOURCE}
    return {
        "name": SOURCE,
        "routerBasename": None,
        "extensions": [],
        "modes": [],
        "customizationService": {},
        "showStudyList": True,
        "maxNumberOfWebWorkers": 3,
        "showWarningMessageForCrossOrigin": False,
        "showCPUFallbackMessage": True,
        "strictZSpacingForVolumeViewport": True,
        "maxNumRequests": {"interaction": 20, "thumbnail": 5, "prefetch": 10},
        "defaultDataSourceName": SOURCE,
        "dataSources": [{**named, "configuration": source}],
    }
