"""Who may ask for what over HTTP."""

from __future__ import annotations

import pytest
from fastapi import APIRouter
from fastapi.staticfiles import StaticFiles

from isocenter.errors import UsageError
from isocenter.service.web.access import open_routes, roles


def test_a_route_that_does_not_state_its_roles_keeps_the_node_from_starting(tmp_path):
    forgotten, folder = APIRouter(), APIRouter()
    forgotten.add_api_route("/api/new", lambda: {})
    folder.mount("/files", StaticFiles(directory=tmp_path))
    for router in (forgotten, folder):
        with pytest.raises(UsageError, match="does not state who may ask for it"):
            open_routes([router])
    stated = APIRouter(dependencies=[roles("viewer")])
    stated.add_api_route("/api/new", lambda: {})
    assert open_routes([stated]) == []


@pytest.mark.parametrize("names", [(), ("boss",), ("viewer", "boss")])
def test_there_are_no_other_roles(names):
    with pytest.raises(ValueError, match="the roles are viewer, radiologist, administrator, service"):
        roles(*names)
