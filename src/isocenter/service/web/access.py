"""Who may ask for what: the roles of each route, and the person or machine behind a request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Security
from fastapi.params import Security as Declared
from fastapi.routing import APIRoute
from fastapi.security import SecurityScopes
from starlette.types import Scope

from isocenter.errors import UsageError
from isocenter.service.records.actor import Actor
from isocenter.service.web.web_node import WebError

ROLES = ("viewer", "radiologist", "administrator", "service")
# Those who may do something to studies and jobs, and those who look after the node.
WORKING, KEEPING = ROLES[1:], ROLES[2:]
ANYBODY = "anyone"  # in place of roles: who has not logged in may ask too
ACTOR = "actor"  # of a request, in its state


async def _actor(request: Request) -> Actor:
    actor: Actor = getattr(request.state, ACTOR)
    return actor


Who = Annotated[Actor, Depends(_actor)]


async def _allowed(who: Who, declared: SecurityScopes) -> None:
    if ANYBODY not in declared.scopes and who.role not in declared.scopes:
        needed = " or ".join(declared.scopes)
        problem = f"this is not for the role {who.role}" if who.role else "you have not logged in"
        raise WebError(403, problem, "the request", f"Ask an administrator for the role {needed}")


def roles(*names: str) -> Any:
    """Dependency of a route by which those of these roles may ask for it; `anyone`: without logging in, too."""
    if not names or not {*names} <= {*ROLES, ANYBODY}:
        raise ValueError(f"the roles are {', '.join(ROLES)}, or {ANYBODY} alone")
    return Security(_allowed, scopes=list(names))


def enter(scope: Scope, actor: Actor) -> None:
    """Note who is behind a request, for its route."""
    scope.setdefault("state", {})[ACTOR] = actor


def open_routes(routers: Iterable[APIRouter]) -> list[APIRoute]:
    """Routes that may be asked for without logging in; what the API states of a route then names its roles.

    Raises UsageError for a route that does not state its roles.
    """
    found = list[APIRoute]()
    for router in routers:
        for route in router.routes:
            # What is no route of an API, such as a folder of files, has no place for roles.
            dependencies = route.dependencies if isinstance(route, APIRoute) else []
            declared = [one for one in dependencies if isinstance(one, Declared) and one.dependency is _allowed]
            if not isinstance(route, APIRoute) or len(declared) != 1:
                path = getattr(route, "path", repr(route))
                remedy = "Add dependencies=[roles(...)] to it, once"
                raise UsageError("the route does not state who may ask for it", path, remedy)
            names = list(declared[0].scopes or ())
            route.openapi_extra = {**(route.openapi_extra or {}), "x-roles": names}
            if ANYBODY in names:
                found.append(route)
    return found
