"""What `make test-all` says of a family: what holds, and what is advertised and does not."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from hilum import networks
from matrices import only

BENCH = Path(__file__).parent.parent / "bench"
FAMILY = """
import torch
from torch import nn

from hilum.networks import Family


class Broken(nn.Module):
    def __init__(self, channels, spatial_dims, vectors, width=4):
        super().__init__()
        self.body = nn.Conv1d(channels, width, 3)
        self.vectors = nn.ModuleDict({name: nn.Linear(width, size) for name, size in vectors.items()})

    def forward(self, images, context=None):
        maps = self.body(images)
        return {name: layer(FEATURES) for name, layer in self.vectors.items()}


FAMILY = Family(build=Broken, answers=frozenset({"vector"}), axes=(1,), otherwise="lenet")
"""
WRONG = {
    "not finite in training": ("maps.mean(dim=2) * (torch.nan if self.training else 1)", "the loss is not finite"),
    "a root of nothing": ("(0 * maps.mean(dim=2)).sqrt()", "gradients are not finite"),
    "blind": ("0 * maps.mean(dim=2)", "the loss fell to"),
    "one answer for all": ("maps.mean(dim=2)[:1]", r"class is (1, 2) in place of (2, 2)"),
    "other words each time": ("maps.mean(dim=2) + torch.rand(1)", "the copy of its file answers otherwise"),
}


@pytest.fixture
def matrix(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("networks_matrix")


@pytest.mark.whole
def test_a_family_that_holds_what_it_advertises_has_no_failure_and_a_row(matrix, monkeypatch):
    combinations = list(matrix.combinations(["lenet"]))
    assert {(one.axes, one.head, one.context) for one in combinations} == {
        (axes, "vector", context) for axes in (1, 2, 3) for context in (0, matrix.CONTEXT)
    }
    stated = matrix.outcome(combinations[1])
    assert (stated.failed, stated.forward, stated.backward, stated.copied) == ([], "yes", "yes", "yes")
    assert float(stated.onnx) < 1e-4
    page = matrix.page(matrix.Lines.from_outcomes({combinations[1]: stated}, combinations[2:]))
    assert "| `lenet` | 1 | the image | yes |" in page
    assert page.count("- `lenet ") == len(combinations) - 2


@pytest.mark.parametrize("which", only(["blind", "one answer for all"], WRONG))
def test_what_is_advertised_and_does_not_hold_is_a_failure(which, matrix, monkeypatch, tmp_path):
    features, says = WRONG[which]
    name = f"broken{list(WRONG).index(which)}"
    (tmp_path / f"{name}.py").write_text(FAMILY.replace("FEATURES", features))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(networks.NETWORKS, name, f"{name}:FAMILY")
    monkeypatch.setattr(
        matrix.onnx_export, "write_onnx", lambda *_, **__: {"exported": False, "because": "not looked at"}
    )
    monkeypatch.setattr(matrix, "STEPS", 10)
    [one] = matrix.combinations([name])
    assert any(says in stated for stated in matrix.outcome(one).failed)
    sys.modules.pop(name, None)


def test_a_family_that_is_tried_by_itself_has_its_own_rows_exchanged_and_no_others(matrix):
    lenet, vgg = ([matrix.Combination(name, axes, "vector") for axes in (1, 2)] for name in ("lenet", "vgg"))
    learnt = matrix.Outcome(overfits="in 3 steps", onnx="1.0e-07")
    failed = matrix.Outcome(failed=["the loss fell to 0.90 only"])
    before = matrix.Lines.from_outcomes(dict.fromkeys([*lenet, *vgg], learnt))
    later = matrix.Lines.from_outcomes(dict.fromkeys(vgg, failed))
    page = matrix.page(matrix.Lines.from_page(matrix.page(before)).exchange(later, ["vgg"]))
    kept, changed = [line for line in page.splitlines() if line.startswith("| `")]
    assert kept == before.rows[0]
    assert changed == later.rows[0] != before.rows[1]
    assert "2 families." in page
    assert page.count("- `vgg ") == 2
    assert matrix.page(matrix.Lines.from_page(page)) == page
