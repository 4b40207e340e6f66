from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import hilum
from hilum.errors import UsageError
from hilum.quality.dataset_examination import Examination
from hilum.scoring import data_record, other_versions
from situations import write_picture


def pictures(root: Path) -> Path:
    """Twelve pictures of a disc on speckle, with masks, in two parts."""
    rows, columns = np.indices((48, 48))
    disc = (rows - 24) ** 2 + (columns - 24) ** 2 < 160
    for n in range(12):
        coarse = np.random.default_rng(n).integers(0, 100, (12, 12))
        speckle = np.kron(coarse, np.ones((4, 4)))
        write_picture(root / "images" / f"image{n}.png", (speckle + 120 * disc).astype(np.uint8))
        write_picture(root / "masks" / f"image{n}.png", disc.astype(np.uint8))
    return root


def halve(file: Path) -> None:
    write_picture(file, (hilum.read(file).data[0] // 2).astype(np.uint8))


def shift(file: Path) -> None:
    write_picture(file, np.roll(hilum.read(file).data[0], 3, axis=1).astype(np.uint8))


def versions(found: hilum.Check | Examination) -> dict[str, tuple[str, ...]]:
    """{the difference: cases} of the warnings on another set."""
    warnings = [one for one in found.problems if "has the same case" in one.what]
    assert {one.severity for one in warnings} <= {"warning"}
    return {one.what.partition("has the same case ")[2]: one.cases for one in warnings}


def test_a_case_that_another_set_has_otherwise_is_named_with_how_it_was_matched(tmp_path):
    own = pictures(tmp_path / "own")
    other = shutil.copytree(own, tmp_path / "other")
    halve(other / "images" / "image0.png")
    shift(other / "masks" / "image1.png")
    write_picture(
        other / "images" / "image2.png", np.random.default_rng(99).integers(0, 255, (48, 48)).astype(np.uint8)
    )
    found = hilum.check(own, other_data=[other], threads=1)
    assert versions(found) == {
        "(as nearly the same image) otherwise: values about 2 times those there": ("image0",),
        "(by equal voxels) otherwise: another mask": ("image1",),
        "(by its name) otherwise: another image": ("image2",),
    }
    [note] = [one.what for one in found.problems if one.what.startswith("of 12 cases other has 12 too")]
    assert "9 by its files" in note


def test_a_set_beside_itself_and_one_of_other_images_have_no_finding(tmp_path):
    own = pictures(tmp_path / "own")
    strange = shutil.copytree(own, tmp_path / "strange")
    for n in range(12):
        pixels = np.random.default_rng(100 + n).integers(0, 255, (48, 48))
        write_picture(strange / "images" / f"image{n}.png", pixels.astype(np.uint8))
    assert versions(hilum.check(own, other_data=[own, strange], threads=1)) == {}


def test_an_image_that_was_saved_with_decimals_is_no_other_version(tmp_path):
    own = pictures(tmp_path / "own")
    other = shutil.copytree(own, tmp_path / "other")
    for n in range(12):
        image = hilum.read(other / "images" / f"image{n}.png")
        (other / "images" / f"image{n}.png").unlink()
        hilum.write(image.with_pixels(image.data.astype(np.float32)), other / "images" / f"image{n}.tif")
    found = hilum.check(own, other_data=[other], threads=1)
    assert versions(found) == {}
    assert any("12 by equal voxels" in one.what for one in found.problems)


def test_a_run_is_compared_by_the_hashes_that_it_keeps(tmp_path):
    own = pictures(tmp_path / "own")
    found = hilum.check(own, threads=1)
    run = tmp_path / "run"
    run.mkdir()
    looks = found.examination.looks
    data_record.write_data_record(run, found.dataset, {name: look.digest for name, look in looks.items()})
    rows = "\n".join(f"{case.id},{case.patient},train,0" for case in found.dataset)
    (run / "split.csv").write_text(f"case,patient,split,fold\n{rows}\n")
    shift(own / "masks" / "image1.png")
    again = hilum.check(own, other_data=[run / "data.json"], threads=1)
    [(difference, cases)] = versions(again).items()
    assert difference.startswith("(by equal voxels) otherwise: other files") and cases == ("image1",)
    assert any("it is a record of hashes" in one.what for one in again.problems)
    from_run = other_versions.beside_run(hilum.check(own, threads=1).examination, run)  # as train --from asks
    assert versions(from_run) == versions(again)


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"--beside: there is no .*nowhere"):
        hilum.check(pictures(tmp_path / "own"), other_data=[tmp_path / "nowhere"], threads=1)
