"""Who may ask for what over HTTP: each route with each role and with none."""

from __future__ import annotations

import re

import httpx
import pytest
from fastapi import APIRouter
from fastapi.staticfiles import StaticFiles

from hilum.errors import UsageError
from hilum.service.web import access
from service.people import PERSONS, logged_in, with_people

# Whatever a path names is not there: a request that is let in finds nothing, and changes nothing.
ABSENT = {"job": "0" * 32, "token": "0" * 32, "n": "0" * 32, "frames": "1"}


def test_a_route_that_does_not_state_its_roles_keeps_the_node_from_starting(tmp_path):
    forgotten, folder = APIRouter(), APIRouter()
    forgotten.add_api_route("/api/new", lambda: {})
    folder.mount("/files", StaticFiles(directory=tmp_path))
    for router in (forgotten, folder):
        with pytest.raises(UsageError, match="does not state who may ask for it"):
            access.open_routes([router])
    stated = APIRouter(dependencies=[access.require_roles(("viewer",))])
    stated.add_api_route("/api/new", lambda: {})
    assert access.open_routes([stated]) == []


@pytest.mark.parametrize("names", [(), ("boss",), ("viewer", "boss")])
def test_there_are_no_other_roles(names):
    with pytest.raises(ValueError, match="the roles are viewer, radiologist, administrator, service"):
        access.require_roles(names)


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A node with an account of each role."""
    with with_people(tmp_path_factory.mktemp("people") / "node") as web:
        yield web


@pytest.fixture(scope="module")
def operations(node):
    """Method and path of each operation that the node states, and the roles that may ask for it."""
    paths = logged_in(node, "viewer").get("/openapi.json").json()["paths"]
    found = {(method, path): one["x-roles"] for path, of in paths.items() for method, one in of.items()}
    assert len(found) > 50
    # What ends a session comes last: each operation is asked in one of the same person.
    return dict(sorted(found.items(), key=lambda one: one[0][1].endswith("/logout")))


def test_every_route_is_for_its_roles_alone(node, operations):
    client = logged_in(node, "administrator")
    machine = client.post("/api/tokens", json={"name": "pacs", "role": "service", "last_day": "2100-01-01"}).json()
    askers = {name: logged_in(node, name) for name in PERSONS}
    askers["service"] = httpx.Client(base_url=node.url, headers={"Authorization": f"Bearer {machine['secret']}"})
    askers[""] = httpx.Client(base_url=node.url)
    wrong = []
    for (method, path), allowed in operations.items():
        place = re.sub(r"\{(\w+)\}", lambda found: ABSENT.get(found[1], "9"), path)
        for role, asker in askers.items():
            with asker.stream(method, place) as answer:  # one of events never ends
                said = answer.read().decode() if answer.is_error else ""
            status, words = (403, "this is not for the role") if role else (401, "the token is missing")
            is_refused = answer.status_code == status and words in said
            if is_refused != {role, "anyone"}.isdisjoint(allowed) or answer.status_code == 500:
                wrong.append((method, path, role, answer.status_code))
    assert wrong == []


def test_nobody_who_only_views_changes_anything_and_only_administrators_make_others(operations):
    own = {"/api/login", "/api/logout", "/api/me/password"}
    changing = {key: allowed for key, allowed in operations.items() if key[0] != "get" and key[1] not in own}
    assert [key for key, allowed in changing.items() if {"viewer", "anyone"} & {*allowed}] == []
    of_people = {
        path: allowed for (_, path), allowed in operations.items() if re.match(r"/api/(accounts|tokens)", path)
    }
    assert set(map(tuple, of_people.values())) == {("administrator",)} and len(of_people) == 4
    opened = {path for (_, path), allowed in operations.items() if "anyone" in allowed}
    of_health = {f"{place}/health/{kind}" for place in ("", "/v2") for kind in ("live", "ready")}
    assert opened == {*of_health, "/api/login", "/api/login/openid", "/api/login/openid/answer"}
