"""Every method of explanation on every family, in every number of axes, for every kind of answer: `make test-all`.

    python bench/explanations_matrix.py [NAME...] [--minutes 25] [--out docs/explanations-matrix.md]

Networks are those of `networks_matrix`, with random weights, on one image with two balls. A cell says whether
the map is finite and on the image's grid, or why the method cannot explain such a network; anything else is a failure,
and the exit is then 1. Kinds of problem that answer for the whole image share their heads: the first family of each
number of axes is tried with all of them. Families that are named have their rows on the page exchanged; the others
stay.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import networks_matrix
import numpy as np
import torch

from hilum.explanation import answer_maps
from hilum.explanation.case_on_grid import UnfitError
from hilum.explanation.explanation_methods import METHODS
from hilum.networks import factory, member_catalogue
from hilum.runtime import Model, Preprocessing
from hilum.runtime.inference import Inference
from hilum.runtime.torch_networks import Differentiable, Networks, TorchNetwork
from hilum.tasks import Task, task_catalogue
from hilum.transforms.intensity import Normalisation
from hilum.values import Geometry, Image

ROOT = Path(__file__).resolve().parent.parent
NOT_TRIED = networks_matrix.NOT_TRIED
# Of each map by random masks: enough to see that there is one.
SECONDS = 0.2
FOLLOWED = {"time": [], "share": []}
# Kinds of problem with an answer for the whole image; "vector" stands for classification.
WHOLE: Mapping[str, Mapping[str, Any]] = {
    "classification": {"classes": ["bright", "dark"], "smoothing": 0.0},
    "findings": {"findings": ["bright", "dark"]},
    "regression": {"targets": ["size"], "mean": {"size": 1.0}, "deviation": {"size": 1.0}, "units": {"size": "mm"}},
    "survival": {
        "model": "cox", "horizons": [5.0, 10.0], "scale": 6.0, "edges": [2.0, 5.0], "followed": 10.0,
        "censoring": FOLLOWED,
    },
}  # fmt: skip
BOTH = {
    "classification.classes": ["bright", "dark"],
    "classification.smoothing": 0.0,
    "segmentation.labels": [{"value": 1, "name": "ball"}],
    "segmentation.loss": "dice+ce",
    "segmentation.tolerance": 2.0,
}


@dataclass(frozen=True)
class Cell:
    """A family in so many axes with a kind of problem."""

    name: str
    axes: int
    kind: str

    @property
    def task(self) -> Task:
        """With as few settings as there can be."""
        if self.kind == "multitask":
            return task_catalogue.build_task({"name": "classification+segmentation", **BOTH})
        if self.kind in WHOLE:
            return task_catalogue.build_task({"name": self.kind, **WHOLE[self.kind]})
        return networks_matrix.task_of(networks_matrix.Combination(self.name, self.axes, self.kind))


@dataclass
class Outcome:
    """{method: "yes", or why not}, and what went wrong."""

    methods: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


def cells(names: Iterable[str]) -> Iterator[Cell]:
    """Every family with every head, the first of each number of axes with every kind of problem."""
    seen = set[tuple[int, str]]()
    for member in factory.family_members(names):
        for head in member.tasks:
            kinds = ["classification"] if head == "vector" else [head]
            if (member.axes, head) not in seen:
                kinds += [kind for kind in WHOLE if kind not in kinds] if head == "vector" else []
                kinds += ["multitask"] if head == "dense" and "vector" in member.tasks else []
            seen.add((member.axes, head))
            yield from (Cell(member.name, member.axes, kind) for kind in kinds)


def model_of(cell: Cell) -> Model:
    """The smallest model of the cell, with random weights."""
    torch.manual_seed(0)
    task = cell.task
    head = cell.kind if cell.kind in ("dense", "boxes", "objects") else "vector"
    head = "dense" if cell.kind == "multitask" else head
    patch = networks_matrix._smallest(networks_matrix.Combination(cell.name, cell.axes, head))
    size, _, _ = factory.size_for(cell.name, patch, member_catalogue.plan_strides(patch), "cpu", task.heads)
    module = factory.build(cell.name, 1, cell.axes, task.heads, size).eval()
    network = {"name": cell.name, "channels": 1, "spatial_dims": cell.axes, "size": dict(size)}
    preprocessing = Preprocessing(cell.axes, ("0",), (Normalisation("window", -10, 10),))
    return Model(task, preprocessing, Inference(tuple(patch)), Networks(TorchNetwork(module), network))


def outcome(cell: Cell, methods: Sequence[str] = tuple(METHODS)) -> Outcome:
    """Each method on one image."""
    made = Outcome()
    try:
        model = model_of(cell)
        torch_model = Differentiable.from_networks(model.networks)
    except Exception as error:  # torch, the libraries and the families raise what they like: that is looked for
        made.failed.append(f"{type(error).__name__}: {error}")
        return made
    shape = model.inference.patch
    images, _, _ = networks_matrix.scene(cell.axes, shape[0], "vector", 0)
    image = Image(images[0].numpy(), Geometry(shape, np.eye(cell.axes + 1)))
    for name in methods:
        try:
            found = answer_maps.explain_case(model, image, METHODS[name], seconds=SECONDS, torch_model=torch_model).data
            sound = found.shape == shape and bool(np.isfinite(found).all())
            made.methods[name] = "yes" if sound else "no"
            made.failed += [] if sound else [f"{name}: a map of {found.shape} in place of {shape}, or not finite"]
        except UnfitError as error:
            made.methods[name] = error.reason
        except Exception as error:  # as above
            made.methods[name] = "no"
            made.failed.append(f"{name}: {type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}")
    return made


@dataclass(frozen=True)
class Lines:
    """What the page says, line by line.

    rows: (family, axes, kinds of answer, {method: "yes", "no", or why not}) of kinds whose methods come to the same
    """

    rows: Sequence[tuple[str, str, str, Mapping[str, str]]]
    wrong: Sequence[str]
    untried: Sequence[str]

    @classmethod
    def from_outcomes(cls, outcomes: Mapping[Cell, Outcome], left: Sequence[Cell] = ()) -> Lines:
        """left: what there was no time for"""
        alike: dict[tuple[str, tuple[str, ...]], list[Cell]] = {}
        for cell, one in outcomes.items():
            words = tuple(one.methods.get(name, "no") for name in METHODS)
            alike.setdefault((cell.name, words), []).append(cell)
        rows = []
        for (name, words), own in alike.items():
            by_axes: dict[str, list[str]] = {}
            for kind in dict.fromkeys(cell.kind for cell in own):
                axes = ", ".join(str(axes) for axes in sorted({cell.axes for cell in own if cell.kind == kind}))
                by_axes.setdefault(axes, []).append(networks_matrix.WORDS.get(kind, kind))
            said = dict(zip(METHODS, words, strict=True))
            rows += [(name, axes, ", ".join(kinds), said) for axes, kinds in by_axes.items()]
        wrong = [
            f"- `{cell.name} {cell.axes} {cell.kind}`: {why}" for cell, one in outcomes.items() for why in one.failed
        ]
        untried = dict[tuple[str, int], list[str]]()
        for cell in left:
            untried.setdefault((cell.name, cell.axes), []).append(cell.kind)
        return cls(
            rows, wrong, [f"- `{name}`, {axes} axes: {', '.join(kinds)}" for (name, axes), kinds in untried.items()]
        )

    @classmethod
    def from_page(cls, text: str) -> Lines:
        told, _, untried = text.partition(NOT_TRIED)
        reasons = dict(re.findall(r"^(\d+)\. (.*)$", told, re.MULTILINE))
        rows = []
        for line in told.splitlines():
            if line.startswith("| `"):
                name, axes, kinds, *words = line.strip("| ").split(" | ")
                said = [reasons.get(word, word) for word in words]
                rows.append((name.strip("`"), axes, kinds, dict(zip(METHODS, said, strict=True))))
        wrong = [line for line in told.splitlines() if line.startswith("- `")]
        return cls(rows, wrong, [line for line in untried.splitlines() if line.startswith("- `")])

    def exchange(self, newer: Lines, names: Sequence[str]) -> Lines:
        """These lines, those about the named families exchanged for newer ones."""
        kept_rows = [row for row in self.rows if row[0] not in names]
        rows = sorted([*kept_rows, *newer.rows], key=lambda row: row[0])
        wrong, untried = (
            networks_matrix.exchange_lines(*lines, names)
            for lines in ((self.wrong, newer.wrong), (self.untried, newer.untried))
        )
        return Lines(rows, wrong, untried)


def page(lines: Lines) -> str:
    """The table, and under it why a method cannot be."""
    reasons = sorted({why for *_, said in lines.rows for why in said.values() if why not in ("yes", "no")})
    numbers = {why: str(n) for n, why in enumerate(reasons, start=1)}
    text = [
        "# Every method of explanation on every network",
        "",
        "Written by `make test-all`: networks with random weights, on a small image; `make matrix NAME=unet` "
        "tries one family and exchanges its rows. *yes*: the map is finite "
        "and on the image's grid. A number is the reason, below, for which the method cannot explain such a network; "
        "`explain` refuses it by name with the same words. A backend without torch has `occlusion` and `rise`.",
        "",
        "| family | axes | answers for | " + " | ".join(f"`{name}`" for name in METHODS) + " |",
        "|---|---|---|" + "---|" * len(METHODS),
    ]
    for name, axes, kinds, said in lines.rows:
        text.append(f"| `{name}` | {axes} | {kinds} | {' | '.join(numbers.get(why, why) for why in said.values())} |")
    text += ["", *(f"{number}. {why}" for why, number in numbers.items())]
    text += ["", "## Failures", "", *lines.wrong] if lines.wrong else []
    text += ["", NOT_TRIED, "", *lines.untried] if lines.untried else []
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="families; all of them if none is named")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin nothing more after so long")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "explanations-matrix.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    until, outcomes = time.monotonic() + 60 * given.minutes, dict[Cell, Outcome]()
    everything = sorted(cells(given.names or factory.family_names()), key=lambda cell: (cell.axes == 3, cell.axes != 2))
    for cell in everything:
        if time.monotonic() > until:
            break
        began = time.monotonic()
        outcomes[cell] = outcome(cell)
        words = outcomes[cell].failed or sum(word == "yes" for word in outcomes[cell].methods.values())
        print(f"{cell.name} {cell.axes} {cell.kind}: {words} ({time.monotonic() - began:.1f} s)", flush=True)
    left = [cell for cell in everything if cell not in outcomes]
    ordered = {cell: outcomes[cell] for cell in cells(given.names or factory.family_names()) if cell in outcomes}
    made = Lines.from_outcomes(ordered, left)
    if given.names:
        made = Lines.from_page(given.out.read_text(encoding="utf-8")).exchange(made, given.names)
    given.out.write_text(page(made), encoding="utf-8")
    wrong = sum(len(one.failed) for one in outcomes.values())
    print(f"{len(outcomes)} networks, {wrong} failures")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
