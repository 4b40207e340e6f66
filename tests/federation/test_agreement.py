"""Who differs is told what, and by which site; nobody takes a step before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hilum.errors import DatasetError, IntegrityError
from hilum.federation import agreement
from hilum.federation.agreement import Introduction

LABELS = ((0, "background"), (1, "shell"), (2, "core"))
ONE = Introduction("0.1", "segmentation", ("CT",), 3, "mm", "CT", False, True, {"mask": LABELS})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": "0.2"}, "version 0.2, where a has 0.1"),
        ({"channels": ("CT", "PET")}, "channels CT, PET, where a has CT"),
        ({"unit": "pixels"}, "unit pixels, where a has mm"),
        ({"axes": 2}, "axes 2, where a has 3"),
        ({"task": "instances"}, "task instances"),
        ({"classes": {"mask": (LABELS[0], (1, "core"), (2, "shell"))}}, "classes background, core, shell"),
        ({"classes": {"mask": LABELS[:2]}}, "where a has background, shell, core"),
    ],
)
def test_the_site_that_differs_is_named_with_what(change, words):
    with pytest.raises(DatasetError, match=words) as caught:
        agreement.agree({"a": ONE, "b": replace(ONE, **change)})
    assert caught.value.where == "b"


def test_names_that_nobody_declares_are_joined_and_sites_without_a_common_one_are_refused():
    found = {
        site: replace(ONE, classes={}, found={"class": names})
        for site, names in {"a": ("benign", "normal"), "b": ("malign", "normal")}.items()
    }
    assert [name for _, name in agreement.agree(found).classes["class"]] == ["benign", "normal", "malign"]
    found["b"] = replace(ONE, classes={}, found={"class": ("cat",)})
    with pytest.raises(DatasetError, match="none of the classes that the others have"):
        agreement.agree(found)


def test_a_structure_is_known_at_one_site_at_least():
    sites = {"a": replace(ONE, unknown=("core",)), "b": replace(ONE, unknown=("shell",))}
    assert agreement.agree(sites).unknown == ()
    with pytest.raises(DatasetError, match="no site knows core"):
        agreement.agree({**sites, "b": sites["a"]})


def test_an_introduction_travels_and_anything_else_is_refused():
    assert agreement.read_introduction(ONE.record, "a") == ONE
    with pytest.raises(IntegrityError, match="axes"):
        agreement.read_introduction({**ONE.record, "axes": "many"}, "a")
