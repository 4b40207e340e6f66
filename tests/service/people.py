"""A node that asks who everybody is, and persons and machines who come to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import httpx
from argon2 import PasswordHasher

from hilum.service.records import accounts as records
from hilum.service.records.actor import NODE
from service.databases import with_tables
from service.web_served import Served, served

PASSWORD = "correct horse battery"  # noqa: S105 - of accounts in tests alone
PERSONS = ("viewer", "radiologist", "administrator")  # each an account of its role


@contextmanager
def with_people(folder: Path, **changes) -> Iterator[Served]:
    """A node's web process, and an account of each role by its name."""
    # A hash that is as slow as it has to be takes a tenth of a second, and these tests log in often.
    with patch.object(records, "HASHER", PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1)):
        database = with_tables(f"sqlite:///{folder / 'node.sqlite'}")
        accounts = records.Accounts(database)
        accounts.first(PASSWORD)
        for role in PERSONS[:2]:
            accounts.make(role, role, PASSWORD, who=NODE)
        database.close()
        with served(folder, **changes) as web:
            yield web


def logged_in(web: Served, account: str, password: str = PASSWORD) -> httpx.Client:
    """A browser in which a person has logged in."""
    browser = httpx.Client(base_url=web.url, timeout=60)
    answer = browser.post("/api/login", json={"account": account, "password": password})
    assert answer.status_code == 200, answer.text
    browser.headers["X-CSRF-Token"] = answer.json()["csrf"]
    return browser
