"""Every method on a network of each kind of problem; `make test-all` has all of them (bench/explanations_matrix.py)."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from hilum.explanation.explanation_methods import METHODS
from matrices import thinned

BENCH = Path(__file__).parents[2] / "bench"
VECTOR = dict.fromkeys(("attention", "attention_gradients"), "is not computed by attention among all patches")
AROUND = dict.fromkeys(VECTOR, "on paths that bypass its attention")
DENSE = {**VECTOR, "cam": "no linear layer follows"}
TOKENS = dict.fromkeys(("cam", "gradcam", "gradcam++", "scorecam"), "are a vector, which has no place in the image")


@pytest.fixture
def matrix(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    made = importlib.import_module("explanations_matrix")
    monkeypatch.setattr(made, "SECONDS", 0.02)
    return made


@pytest.mark.parametrize(
    ("name", "axes", "kind", "refused"),
    thinned(
        4,
        [
            ("resnet", 1, "classification", VECTOR),
            ("resnet", 2, "findings", VECTOR),
            ("resnet", 2, "regression", VECTOR),
            ("resnet", 2, "survival", VECTOR),
            ("timm", 2, "classification", VECTOR),
            ("clip_resnet", 2, "classification", {**VECTOR, "cam": "no linear layer follows"}),
            ("vit", 2, "classification", TOKENS),
            ("unetr", 2, "classification", {}),
            ("transunet", 1, "dense", {**AROUND, "cam": "no linear layer follows"}),
            ("unet", 2, "dense", DENSE),
            ("unet", 2, "objects", DENSE),
            ("unet", 1, "boxes", DENSE),
            ("unet", 2, "multitask", DENSE),
        ],
    ),
)
def test_each_method_makes_a_map_or_says_why_it_cannot(name, axes, kind, refused, matrix):
    found = matrix.outcome(matrix.Cell(name, axes, kind))
    assert found.failed == []
    assert {method for method, word in found.methods.items() if word == "yes"} == set(METHODS) - set(refused)
    assert all(reason in found.methods[method] for method, reason in refused.items())


def test_a_volume_cut_into_slices_has_maps_in_which_the_slices_lie_one_after_the_other(matrix):
    found = matrix.outcome(matrix.Cell("unet_slices", 3, "dense"), ["gradcam"])
    assert (found.failed, found.methods) == ([], {"gradcam": "yes"})


def test_a_network_that_paints_over_its_numbers_has_no_gradients_and_says_so(matrix):
    found = matrix.outcome(matrix.Cell("faster_rcnn", 2, "boxes"), ["gradcam"])
    assert found.failed == []
    assert found.methods["gradcam"] in ("yes", "its network overwrites values that gradients need")


def test_the_page_numbers_the_reasons_and_names_what_was_not_tried(matrix):
    cell, other = matrix.Cell("lenet", 2, "classification"), matrix.Cell("vit", 3, "classification")
    told = {cell: matrix.Outcome({"gradcam": "yes", "cam": "for a reason"}, ["cam: wrong"])}
    page = matrix.page(matrix.Lines.from_outcomes(told, [other]))
    assert "| `lenet` | 2 | classification | 1 | yes |" in page
    assert "1. for a reason" in page
    assert "- `lenet 2 classification`: cam: wrong" in page
    assert "- `vit`, 3 axes: classification" in page


def test_a_family_that_is_tried_by_itself_has_its_own_rows_exchanged_with_reasons_numbered_anew(matrix):
    def told(name, reason):
        outcome = matrix.Outcome({"gradcam": "yes", "cam": reason})
        return matrix.Lines.from_outcomes({matrix.Cell(name, 2, "classification"): outcome})

    before = matrix.Lines.from_page(matrix.page(told("vit", "because of z")))
    both = before.exchange(told("lenet", "because of a"), ["lenet"])
    page = matrix.page(both.exchange(told("lenet", "because of b"), ["lenet"]))
    assert "| `lenet` | 2 | classification | 1 | yes |" in page
    assert "| `vit` | 2 | classification | 2 | yes |" in page
    assert "1. because of b\n2. because of z\n" in page
    assert matrix.page(matrix.Lines.from_page(page)) == page
