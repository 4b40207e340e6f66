"""Masks teach a detection: boxes around what they show, from `check` to `evaluate`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from numpy.testing import assert_array_equal

import hilum
import trained
from cohorts import volume
from hilum.values import Case, Dataset, Geometry, Image


def smears(root: Path, count: int, *, numbered: bool = False) -> Path:
    """Pictures of two or three bright squares beside label maps: 1 for all, or a number each."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for n in range(count):
        rng = np.random.default_rng(n)
        pixels, mask = rng.normal(60, 8, (24, 32)), np.zeros((24, 32), np.uint16)
        for number, column in enumerate((2, 12, 22)[n % 2 :], start=1):
            row, size = int(rng.integers(1, 12)), int(rng.integers(5, 9))
            pixels[row : row + size, column : column + size] = 200
            mask[row : row + size, column : column + size] = number if numbered else 1
        mask[mask > 0] += 40 * n if numbered else 0
        PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / "images" / f"{n:02}.png")
        PIL.Image.fromarray(mask).save(root / "masks" / f"{n:02}.png")
    return root


@pytest.mark.whole
def test_a_run_is_planned_trained_and_scored_on_boxes_of_masks(tmp_path, cli):
    data = smears(tmp_path / "data", 16)
    done = cli("check", data, "--task", "detection", "--labels", "1=cell", "--out", tmp_path / "check")
    assert done.code == 0, done.err
    assert "boxes: cell 40 in 16 cases; one around each piece of a structure in the masks" in done.out
    run = trained.detecting(data, tmp_path / "run", task="detection", labels="1=cell")
    plan = (run.out / "plan.yaml").read_text()
    assert "one around each piece" in " ".join(plan.split())
    assert {row.label for row in run.rows} == {"all", "cell"}
    again = hilum.evaluate(run.out, data, device="cpu")
    assert_array_equal([row.estimate.value for row in again.rows], [row.estimate.value for row in run.rows])


@pytest.mark.whole
def test_numbers_of_objects_are_told_by_a_flag_and_never_guessed(tmp_path, cli):
    data = smears(tmp_path / "data", 16, numbered=True)
    refused = cli("check", data, "--task", "detection", "--out", tmp_path / "check")
    assert refused.code == 1
    assert "--labels each=NAME" in refused.out + refused.err
    found = hilum.check(data, task="detection", labels="each=nucleus")
    assert found.passed, found
    assert found.facts["boxes"] == "nucleus 40 in 16 cases; one around each numbered object"
    assert found.facts["objects"] == "40 in 16 cases, 2 to 3 a case"
    planned = hilum.plan(data, task="detection", labels="each=nucleus", device="cpu", minutes=1)
    assert planned.plan["task.classes"] == ["nucleus"]


def test_volumes_have_boxes_on_their_own_axes_and_masks_in_memory_have_them_too(tmp_path):
    values = np.zeros((12, 14, 16), np.uint8)
    values[2:5, 3:9, 4:5], values[8:10, 1:3, 10:15] = 1, 2
    for n in range(3):
        volume(tmp_path / "images" / f"{n}.nii.gz", np.random.default_rng(n).normal(size=values.shape))
        volume(tmp_path / "labels" / f"{n}.nii.gz", values)
    dataset = hilum.check(tmp_path, task="detection").dataset
    for case in dataset:
        assert_array_equal(case.references["boxes"].corners, [[2, 3, 4, 5, 9, 5], [8, 1, 10, 10, 3, 15]])
        assert case.references["boxes"].names == ("1", "2")
    image = Image(np.random.default_rng(0).normal(size=(1, 6, 6)), Geometry.of_pixels((6, 6)))
    mask = Image(np.pad(np.ones((1, 2, 2), np.uint8), ((0, 0), (1, 3), (2, 2))), image.geometry)
    held = Dataset((Case("a", "a", {"image": image}, {"mask": mask}),))
    assert hilum.check(held, task="detection").facts["boxes"].startswith("1 1 in 1 case; ")
    assert "boxes" not in hilum.check(held).facts


def test_regions_that_overlap_have_boxes_each(tmp_path):
    values = np.zeros((10, 10, 10), np.uint8)
    values[1:8, 1:8, 1:8], values[3:5, 3:5, 3:5] = 1, 2
    volume(tmp_path / "images" / "a.nii.gz", np.random.default_rng(1).normal(size=values.shape))
    volume(tmp_path / "labels" / "a.nii.gz", values)
    found = hilum.check(tmp_path, task="detection", labels="1+2=whole,2=core")
    [case] = found.dataset
    assert case.references["boxes"].names == ("whole", "core")
    assert_array_equal(case.references["boxes"].corners, [[1, 1, 1, 8, 8, 8], [3, 3, 3, 5, 5, 5]])


def test_what_was_contoured_in_parts_only_gives_no_boxes(tmp_path):
    values = np.zeros((10, 10, 10), np.uint8)
    values[1:4, 1:4, 1:4], values[:, :, 5:] = 1, 2
    volume(tmp_path / "images" / "a.nii.gz", np.random.default_rng(1).normal(size=values.shape))
    volume(tmp_path / "labels" / "a.nii.gz", values)
    found = hilum.check(tmp_path, task="detection", labels="1=cyst,2=ignore")
    assert not found.passed
    assert any("boxes need an image that was annotated as a whole" in problem.what for problem in found.problems)


@pytest.mark.parametrize("labels", ["each=", "each"])
def test_each_without_a_name_is_refused(tmp_path, cli, labels):
    done = cli(
        "check", smears(tmp_path / "data", 2), "--task", "detection", "--labels", labels, "--out", tmp_path / "check"
    )
    assert (done.code, "not a label" in done.err) == (2, True)


def test_numbers_that_wrapped_in_8_bits_teach_no_boxes(tmp_path):
    data = smears(tmp_path, 4, numbered=True)
    numbers = np.zeros((24, 32), np.uint8)
    for n in range(60):  # every second pixel of ten rows: 1 to 255 and around again for some
        numbers[2 * (n // 16), 2 * (n % 16)] = 255 - n
    for n in (1, 2, 3):
        numbers[2, 4 * n], numbers[22, 30 - 4 * n] = n, n
    PIL.Image.fromarray(numbers).save(data / "masks" / "00.png")
    found = hilum.check(data, task="detection", labels="each=nucleus")
    [problem] = [one for one in found.problems if "wrapped in 8 bits" in one.what]
    assert (problem.severity, problem.cases) == ("error", ("00",))


def test_masks_of_objects_that_overlap_are_named_and_boxes_of_them_are_still_made(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "images").mkdir(parents=True)
        (tmp_path / name / "masks").mkdir()
        noise = np.random.default_rng(ord(name)).integers(0, 255, (20, 24)).astype(np.uint8)
        PIL.Image.fromarray(noise).save(tmp_path / name / "images" / f"{name}.png")
        for n, start in enumerate((1, 3 if name == "a" else 9)):
            mask = np.zeros((20, 24), np.uint8)
            mask[start : start + 4, start : start + 4] = 255
            PIL.Image.fromarray(mask).save(tmp_path / name / "masks" / f"{n}.png")
    found = hilum.check(tmp_path, task="detection")
    assert found.facts["boxes"].startswith("object 4 in 2 cases")
    [problem] = [one for one in found.problems if "overlap" in one.what]
    assert (problem.severity, problem.cases) == ("warning", ("a",))
