"""What references get that cannot be, or that teach nothing: a finding with its remedy, or one clear line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import hilum
from hilum.values import Problem


def pictures(root: Path, count: int) -> Path:
    """Pictures of noise, 0.png, 1.png, ..."""
    root.mkdir(parents=True)
    for n in range(count):
        pixels = np.random.default_rng(n).integers(0, 255, (20, 24), np.uint8)
        PIL.Image.fromarray(pixels).save(root / f"{n}.png")
    return root


def boxed(root: Path, *rows: str) -> Path:
    """Six pictures, of which 0 to 3 have a cell each, and these rows besides."""
    pictures(root, 6)
    usual = [f"{n}.png,cell,2,3,8,9" for n in range(4)]
    (root / "boxes.csv").write_text("\n".join(["image,label,x0,y0,x1,y1", *usual, *rows]))
    return root


def classed(root: Path, names: Sequence[object], parts: Sequence[str] = ()) -> Path:
    """A picture of each class in turn, in a table."""
    pictures(root, len(names))
    split = parts or [""] * len(names)
    rows = [f"{n}.png,p{n},{name},{part}" for n, (name, part) in enumerate(zip(names, split, strict=True))]
    (root / "cases.csv").write_text("\n".join(["image,patient,class,split", *rows]))
    return root / "cases.csv"


def problems(data: Path, **flags: object) -> list[Problem]:
    return list(hilum.check(data, threads=1, **flags).problems)


def the(found: Sequence[Problem], words: str) -> Problem:
    [one] = [problem for problem in found if words in problem.what]
    return one


def test_a_box_outside_its_image_takes_that_case_out_and_is_named_with_its_row(tmp_path):
    one = the(problems(boxed(tmp_path / "data", "4.png,cell,30,3,40,9")), "lies outside the image")
    assert (one.severity, one.cases) == ("error", ("4",))
    assert "row 6 (cell)" in one.what


def test_a_box_of_no_area_is_left_out_and_said(tmp_path):
    one = the(problems(boxed(tmp_path / "data", "4.png,cell,3,3,3,9", "4.png,cell,2,3,8,9")), "has no extent")
    assert (one.severity, one.cases) == ("warning", ("4",))


def test_an_image_without_boxes_is_a_note_and_images_without_any_are_refused(cli, tmp_path):
    assert the(problems(boxed(tmp_path / "one", "4.png,,,,,")), "boxes is empty").severity == "note"
    pictures(tmp_path / "all", 6)
    rows = "\n".join(f"{n}.png,,,,," for n in range(6))
    (tmp_path / "all" / "boxes.csv").write_text(f"image,label,x0,y0,x1,y1\n{rows}")
    done = cli("train", tmp_path / "all", "--out", tmp_path / "run", "--device", "cpu")
    assert (done.code, "every list of boxes is empty: all 6" in done.last) == (1, True)
    assert not (tmp_path / "run").exists()


def test_a_kind_of_box_that_only_the_test_part_has_is_named(tmp_path):
    pictures(tmp_path / "data", 6)
    rows = [f"{n}.png,{'clump' if n > 3 else 'cell'},2,3,8,9,{'test' if n > 3 else 'train'}" for n in range(6)]
    (tmp_path / "data" / "boxes.csv").write_text("\n".join(["image,label,x0,y0,x1,y1,split", *rows]))
    assert "clump" in the(problems(tmp_path / "data"), "nowhere annotated in the cases that train").what


def test_a_gap_in_grades_is_a_note_that_says_what_it_does_to_their_distances(tmp_path):
    one = the(problems(classed(tmp_path / "data", [0, 1, 3] * 4)), "no case has 2")
    assert one.severity == "note"
    assert "a gap counts as one step" in one.why


def test_a_class_that_only_the_test_part_has_is_named_with_its_cases(tmp_path):
    names, parts = ["a", "b"] * 5 + ["c"] * 3, ["train"] * 8 + ["test"] * 5
    found = problems(classed(tmp_path / "data", names, parts))
    one = the(found, "no case that trains is of the class c")
    assert (one.severity, one.cases) == ("warning", ("10", "11", "12"))
    assert not [problem for problem in found if "few of a class" in problem.what]


@pytest.mark.parametrize(("known", "counts"), [("1", "4 of the cases that train have it and 0 do not"), ("0", "0 of")])
def test_a_finding_that_all_cases_that_train_have_or_none_is_named_and_not_learnt(tmp_path, known, counts):
    pictures(tmp_path / "data", 6)
    rows = [
        f"{n}.png,p{n},{n % 2},{known if n < 4 else 1 - int(known)},{'train' if n < 4 else 'test'}" for n in range(6)
    ]
    (tmp_path / "data" / "cases.csv").write_text("\n".join(["image,patient,EFF,NOD,split", *rows]))
    column = {"finding:effusion": "EFF", "finding:nodule": "NOD"}
    one = the(problems(tmp_path / "data" / "cases.csv", column=column), "finding nodule")
    assert counts in one.what
    assert "the plan leaves it out" in one.why
