"""Routes of persons: how they log in and out, and the accounts and tokens that administrators give."""

from __future__ import annotations

import hashlib
import hmac
import html
import secrets
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel, Field
from sqlalchemy import Row

from hilum.errors import HilumError, UsageError
from hilum.service.configuration import NodeSettings, PersonRole
from hilum.service.records import accounts
from hilum.service.records.accounts import MOST_LETTERS, NAME, AccountError, WaitError
from hilum.service.records.actor import Actor
from hilum.service.web import access
from hilum.service.web.access import ADMINISTRATORS, ANYBODY, LOGIN, ROLES, Who
from hilum.service.web.openid import Provider, ProviderError
from hilum.service.web.response_shapes import AccountShape, Listing, LoginShape, MeShape, Problem, TokenShape
from hilum.service.web.web_node import KEY, Node, WebError, WebNode

router = APIRouter(prefix="/api", tags=["identity"], responses={status: {"model": Problem} for status in (400, 413)})
OPENID = "/api/login/openid"
BEGUN, BEGUN_S = "hilum-openid", 600  # the cookie of a login that a provider has not answered yet, and its end
Password = Annotated[str, Field(max_length=MOST_LETTERS)]


class Given(BaseModel):
    """Credentials with which a person logs in."""

    account: Annotated[str, Field(pattern=NAME)]
    password: Password


class Change(BaseModel):
    """A new password, and the one before."""

    old: Password
    new: Password


@router.get("/login", dependencies=[access.require_roles(ANYBODY)])
def get_login(node: Node) -> LoginShape:
    """Get how one logs in."""
    by_password = node.accounts.exist()
    openid = None if node.settings.oidc is None else OPENID
    return LoginShape(needed=by_password or openid is not None, password=by_password, openid=openid)


@router.post("/login", dependencies=[access.require_roles(ANYBODY)], responses={429: {"model": Problem}})
async def log_in(request: Request, node: Node, given: Given, response: Response) -> MeShape:
    """Log in by password; a cookie says from then on who asks."""

    def look() -> MeShape:
        _check(request, node, given.account, given.password)
        return _me(node, _enter(request, node, given.account, response))

    return await node.log_ins.run(_address(request), look)


@router.post("/logout", status_code=204, dependencies=[access.require_roles(ROLES)], response_class=Response)
def log_out(request: Request, node: Node, who: Who) -> Response:
    """End the session."""
    node.accounts.leave(access.session_secret(node.settings, request.headers), who=who)
    response = Response(status_code=204)
    response.delete_cookie(access.cookie_name(node.settings), secure=_is_secure(node.settings), httponly=True)
    return response


@router.get("/me", dependencies=[access.require_roles(ROLES)])
def get_me(request: Request, node: Node, who: Who) -> MeShape:
    """Who asks."""
    secret = access.session_secret(node.settings, request.headers)
    return MeShape(
        account=who.account, role=who.role, csrf=accounts.csrf_token(secret) if secret and who.account else ""
    )


@router.put("/me/password", dependencies=[access.require_roles(ROLES)], responses={429: {"model": Problem}})
async def change_password(request: Request, node: Node, who: Who, change: Change, response: Response) -> MeShape:
    """Take another password; all other sessions of the account end."""

    def look() -> MeShape:
        _check(request, node, who.account, change.old)
        try:
            node.accounts.change(who.account, password=change.new, who=who)
        except (AccountError, UsageError) as error:
            raise WebError(422, error.problem, error.where, error.remedy) from error
        return _me(node, _enter(request, node, who.account, response))

    return await node.log_ins.run(_address(request), look)


@router.get(
    "/login/openid", status_code=303, dependencies=[access.require_roles(ANYBODY)], response_class=RedirectResponse
)
def ask_provider(request: Request, node: Node, next: Annotated[str, Query(max_length=2000)] = "/") -> Response:
    """Lead the browser to the provider. next: the path of this node where it goes on afterwards"""
    secret = secrets.token_urlsafe(32)
    try:
        address = _provider(node).address(_answer_address(request, node), *_derive(secret))
    except ProviderError as error:
        return _refusal_page(error.status, error)
    response = RedirectResponse(address, 303)
    # Lax, because the provider leads the browser back from its own address.
    cookie_value = f"{secret}:{access.own_path(next)}"
    response.set_cookie(
        BEGUN, cookie_value, BEGUN_S, path=OPENID, secure=_is_secure(node.settings), httponly=True, samesite="lax"
    )
    return response


@router.get("/login/openid/answer", dependencies=[access.require_roles(ANYBODY)], response_class=HTMLResponse)
async def take_answer(
    request: Request,
    node: Node,
    code: Annotated[str, Query(max_length=4096)] = "",
    state: Annotated[str, Query(max_length=200)] = "",
    error: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """Take the provider's answer, with which the browser comes back."""
    try:
        return await node.log_ins.run(_address(request), lambda: _led_back(request, node, code, state, error))
    except (WebError, ProviderError) as error_of_login:
        return _refusal_page(error_of_login.status, error_of_login)


def _led_back(request: Request, node: WebNode, code: str, state: str, error: str) -> Response:
    """The page that leads on whom the provider vouches for. Raises as `_vouched_account`, which the audit gets."""
    secret, _, path = access.read_cookie(request.headers, BEGUN).partition(":")
    try:
        account = _vouched_account(request, node, secret, code, state, error)
    except (WebError, ProviderError) as error_of_login:
        node.accounts.record_failure(Actor("", "", _address(request)), error_of_login.problem)
        raise
    # A redirect would still count as the provider's, and bring no cookie of this address: the page asks anew.
    response = _page(200, "Logged in", "", access.own_path(path), is_followed=True)
    _enter(request, node, account, response)
    response.delete_cookie(BEGUN, path=OPENID, secure=_is_secure(node.settings), httponly=True)
    return response


def _vouched_account(request: Request, node: WebNode, secret: str, code: str, state: str, error: str) -> str:
    """The account of whom the provider vouches for. Raises WebError or ProviderError where it vouches for nobody."""
    state_expected, nonce, verifier = _derive(secret)
    if not secret or not hmac.compare_digest(state.encode(), state_expected.encode()):
        raise WebError(403, "this login was not begun here, or too long ago", "the login", "Begin again")
    if error or not code:
        raise WebError(403, "the OpenID provider has refused the login", "the login", "Ask those who run the provider")
    vouched = _provider(node).vouched_person(_answer_address(request, node), code, nonce, verifier)
    try:
        return node.accounts.vouched_account(vouched.subject, vouched.account, vouched.role)
    except AccountError as refused:
        raise WebError(403, refused.problem, "the login", refused.remedy) from refused


def _provider(node: WebNode) -> Provider:
    if (provider := node.provider) is None:
        raise WebError(404, "no OpenID provider is set", "the login", "Name one in [oidc] of the settings")
    return provider


def _check(request: Request, node: WebNode, account: str, password: str) -> None:
    """Raise WebError where a person may not log in by a password, or not now."""
    try:
        is_right = node.accounts.is_password(account, password, _address(request))
    except WaitError as error:
        raise WebError(429, error.problem, "the login", error.remedy, {"Retry-After": f"{error.wait:.0f}"}) from error
    if not is_right:
        raise WebError(401, "account or password is wrong", "the login", "Try again, or ask an administrator")


def _enter(request: Request, node: WebNode, account: str, response: Response) -> str:
    """Begin a session: under a new secret, whatever the browser has had before."""
    before = access.session_secret(node.settings, request.headers)
    secret = node.accounts.enter(account, instead_of=before, address=_address(request))
    is_secure = _is_secure(node.settings)
    # It lasts as long as the browser; the node ends it after half an hour without use.
    response.set_cookie(access.cookie_name(node.settings), secret, secure=is_secure, httponly=True, samesite="strict")
    return secret


def _me(node: WebNode, secret: str) -> MeShape:
    session = node.accounts.session(secret)
    if session is None:
        raise WebError(401, "the session has ended", "the login", "Log in again")
    return MeShape(account=session.account, role=session.role, csrf=session.csrf)


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _is_secure(settings: NodeSettings) -> bool:
    return settings.http.public_address.startswith("https://")


def _answer_address(request: Request, node: WebNode) -> str:
    """Address to which the provider leads the browser back: as the settings or the browser name this node."""
    base = node.settings.http.url or f"{request.url.scheme}://{request.url.netloc}"
    return f"{base.rstrip('/')}{OPENID}/answer"


def _derive(secret: str) -> tuple[str, str, str]:
    """State, nonce and PKCE verifier of a login: they follow from what its browser keeps, and no table is needed."""
    state, nonce, verifier = (hmac.new(secret.encode(), one, hashlib.sha256).hexdigest() for one in (b"s", b"n", b"v"))
    return state, nonce, verifier


def _refusal_page(status: int, error: HilumError) -> HTMLResponse:
    return _page(status, "Not logged in", f"{error}", LOGIN)


def _page(status: int, title: str, text: str, path: str, *, is_followed: bool = False) -> HTMLResponse:
    """A page with a link, which is followed at once where nothing stands on it."""
    link = html.escape(path)
    follow = f'<meta http-equiv="refresh" content="0; url={link}">' if is_followed else ""
    body = f'<h1>{html.escape(title)}</h1><p>{html.escape(text)}</p><p><a href="{link}">Go on</a></p>'
    head = f'<meta charset="utf-8">{follow}<title>{html.escape(title)} - Hilum</title>'
    page = f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>'
    policy = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    return HTMLResponse(page, status, {"Content-Security-Policy": policy})


accounts_router = APIRouter(
    prefix="/api",
    tags=["identity"],
    dependencies=[access.require_roles(ADMINISTRATORS)],
    responses={status: {"model": Problem} for status in (400, 413)},
)
MADE_BYTES = 12  # of a password that the node makes
AccountName = Annotated[str, Path(pattern=NAME)]


class NewAccount(BaseModel):
    """A person who may log in; without a password the node makes one, and states it once."""

    account: Annotated[str, Field(pattern=NAME)]
    role: PersonRole
    password: Annotated[str, Field(max_length=MOST_LETTERS)] | None = None


class AccountChange(BaseModel):
    """Change of an account: another role; the end, or a new start; a password that the node makes."""

    role: PersonRole | None = None
    ended: bool | None = None
    new_password: bool = False


class NewToken(BaseModel):
    """A machine that may ask, until the end of a day (UTC)."""

    name: Annotated[str, Field(pattern=NAME)]
    role: Literal["viewer", "radiologist", "administrator", "service"] = "service"
    last_day: Annotated[date, Field(lt=date(2200, 1, 1))]


@accounts_router.get("/accounts")
def list_accounts(node: Node) -> Listing[AccountShape]:
    """Accounts by name, those that have ended too."""
    return Listing[AccountShape](schema="hilum.accounts", rows=[_account(row) for row in node.accounts.rows()])


@accounts_router.post("/accounts", status_code=201, responses={201: {"description": "Created"}})
def make_account(node: Node, who: Who, new: NewAccount) -> AccountShape:
    """Make an account."""
    password = secrets.token_urlsafe(MADE_BYTES) if new.password is None else new.password
    try:
        node.accounts.make(new.account, new.role, password, who=who)
    except AccountError as error:
        raise WebError(409, error.problem, error.where, error.remedy) from error
    except UsageError as error:
        raise WebError(422, error.problem, error.where, error.remedy) from error
    return _account_shape(node, new.account, password if new.password is None else None)


@accounts_router.put("/accounts/{account}")
def change_account(node: Node, who: Who, account: AccountName, change: AccountChange) -> AccountShape:
    """Change an account; its sessions end."""
    password = secrets.token_urlsafe(MADE_BYTES) if change.new_password else None
    try:
        node.accounts.change(account, role=change.role, ended=change.ended, password=password, who=who)
    except AccountError as error:
        raise WebError(409, error.problem, error.where, error.remedy) from error
    return _account_shape(node, account, password)


@accounts_router.get("/tokens")
def list_tokens(node: Node) -> Listing[TokenShape]:
    """Tokens by name, those that have ended too."""
    return Listing[TokenShape](schema="hilum.tokens", rows=[_token(row) for row in node.accounts.tokens()])


@accounts_router.post("/tokens", status_code=201, responses={201: {"description": "Created"}})
def make_token(node: Node, who: Who, new: NewToken) -> TokenShape:
    """Make a token; it is stated once."""
    end = datetime(new.last_day.year, new.last_day.month, new.last_day.day, tzinfo=UTC) + timedelta(days=1)
    if end.timestamp() <= node.database.now():
        raise WebError(422, "the last day is over", new.last_day.isoformat(), "Give a later one")
    try:
        key, secret = node.accounts.make_token(new.name, new.role, end.timestamp(), who)
    except AccountError as error:
        raise WebError(409, error.problem, error.where, error.remedy) from error
    [row] = (row for row in node.accounts.tokens() if row.token == key)
    return _token(row, secret)


@accounts_router.delete("/tokens/{token}", status_code=204)
def end_token(node: Node, who: Who, token: Annotated[str, Path(pattern=KEY)]) -> None:
    """Delete a token: whoever has it may ask for nothing more."""
    if not node.accounts.end_token(token, who=who):
        raise WebError(404, "there is no such token", token, "See /api/tokens")


def _account_shape(node: WebNode, account: str, password: str | None) -> AccountShape:
    [row] = (row for row in node.accounts.rows() if row.account == account)
    return _account(row, password)


def _account(row: Row[Any], password: str | None = None) -> AccountShape:
    return AccountShape(
        account=row.account,
        role=row.role,
        openid=row.subject is not None,
        ended=row.ended_at is not None,
        created_at=row.created_at,
        password=password,
    )


def _token(row: Row[Any], secret: str | None = None) -> TokenShape:
    return TokenShape(**row._mapping, ended=row.ends_at <= datetime.now(UTC).timestamp(), secret=secret)
