"""The pages for people: one document with its modules and styles, and the released OHIF viewer beside it.

A browser runs nothing else there. The viewer is unmodified; its settings lead it to this node.
"""

from __future__ import annotations

import json
import mimetypes
import re
from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response

from hilum.report import slice_viewer
from hilum.service.web import access
from hilum.service.web.access import ANYBODY, ROLES
from hilum.service.web.web_node import Node, WebError, WebNode

router = APIRouter(include_in_schema=False, dependencies=[access.require_roles(ANYBODY)])
DOCUMENT = "page.html"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
# https://www.w3.org/TR/CSP3/: no script, style, picture or connection but this node's, in nobody's frame.
POLICY = "; ".join(
    f"{what} {where}"
    for what, where in {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }.items()
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # an address holds a StudyInstanceUID
    "Cache-Control": "no-cache",  # a node that was updated shows its new pages
}


@cache
def page_files() -> dict[str, bytes]:
    """{name: content} of all that the pages are made of."""
    own_files = {file.name: file.read_bytes() for file in (files("hilum.service.web") / "page").iterdir()}
    return own_files | {name: text.encode() for name, text in slice_viewer.viewer_files().items()}


@router.get("/")
@router.get("/login")
@router.get("/node")
@router.get("/audit")
@router.get("/monitor")
@router.get("/blind")
@router.get("/incidents")
@router.get("/study/{study}")
async def get_page() -> Response:
    """The document of all pages; its modules read in the address which one is meant."""
    return _file(DOCUMENT)


@router.get("/static/{name}")
async def get_page_file(name: str) -> Response:
    """A module, a style or a picture of the pages."""
    if name not in page_files():  # no path is made of it
        raise WebError(404, "there is no such file", "the pages", "Begin at /")
    return _file(name)


def _file(name: str) -> Response:
    suffix = name[name.rindex(".") :]
    return Response(page_files()[name], headers=HEADERS, media_type=TYPES[suffix])


INDEX, CONFIG = "index.html", "app-config.js"
SOURCE = "hilum"
# What the build names after its contents never changes under its name.
NAMED_BY_CONTENTS, FOR_EVER = re.compile(r"(^|\.)[0-9a-f]{16}\."), "private, max-age=31536000, immutable"
# A browser compiles and runs only what is stated to be that, and what a machine knows of suffixes differs.
VIEWER_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".css": "text/css"}
viewer_router = APIRouter(dependencies=[access.require_roles(ROLES)])


@viewer_router.get(f"/{CONFIG}")
async def viewer_settings(node: Node) -> Response:
    """The settings of the viewer, in place of those of its build."""
    text = json.dumps(_settings(node), indent=1).replace("</", "<\\/")
    return Response(f"window.config = {text};\n", media_type=VIEWER_TYPES[".js"])


@viewer_router.get("/{path:path}", response_class=FileResponse)
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
        headers = {"Cache-Control": FOR_EVER} if NAMED_BY_CONTENTS.search(file.name) else {}
        media = VIEWER_TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        return FileResponse(file, headers=headers, media_type=media)
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
