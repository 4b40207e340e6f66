"""The application: its routes, and how it says what went wrong."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from isocenter.errors import IsocenterError, ResourceError
from isocenter.service.web import (
    aside,
    audit,
    blind,
    changes,
    correcting,
    health,
    incidents,
    jobs,
    login,
    metrics,
    monitor,
    node,
    notices,
    pages,
    people,
    reading,
    series,
    studies,
    viewer,
    worklist,
)
from isocenter.service.web.access import ROLES, open_routes, roles
from isocenter.service.web.dicomweb.retrieve import router as retrieve_router
from isocenter.service.web.dicomweb.search import router as search_router
from isocenter.service.web.dicomweb.store import router as store_router
from isocenter.service.web.dicomweb.workitems import router as workitems_router
from isocenter.service.web.guard import Guard
from isocenter.service.web.identity import Identity
from isocenter.service.web.inference.routes import router as inference_router
from isocenter.service.web.refusals import Refusals
from isocenter.service.web.shapes import Problem, problem_of
from isocenter.service.web.web_node import WebError, WebNode

RETRY_AFTER_S = 30  # when the disk is full, or the database away
SEE_OPENAPI = "See /openapi.json"
DICOMWEB = (store_router, workitems_router, search_router, retrieve_router)
log = logging.getLogger("isocenter")


def web_app(web_node: WebNode) -> ASGIApp:
    """The application of a node."""
    rooms = (
        health,
        login,
        people,
        metrics,
        monitor,
        node,
        studies,
        jobs,
        worklist,
        notices,
        incidents,
        aside,
        audit,
        changes,
        series,
        reading,
        blind,
        correcting,
        pages,
    )
    app, stated = _app(web_node), APIRouter(dependencies=[roles(*ROLES)])
    stated.add_api_route("/openapi.json", lambda: JSONResponse(app.openapi()), include_in_schema=False)
    routers = [stated, *(room.router for room in rooms), inference_router, *DICOMWEB]
    return _guarded(app, web_node, routers)


def viewer_app(web_node: WebNode) -> ASGIApp:
    """The OHIF viewer, and DICOMweb beside it, for whoever has logged in at the page of the node."""
    return _guarded(_app(web_node), web_node, [*DICOMWEB, viewer.router], for_browsers=True)


def _guarded(app: FastAPI, web_node: WebNode, routers: Sequence[APIRouter], *, for_browsers: bool = False) -> ASGIApp:
    """The application with these routes, each asked for by whoever has a role that it states."""
    opened = open_routes(routers)
    for router in routers:
        app.include_router(router)
    identity = Identity(web_node.settings, web_node.accounts, opened=opened, for_browsers=for_browsers)
    return Refusals(Guard(app, identity, web_node.settings.http.max_requests), web_node)


def _app(web_node: WebNode) -> FastAPI:
    """An application without routes, which says what went wrong."""
    responses: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem} for status in (401, 403, 404, 409, 422, 503)
    }
    own = version("isocenter")
    # Its own route for what it states would not say who may ask for it.
    app = FastAPI(title="Isocenter", version=own, responses=responses, openapi_url=None, docs_url=None, redoc_url=None)
    app.state.node = web_node
    app.add_exception_handler(IsocenterError, _of_ours)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_values)
    app.add_exception_handler(ClientDisconnect, _of_time)
    app.add_exception_handler(Exception, _of_a_fault)
    return app


def _problem(request: Request, status: int, problem: str, remedy: str, where: str = "", **headers: str) -> JSONResponse:
    headers |= {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else {}
    path = request.url.path
    return JSONResponse(problem_of(path, problem, where or path, remedy), status, headers)


def _of_ours(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, WebError):
        return _problem(request, error.status, error.problem, error.remedy, error.where, **error.headers)
    if not isinstance(error, IsocenterError):
        raise error
    # Where names a path of this machine, which is none of the client's business.
    status = 503 if isinstance(error, ResourceError) else 422
    return _problem(request, status, error.problem, error.remedy)


def _of_http(request: Request, error: Exception) -> JSONResponse:
    status, problem = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, "")
    return _problem(request, status, str(problem).lower(), SEE_OPENAPI)


def _of_values(request: Request, error: Exception) -> JSONResponse:
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": (), "msg": ""}
    return _problem(request, 422, f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}", SEE_OPENAPI)


def _of_time(request: Request, error: Exception) -> JSONResponse:
    return _problem(request, 408, "the request stood still, or broke off", "Send it again")


def _of_a_fault(request: Request, error: Exception) -> JSONResponse:
    """Log an error's kind and place alone: its words, or the path, may hold a UID or a name."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    log.error("a request failed: %s in %s, line %s", type(error).__name__, place.filename, place.lineno)
    return _problem(request, 500, "the node has a fault", "Look into its log, and report it")
