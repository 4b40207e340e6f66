"""Who is behind a request, by token, session or this machine alone, and who may ask for what."""

from __future__ import annotations

import hmac
import os
import re
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Request, Security
from fastapi.params import Security as Declared
from fastapi.routing import APIRoute
from fastapi.security import SecurityScopes
from starlette.requests import cookie_parser
from starlette.types import Scope

from hilum.errors import UsageError
from hilum.service import configuration
from hilum.service.configuration import TOKEN, NodeSettings
from hilum.service.records.accounts import ADMIN_PASSWORD, Accounts
from hilum.service.records.actor import ANYONE, MACHINE, Actor
from hilum.service.web.response_shapes import INFERENCE
from hilum.service.web.web_node import WebError

ROLES = ("viewer", "radiologist", "administrator", "service")
# Those who may do something to studies and jobs, and those who look after the node.
WORKING, KEEPING = ROLES[1:], ROLES[2:]
ADMINISTRATORS = ("administrator",)
ANYBODY = ("anyone",)  # in place of roles: who has not logged in may ask too
ACTOR = "actor"  # of a request, in its state


async def _actor(request: Request) -> Actor:
    actor: Actor = getattr(request.state, ACTOR)
    return actor


Who = Annotated[Actor, Depends(_actor)]


async def _allow(who: Who, declared: SecurityScopes) -> None:
    if not {who.role, *ANYBODY}.intersection(declared.scopes):
        needed = " or ".join(declared.scopes)
        problem = f"this is not for the role {who.role}" if who.role else "you have not logged in"
        raise WebError(403, problem, "the request", f"Ask an administrator for the role {needed}")


def require_roles(names: Sequence[str]) -> Any:
    """Dependency of a route by which those of these roles may ask for it; `ANYBODY`: without logging in, too."""
    if not names or not {*names} <= {*ROLES, *ANYBODY}:
        raise ValueError(f"the roles are {', '.join(ROLES)}, or {ANYBODY[0]} alone")
    return Security(_allow, scopes=list(names))


def enter_actor(scope: Scope, actor: Actor) -> None:
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
            declared = [one for one in dependencies if isinstance(one, Declared) and one.dependency is _allow]
            if not isinstance(route, APIRoute) or len(declared) != 1:
                path = getattr(route, "path", repr(route))
                remedy = "Add dependencies=[roles(...)] to it, once"
                raise UsageError("the route does not state who may ask for it", path, remedy)
            names = list(declared[0].scopes or ())
            route.openapi_extra = {**(route.openapi_extra or {}), "x-roles": names}
            if {*ANYBODY} <= {*names}:
                found.append(route)
    return found


HEALTH = ("/health/", f"{INFERENCE}/health/")
EVENTS = "/api/worklist/events"  # for which a page asks again by itself, as long as it is open
LOGIN = "/login"  # the page where a person logs in
CSRF, BACKGROUND = "x-csrf-token", "x-background"
SAFE = ("GET", "HEAD", "OPTIONS")
BASIC = 'Basic realm="Hilum", charset="UTF-8"'
# Threads of their own for looks into the records, so that they do not wait for slow answers.
THREADS = CapacityLimiter(4)


class RequestIdentity:
    """Finds out who is behind a request.

    opened:       routes that may be asked for without logging in
    for_browsers: whether a browser may give a token as a password (RFC 7617), for pages of this address alone
    """

    def __init__(
        self, settings: NodeSettings, accounts: Accounts, *, opened: Sequence[APIRoute] = (), for_browsers: bool = False
    ) -> None:
        self.settings, self.accounts, self.for_browsers = settings, accounts, for_browsers
        self.token = os.environ.get(TOKEN) or None
        self.opened = [route.path_regex for route in opened]

    async def actor(self, scope: Scope, headers: Mapping[str, str]) -> Actor:
        """Who makes a request; without role who has not logged in. Raises WebError, and as `Database`."""
        path, address = scope["path"], (scope.get("client") or ("",))[0]
        is_health = path.startswith(HEALTH)
        if not (is_health or self.accounts.are_known or self._is_closed):
            await to_thread.run_sync(self.accounts.exist, limiter=THREADS)
        if not (self.accounts.are_known or self._is_closed):
            if not _is_local(headers):
                raise _refusal(403, "only this machine is served", f"Set {ADMIN_PASSWORD} or {TOKEN} for others")
            return Actor(ANYONE.account, ANYONE.role, address)
        is_open = any(route.match(path) for route in self.opened)
        actor = None if is_health else await self._identify(scope, headers, is_open=is_open)
        if actor is None and not is_open:
            raise self._unknown(scope, headers)
        return Actor("", "", address) if actor is None else Actor(actor.account, actor.role, address)

    @property
    def _is_closed(self) -> bool:
        """Whether the settings alone ask everybody to say who it is."""
        return self.token is not None or self.settings.oidc is not None

    async def _identify(self, scope: Scope, headers: Mapping[str, str], *, is_open: bool) -> Actor | None:
        """The machine or the person; None where nothing says who it is."""
        if "authorization" in headers:
            return await self._machine(headers)
        is_foreign = not _is_of_this_origin(headers, self.settings.http.public_address)
        secret = session_secret(self.settings, headers)
        if is_foreign and (secret or scope["method"] not in SAFE):
            raise _refusal(403, "a page of another address asks", "Open the page of this node")
        if not secret:
            return None
        is_used = BACKGROUND not in headers and scope["path"] != EVENTS
        session = await to_thread.run_sync(lambda: self.accounts.session(secret, is_used=is_used), limiter=THREADS)
        if session is None:
            return None
        token_given = headers.get(CSRF, "").encode("latin-1")
        is_change = scope["method"] not in SAFE and not is_open  # who logs in anew has no such word
        if is_change and not hmac.compare_digest(token_given, session.csrf.encode()):
            raise _refusal(403, "the page did not show that it is ours", "Send X-CSRF-Token as /api/me states it")
        return Actor(session.account, session.role)

    async def _machine(self, headers: Mapping[str, str]) -> Actor | None:
        token_given = _token(
            headers["authorization"], may_be_password=self.for_browsers and _is_of_this_origin(headers)
        )
        if not token_given:
            return None
        if self.token is not None and hmac.compare_digest(token_given, self.token.encode()):
            return Actor(f"{MACHINE}{TOKEN}", "service")
        return await to_thread.run_sync(self.accounts.machine, token_given.decode("latin-1"), limiter=THREADS)

    def _unknown(self, scope: Scope, headers: Mapping[str, str]) -> WebError:
        """Answer to somebody unknown: a person is led to where one logs in."""
        logs_in = self.accounts.are_known or self.settings.oidc is not None
        if logs_in and scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            path = scope["path"] + (f"?{query}" if (query := scope.get("query_string", b"").decode("latin-1")) else "")
            # The viewer has a port of its own, to which no login leads back.
            to = f"{self._api(headers)}{LOGIN}" if self.for_browsers else f"{LOGIN}?next={quote(path, safe='')}"
            return _refusal(303, "you have not logged in", "Log in", {"Location": to})
        if self.for_browsers and not logs_in:
            remedy = f"Give the node's {TOKEN} as the password"
            return _refusal(401, "the token is missing or wrong", remedy, {"WWW-Authenticate": BASIC})
        remedy = f"Log in, or send Authorization: Bearer with a token of the node or its {TOKEN}"
        return _refusal(401, "the token is missing, wrong or at its end", remedy, {"WWW-Authenticate": "Bearer"})

    def _api(self, headers: Mapping[str, str]) -> str:
        """The address of the node's pages, as a browser that asks at another port of it can reach them."""
        http = self.settings.http
        name = urlsplit(f"//{headers.get('host', '')}").hostname or http.host
        return http.url.rstrip("/") if http.url else f"{http.scheme}://{name}:{http.port}"


def cookie_name(settings: NodeSettings) -> str:
    """The name of a session's cookie; under TLS one that no other address can set (RFC 6265bis 4.1.3.2)."""
    return "__Host-hilum" if settings.http.public_address.startswith("https://") else "hilum"


def session_secret(settings: NodeSettings, headers: Mapping[str, str]) -> str:
    """Secret that the browser keeps of its session; empty without one."""
    return read_cookie(headers, cookie_name(settings))


def read_cookie(headers: Mapping[str, str], name: str) -> str:
    """A cookie of a request; empty where it has none."""
    return cookie_parser(headers.get("cookie", "")).get(name, "")


def own_path(path: str) -> str:
    """Path to which a person goes on after logging in: of this node, whatever address is given."""
    is_ours = re.fullmatch(r"/([!-.0-\[\]-~][!-\[\]-~]*)?", path)
    return path if is_ours else "/"


def _refusal(status: int, problem: str, remedy: str, headers: Mapping[str, str] | None = None) -> WebError:
    return WebError(status, problem, "the request", remedy, headers)


def _is_local(headers: Mapping[str, str]) -> bool:
    """Whether a request names this machine; a page from elsewhere has another name for it, or another origin."""
    name = re.fullmatch(r"\[([0-9a-fA-F:]+)\](:\d+)?|([\w.-]+)(:\d+)?", headers.get("host", ""))
    if name is None or not configuration.is_loopback((name[1] or name[3]).lower()):
        return False
    return _is_of_this_origin(headers)


def _is_of_this_origin(headers: Mapping[str, str], reached: str = "") -> bool:
    """Whether no page from elsewhere makes a request. reached: a further address of this node, behind a proxy"""
    host = headers.get("host", "")
    origins = (f"http://{host}", f"https://{host}", "{0.scheme}://{0.netloc}".format(urlsplit(reached)))
    return headers.get("origin", origins[0]) in origins


def _token(header: str, *, may_be_password: bool) -> bytes:
    """The token of an Authorization header, or its password; empty where it has none."""
    kind, _, rest = header.partition(" ")
    if kind.lower() == "bearer":
        return rest.encode("latin-1")
    try:
        # A browser sends the password with every request, also with one that a page from elsewhere makes.
        is_basic = may_be_password and kind.lower() == "basic"
        return b64decode(rest, validate=True).partition(b":")[2] if is_basic else b""
    except ValueError:
        return b""
