from __future__ import annotations

import numpy as np
import pytest

from hilum.planning.rules import split_rules
from hilum.quality import dataset_examination, references
from hilum.quality.references import REFERENCES
from hilum.values import Case, Dataset, Geometry, Image, ReferenceFacts, ReferenceKind, ReferenceWords
from hilum.values.reference_kind import ReferenceStrata


def sides_of(cases):
    return {case.id: [case.references["side"]] for case in cases if "side" in case.references}


SIDE = ReferenceKind(
    "side",
    facts=ReferenceFacts(answers=lambda side: {"": str(side)}),
    strata=ReferenceStrata(sides_of),
    words=ReferenceWords("sides", "the side can be told"),
)


@pytest.fixture
def with_sides(monkeypatch):
    """The kinds of the index and one more."""
    monkeypatch.setitem(REFERENCES, "side", f"{__name__}:SIDE")
    monkeypatch.setattr(references, "_import_kind", lambda line: SIDE if line.endswith(":SIDE") else IMPORTED(line))


IMPORTED = references._import_kind


def cohort(count=40):
    """Every fourth image shows the right side, and is larger; the last two show one picture with two sides."""
    grids = [Geometry.of_pixels((30, 24) if n % 4 else (40, 24)) for n in range(count)]
    pixels = [np.random.default_rng(n).random((1, *grid.shape)) for n, grid in enumerate(grids)]
    grids[-2], pixels[-2] = grids[-4], pixels[-4]
    pixels[-1], grids[-1] = pixels[-4], grids[-4]
    cases = tuple(
        Case(f"c{n}", f"p{n}", {"image": Image(pixels[n], grids[n])}, {"side": "left" if n % 4 else "right"})
        for n in range(count)
    )
    return Dataset(cases, patients_known=True)


def test_each_line_of_the_index_is_a_kind_of_its_name():
    assert [kind.name for kind in references.reference_kinds()] == list(REFERENCES)


def test_a_reference_of_no_kind_has_a_kind_that_states_nothing():
    [mask, unknown] = references.kinds_by_names(["bearing", "mask"])
    assert mask.name == "mask" and unknown == ReferenceKind("bearing")


def test_a_new_kind_is_checked_for_shortcuts_and_contradictions_and_spread_over_a_split(with_sides):
    dataset = cohort()
    found = dataset_examination.examine(dataset)
    assert any(one.what.startswith("the side can be told by image size alone") for one in found.problems)
    assert any("the same image with different sides" in one.what for one in found.problems)
    parts, _ = split_rules.split_dataset(dataset, seed=0)
    assert {one.references["side"] for one in dataset if parts[one.id] == "test"} == {"left", "right"}
