"""The pages for people: one document, its modules and styles. A browser runs nothing else there.

What they show comes from the API, which asks who is there; the files themselves say nothing of patients.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import Response

from isocenter.report import viewer_files
from isocenter.service.web.access import roles
from isocenter.service.web.web_node import WebError

router = APIRouter(include_in_schema=False, dependencies=[roles("anyone")])
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
    own = {file.name: file.read_bytes() for file in (files("isocenter.service.web") / "page").iterdir()}
    return own | {name: text.encode() for name, text in viewer_files().items()}


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
