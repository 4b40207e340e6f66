from __future__ import annotations

import json

import pytest

from hilum.networks import factory, member_catalogue
from hilum.values import Dense, Vector

RESULTS = {"resnet": [0.97, 0.95, 0.99], "vgg": [0.98, 0.96, 0.99], "lenet": [0.91, 0.88, 0.94]}


@pytest.fixture
def three_families(tmp_path, monkeypatch):
    """A file of figures of three families on pictures."""
    one = {
        "on": "a set",
        "answers": "vector",
        "axes": 2,
        "metric": "auroc",
        "minutes": 3,
        "cores": 1,
        "seeds": 1,
        "results": RESULTS,
    }
    file = tmp_path / "measured.json"
    file.write_text(json.dumps({"measured": [one]}))
    monkeypatch.setattr(member_catalogue, "FILE", file)
    member_catalogue.family_measurements.cache_clear()
    yield
    member_catalogue.family_measurements.cache_clear()


@pytest.mark.usefixtures("three_families")
def test_a_family_is_said_to_be_apart_from_the_first_only_where_their_intervals_are():
    heads = {"class": Vector(2)}
    assert (
        "rank 2 of 3 families measured; the best is vgg with 0.980, whose interval overlaps"
        in member_catalogue.family_standing("resnet", heads, 2)
    )
    assert "3 of 3" in member_catalogue.family_standing("lenet", heads, 2)
    assert "the intervals are apart" in member_catalogue.family_standing("lenet", heads, 2)
    assert member_catalogue.family_standing("vgg", heads, 2).endswith(", the best of 3 families measured")


@pytest.mark.usefixtures("three_families")
def test_nothing_is_said_of_what_was_not_measured():
    assert member_catalogue.family_standing("vit", {"class": Vector(2)}, 2) == ""
    assert member_catalogue.family_standing("vgg", {"class": Vector(2)}, 3) == ""
    assert member_catalogue.family_standing("vgg", {"mask": Dense(2)}, 2) == ""
    assert member_catalogue.family_standing("vgg", {"class": Vector(2), "mask": Dense(2)}, 2) == ""


def test_every_family_that_was_measured_is_one_that_there_is():
    for one in member_catalogue.family_measurements():
        assert set(one.results) <= set(factory.family_names())
        assert all(low <= value <= high for value, low, high in one.results.values())
