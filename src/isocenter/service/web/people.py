"""Routes of accounts and tokens, for administrators."""

from __future__ import annotations

import secrets
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field
from sqlalchemy import Row

from isocenter.errors import UsageError
from isocenter.service.records.accounts import MOST_LETTERS, NAME, AccountError
from isocenter.service.settings import PersonRole
from isocenter.service.web.access import Who, roles
from isocenter.service.web.shapes import AccountShape, Listing, Problem, TokenShape
from isocenter.service.web.web_node import KEY, Node, WebError, WebNode

router = APIRouter(
    prefix="/api",
    tags=["identity"],
    dependencies=[roles("administrator")],
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


@router.get("/accounts")
def list_accounts(node: Node) -> Listing[AccountShape]:
    """Accounts by name, those that have ended too."""
    return Listing[AccountShape](schema="isocenter.accounts", rows=[_account(row) for row in node.accounts.rows()])


@router.post("/accounts", status_code=201, responses={201: {"description": "Created"}})
def make_account(node: Node, who: Who, new: NewAccount) -> AccountShape:
    """Make an account."""
    password = secrets.token_urlsafe(MADE_BYTES) if new.password is None else new.password
    try:
        node.accounts.make(new.account, new.role, password, who=who)
    except AccountError as error:
        raise WebError(409, error.problem, error.where, error.remedy) from error
    except UsageError as error:
        raise WebError(422, error.problem, error.where, error.remedy) from error
    return _shown(node, new.account, password if new.password is None else None)


@router.put("/accounts/{account}")
def change_account(node: Node, who: Who, account: AccountName, change: AccountChange) -> AccountShape:
    """Change an account; its sessions end."""
    password = secrets.token_urlsafe(MADE_BYTES) if change.new_password else None
    try:
        node.accounts.change(account, role=change.role, ended=change.ended, password=password, who=who)
    except AccountError as error:
        raise WebError(409, error.problem, error.where, error.remedy) from error
    return _shown(node, account, password)


@router.get("/tokens")
def list_tokens(node: Node) -> Listing[TokenShape]:
    """Tokens by name, those that have ended too."""
    return Listing[TokenShape](schema="isocenter.tokens", rows=[_token(row) for row in node.accounts.tokens()])


@router.post("/tokens", status_code=201, responses={201: {"description": "Created"}})
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


@router.delete("/tokens/{token}", status_code=204)
def end_token(node: Node, who: Who, token: Annotated[str, Path(pattern=KEY)]) -> None:
    """Delete a token: whoever has it may ask for nothing more."""
    if not node.accounts.end_token(token, who=who):
        raise WebError(404, "there is no such token", token, "See /api/tokens")


def _shown(node: WebNode, account: str, password: str | None) -> AccountShape:
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
