"""Persons and machines that a node knows: accounts with passwords, sessions of browsers, tokens of machines."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection, Row, delete, func, insert, inspect, make_url, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from hilum.errors import HilumError, UsageError
from hilum.service import configuration
from hilum.service.configuration import TOKEN, NodeSettings
from hilum.service.records import audit_records, record_database
from hilum.service.records.actor import MACHINE, NODE, Actor
from hilum.service.records.audit_records import FAILURE
from hilum.service.records.record_database import Database, DatabaseClock
from hilum.service.records.tables import ACCOUNTS, FAILURES, SESSIONS, TOKENS, RowValues

ADMIN_PASSWORD = "HILUM_ADMIN_PASSWORD"  # noqa: S105 - the name of a variable
FIRST, ADMINISTRATOR = "administrator", "administrator"  # the first account, and its role
NAME = r"^\w([\w.@ +-]{0,62}\w)?$"  # of an account, or of a token
# Letters of a password: NIST SP 800-63B asks for 8 at least, and for 15 where it is all that is asked for.
FEWEST_LETTERS, MOST_LETTERS = 12, 256
IDLE_S = 30 * 60.0  # after which a session ends
NOTED_S = 30.0  # the use of a session is written so often
# Wrong passwords that cost no time; then the next one waits for twice as long each time, and they are forgotten (s).
FREE_FAILURES, LONGEST_WAIT_S, FORGOTTEN_S = 5, 60.0, 3600.0
ASKED_AGAIN_S = 1.0  # whether there is an account by now: another process may have made it
PREFIX = "hilum_"  # of a token, so that a search for leaked secrets knows it
HASHER, HASHED_AT_ONCE = PasswordHasher(), threading.BoundedSemaphore(2)  # each takes 64 MiB


class AccountError(HilumError):
    """An account or a token that cannot be made, or changed so."""


class WaitError(HilumError):
    """A password that comes too soon after wrong ones. wait: until the next one is looked at (s)"""

    def __init__(self, wait: float) -> None:
        super().__init__("too many wrong passwords", "the account", f"Wait {wait:.0f} s")
        self.args = (wait,)
        self.wait = wait


@dataclass(frozen=True)
class LoginSession:
    """A person at a browser. csrf: what the page sends with every change"""

    account: str
    role: str
    csrf: str


@dataclass(eq=False)
class Accounts:
    """Persons, their sessions, and tokens. Errors as those of `Database`."""

    database: Database
    _exist: bool = False
    _asked: float = field(default=-ASKED_AGAIN_S)

    @property
    def are_known(self) -> bool:
        """Whether an account has been seen; the database is not asked."""
        return self._exist

    def exist(self) -> bool:
        """Whether there is an account: then everybody has to log in. None is ever deleted."""
        if not self._exist and time.monotonic() - self._asked >= ASKED_AGAIN_S:
            self._exist = self.database.first(select(ACCOUNTS.c.account).limit(1)) is not None
            self._asked = time.monotonic()
        return self._exist

    def first(self, password: str) -> None:
        """Make the account `administrator`, as long as there is none. Raises UsageError for a short password."""
        hashed = _hash_password(password, ADMIN_PASSWORD)
        with self.database.write() as connection:
            if connection.execute(select(ACCOUNTS.c.account).limit(1)).first() is None:
                columns = {"account": FIRST, "role": ADMINISTRATOR, "password": hashed, "created_at": DatabaseClock()}
                connection.execute(insert(ACCOUNTS).values(columns))
                audit_records.record_change(connection, f"account {FIRST}", None, {"role": ADMINISTRATOR})
        self._exist = True

    def rows(self) -> Sequence[Row[Any]]:
        """All accounts by name, those that have ended too."""
        return self.database.rows(select(ACCOUNTS).order_by(ACCOUNTS.c.account))

    def make(self, account: str, role: str, password: str, *, who: Actor = NODE) -> None:
        """A further person. Raises AccountError for a name that is taken, UsageError for a short password."""
        if not self.exist():
            remedy = f"Start the node with {ADMIN_PASSWORD}, and log in as {FIRST}"
            raise AccountError("the node has no account yet", account, remedy)
        _refuse_own_name(account)
        hashed = _hash_password(password, account)
        with self.database.write() as connection:
            if _row(connection, account) is not None:
                raise AccountError("there is an account of this name", account, "Choose another name")
            columns = {"account": account, "role": role, "password": hashed, "created_at": DatabaseClock()}
            connection.execute(insert(ACCOUNTS).values(columns))
            audit_records.record_change(connection, f"account {account}", None, {"role": role}, who)

    def change(
        self,
        account: str,
        *,
        role: str | None = None,
        ended: bool | None = None,
        password: str | None = None,
        who: Actor = NODE,
    ) -> None:
        """Give a person another role or password, or let nobody log in as this person; its sessions end.

        Raises AccountError where there is no such account, or where no administrator would be left.
        """
        changed: RowValues = {} if role is None else {"role": role}
        changed |= {} if password is None else {"password": _hash_password(password, account)}
        with self.database.write() as connection:
            # Of two at once the second waits, and sees what the first has left.
            administrators = select(ACCOUNTS.c.account).where(_is_open_administrator()).with_for_update()
            others = {row.account for row in connection.execute(administrators)} - {account}
            row = _row(connection, account)
            if row is None:
                raise AccountError("there is no such account", account, "See /api/accounts")
            if password is not None and row.subject is not None:
                raise AccountError("an OpenID provider vouches for this account", account, "Change the password there")
            if ended is not None and ended != (row.ended_at is not None):
                changed["ended_at"] = DatabaseClock() if ended else None
            is_lost = row.role == ADMINISTRATOR and (role not in (None, ADMINISTRATOR) or bool(ended))
            if is_lost and not others and row.ended_at is None:
                raise AccountError("nobody else is administrator", account, "Make another one first")
            if changed:
                connection.execute(update(ACCOUNTS).where(ACCOUNTS.c.account == account).values(changed))
                connection.execute(delete(SESSIONS).where(SESSIONS.c.account == account))
                old, is_ended = row.ended_at is not None, changed.get("ended_at", row.ended_at) is not None
                new = {"role": changed.get("role", row.role), "ended": is_ended}
                new |= {} if password is None else {"password": "another"}
                audit_records.record_change(
                    connection, f"account {account}", {"role": row.role, "ended": old}, new, who
                )

    def is_password(self, account: str, password: str, address: str) -> bool:
        """Whether a person may log in by this password.

        address: of the machine, where wrong ones are counted. Raises WaitError where it comes too soon after them.
        """
        attempt = _digest(f"{account}\0{address}")
        tried = Actor(account, "", address)
        try:
            with self.database.write() as connection:
                # Counted before it is looked at, so that of many at once only the first are.
                self._count(connection, attempt)
                row = _row(connection, account)
        except WaitError as error:
            self.record_failure(tried, error.problem)
            raise
        is_open = row is not None and row.password is not None and row.ended_at is None
        try:
            with HASHED_AT_ONCE:
                HASHER.verify(row.password if row is not None and is_open else _nobodys(), password)
        except (VerificationError, InvalidHashError):
            is_open = False
        if is_open:
            self.database.do(delete(FAILURES).where(FAILURES.c.attempt == attempt))
        else:
            self.record_failure(tried, "account or password is wrong")
        return is_open

    def record_failure(self, who: Actor, reason: str) -> None:
        """Write into the audit that somebody could not log in.

        A name of no account is left out: it may be a password that was typed in the wrong field.
        """
        with self.database.write() as connection:
            is_known = _row(connection, who.account) is not None
            who, thing = (who, f"account {who.account}") if is_known else (replace(who, account=""), "no account")
            audit_records.record_event(
                connection, "login", thing, actor=who, outcome=FAILURE, detail={"reason": reason}
            )

    def _count(self, connection: Connection, attempt: str) -> None:
        """One more attempt. Raises WaitError where it comes too soon."""
        connection.execute(delete(FAILURES).where(FAILURES.c.at < DatabaseClock() - FORGOTTEN_S))
        added = postgresql.insert(FAILURES) if self.database.skips_locked else sqlite.insert(FAILURES)
        connection.execute(added.values(attempt=attempt, count=0, at=0).on_conflict_do_nothing())
        here = FAILURES.c.attempt == attempt
        query = (
            select(FAILURES.c.count.label("wrong"), (DatabaseClock() - FAILURES.c.at).label("since"))
            .where(here)
            .with_for_update()
        )
        row = connection.execute(query).one()
        wait = min(LONGEST_WAIT_S, 2.0 ** (row.wrong - FREE_FAILURES)) if row.wrong >= FREE_FAILURES else 0.0
        if row.since < wait:
            raise WaitError(max(1.0, wait - row.since))
        connection.execute(update(FAILURES).where(here).values(count=FAILURES.c.count + 1, at=DatabaseClock()))

    def vouched_account(self, subject: str, account: str, role: str) -> str:
        """The account of whom an OpenID provider vouches for, with the role that it gives.

        Raises AccountError where the account has ended, or another one has its name.
        """
        _refuse_own_name(account)
        with self.database.write() as connection:
            row = connection.execute(select(ACCOUNTS).where(ACCOUNTS.c.subject == subject)).first()
            if row is None:
                if _row(connection, account) is not None:
                    remedy = "Have an administrator end that account, and the provider give another name"
                    raise AccountError("another account has this name", account, remedy)
                columns = {"account": account, "role": role, "subject": subject, "created_at": DatabaseClock()}
                connection.execute(insert(ACCOUNTS).values(columns))
                audit_records.record_change(connection, f"account {account}", None, {"role": role, "openid": True})
                self._exist = True
                return account
            if row.ended_at is not None:
                raise AccountError("this account has ended", row.account, "Ask an administrator")
            if row.role != role:
                connection.execute(update(ACCOUNTS).where(ACCOUNTS.c.account == row.account).values(role=role))
                audit_records.record_change(connection, f"account {row.account}", {"role": row.role}, {"role": role})
            return str(row.account)

    def enter(self, account: str, *, instead_of: str = "", address: str = "") -> str:
        """Begin a session; the secret that its browser keeps.

        instead_of: of a session that ends with it; address: of the machine
        """
        secret = secrets.token_urlsafe(32)
        with self.database.write() as connection:
            gone = or_(SESSIONS.c.session == _digest(instead_of), SESSIONS.c.used_at < DatabaseClock() - IDLE_S)
            connection.execute(delete(SESSIONS).where(gone))
            columns = {
                "session": _digest(secret),
                "account": account,
                "created_at": DatabaseClock(),
                "used_at": DatabaseClock(),
            }
            connection.execute(insert(SESSIONS).values(columns))
            role = str(connection.execute(select(ACCOUNTS.c.role).where(ACCOUNTS.c.account == account)).scalar_one())
            audit_records.record_event(connection, "login", f"account {account}", actor=Actor(account, role, address))
        return secret

    def leave(self, secret: str, *, who: Actor = NODE) -> None:
        """End a session."""
        with self.database.write() as connection:
            ended = delete(SESSIONS).where(SESSIONS.c.session == _digest(secret))
            if connection.execute(ended).rowcount:
                audit_records.record_event(connection, "logout", f"account {who.account}", actor=who)

    def session(self, secret: str, *, is_used: bool = True) -> LoginSession | None:
        """Who is logged in with this secret; None where the session has ended. is_used: it goes on for half an hour"""
        here = SESSIONS.c.session == _digest(secret)
        joined = SESSIONS.join(ACCOUNTS, SESSIONS.c.account == ACCOUNTS.c.account)
        idle = (DatabaseClock() - SESSIONS.c.used_at).label("idle")
        query = select(ACCOUNTS.c.account, ACCOUNTS.c.role, idle).select_from(joined)
        row = self.database.first(query.where(here, ACCOUNTS.c.ended_at.is_(None)))
        if row is None or row.idle > IDLE_S:
            return None
        if is_used and row.idle > NOTED_S:
            self.database.do(update(SESSIONS).where(here).values(used_at=DatabaseClock()))
        return LoginSession(row.account, row.role, csrf_token(secret))

    def make_token(self, name: str, role: str, ends_at: float, who: Actor) -> tuple[str, str]:
        """A machine's token: its key in the records, and itself, which nobody sees again. Raises AccountError."""
        key, token = secrets.token_hex(16), PREFIX + secrets.token_urlsafe(32)
        if not self.exist():
            # Who comes to a node without accounts has all rights; a token of that time would keep them.
            remedy = f"Start the node with {ADMIN_PASSWORD}, and log in as {FIRST}"
            raise AccountError("the node has no account yet", name, remedy)
        with self.database.write() as connection:
            if connection.execute(select(TOKENS.c.token).where(TOKENS.c.name == name)).first() is not None:
                raise AccountError("there is a token of this name", name, "Choose another name, or delete that one")
            columns = {"token": key, "name": name, "hash": _digest(token), "role": role, "ends_at": ends_at}
            connection.execute(insert(TOKENS).values(**columns, account=who.account, created_at=DatabaseClock()))
            audit_records.record_change(connection, f"token {name}", None, {"role": role, "ends_at": ends_at}, who)
        return key, token

    def tokens(self) -> Sequence[Row[Any]]:
        """All tokens by name, those that have ended too."""
        return self.database.rows(select(TOKENS).order_by(TOKENS.c.name))

    def end_token(self, key: str, *, who: Actor = NODE) -> bool:
        """Delete a token; False where there is none."""
        with self.database.write() as connection:
            gone = delete(TOKENS).where(TOKENS.c.token == key).returning(TOKENS.c.name, TOKENS.c.role)
            row = connection.execute(gone).first()
            if row is not None:
                audit_records.record_change(connection, f"token {row.name}", {"role": row.role}, None, who)
        return row is not None

    def machine(self, token: str) -> Actor | None:
        """The machine that has this token; None where it has ended."""
        query = select(TOKENS.c.name, TOKENS.c.role).where(
            TOKENS.c.hash == _digest(token), TOKENS.c.ends_at > DatabaseClock()
        )
        row = self.database.first(query)
        return None if row is None else Actor(f"{MACHINE}{row.name}", row.role)


def refuse_open_address(settings: NodeSettings) -> None:
    """Raise UsageError where others reach the address of HTTP, and nothing asks who they are."""
    http = settings.http
    if (
        configuration.is_loopback(http.host)
        or settings.oidc is not None
        or os.environ.get(TOKEN)
        or os.environ.get(ADMIN_PASSWORD)
    ):
        return
    address = make_url(settings.database_url)
    is_there = address.get_backend_name() != "sqlite" or Path(str(address.database)).exists()
    if not is_there or not _has_account(settings.database_url):
        problem, where = "others reach this address, and no token is set", f"http {http.host}:{http.port}"
        raise UsageError(problem, where, f"Set {ADMIN_PASSWORD} or {TOKEN}, or take 127.0.0.1")


def _has_account(url: str) -> bool:
    """Whether there is an account in the database of a URL, which need not have tables yet."""
    with closing(record_database.open_database(url)) as database, database.read() as connection:
        has_table = inspect(connection).has_table(ACCOUNTS.name)
        return has_table and bool(connection.execute(select(func.count()).select_from(ACCOUNTS)).scalar_one())


def _is_open_administrator() -> Any:
    return (ACCOUNTS.c.role == ADMINISTRATOR) & ACCOUNTS.c.ended_at.is_(None)


def _row(connection: Connection, account: str) -> Row[Any] | None:
    return connection.execute(select(ACCOUNTS).where(ACCOUNTS.c.account == account)).first()


def _refuse_own_name(account: str) -> None:
    """Raise AccountError for a name that the audit gives to the node, or to a machine."""
    if account == NODE.account or account.startswith(MACHINE):
        raise AccountError("the node itself uses this name", account, "Choose another name")


@cache
def _nobodys() -> str:
    """Hash to compare with where there is no such account: the answer takes as long, and does not tell."""
    return HASHER.hash(secrets.token_urlsafe())


def _hash_password(password: str, where: str) -> str:
    if not FEWEST_LETTERS <= len(password) <= MOST_LETTERS:
        problem = f"the password has {len(password)} letters"
        raise UsageError(problem, where, f"Take {FEWEST_LETTERS} to {MOST_LETTERS}")
    with HASHED_AT_ONCE:
        return HASHER.hash(password)


def _digest(secret: str) -> str:
    """SHA-256 of a secret that nobody can guess: what is kept in place of it needs no slow hash."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()


def csrf_token(secret: str) -> str:
    """Token that a page sends with every change: it follows from the secret, which no script reads."""
    return hmac.new(secret.encode(), b"csrf", "sha256").hexdigest()
