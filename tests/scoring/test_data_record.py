from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import hilum
from hilum.errors import IntegrityError
from hilum.files.storage import hashing
from hilum.quality import image_descriptors
from hilum.scoring import data_record
from hilum.scoring.data_record import LEDGER
from hilum.values import Case, Dataset, LazyMapping


@pytest.fixture(autouse=True)
def ledger(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / LEDGER


def case(folder: Path, name: str, image: str, mask: str = "mask", key: str = "") -> Case:
    files = []
    for kind, text in (("image", image), ("mask", mask)):
        path = folder / f"{name}_{kind}"
        path.write_text(text)
        files.append(path)
    return Case(name, name, {}, files=tuple(files), key=key)


def test_a_record_comes_back_and_holds_hashes_alone(tmp_path):
    one = case(tmp_path, "one", "pixels")
    data_record.write_data_record(tmp_path, Dataset((one,)), {})
    assert data_record.read_data_record(tmp_path).contents == {"one": hashing.content_hash(one)}
    assert str(tmp_path) not in (tmp_path / "data.json").read_text()


def test_a_damaged_record_is_refused(tmp_path):
    (tmp_path / "data.json").write_text("{")
    for folder in (tmp_path, tmp_path / "elsewhere"):
        with pytest.raises(IntegrityError):
            data_record.read_data_record(folder)


def test_cases_that_trained_are_found_by_image_under_any_name_and_test_cases_are_not(tmp_path):
    ours = Dataset((case(tmp_path, "seen", "first"), case(tmp_path, "kept", "second")))
    data_record.write_data_record(tmp_path, ours, {})
    record = data_record.read_data_record(tmp_path)
    parts = {"seen": {"train"}, "kept": {"test"}}
    theirs = Dataset(
        (
            case(tmp_path, "renamed", "first"),
            case(tmp_path, "relabelled", "first", mask="another"),
            case(tmp_path, "seen2", "third"),  # the same mask, as empty ones are alike
            case(tmp_path, "kept2", "second"),
        )
    )
    assert record.trained_cases(theirs, parts) == {"renamed", "relabelled"}
    assert record.trained_cases(theirs, {"seen": {"test", "train"}, "kept": {"val", "test"}}) == {
        "renamed",
        "relabelled",
        "kept2",
    }


def test_cases_of_one_file_are_told_apart_by_their_place_in_it(tmp_path):
    rows = [replace(case(tmp_path, "file", "all of them", key=str(n)), id=str(n)) for n in range(4)]
    data_record.write_data_record(tmp_path, Dataset(tuple(rows[:2])), {})
    assert data_record.read_data_record(tmp_path).trained_cases(
        Dataset(tuple(rows)), {"0": {"train"}, "1": {"test"}}
    ) == {"0"}


def test_an_image_in_another_class_folder_is_the_image_that_trained(tmp_path):
    data_record.write_data_record(tmp_path, Dataset((case(tmp_path, "seen", "pixels", key="bright"),)), {})
    moved = case(tmp_path, "moved", "pixels", key="dark")
    assert data_record.read_data_record(tmp_path).trained_cases(Dataset((moved,)), {"seen": {"train"}}) == {"moved"}


def test_each_set_of_cases_has_its_own_count_whatever_their_order_and_names(tmp_path):
    one, two = case(tmp_path, "one", "1"), case(tmp_path, "two", "2")
    again = case(tmp_path, "other", "1")
    assert [
        data_record.count_opening([one, two]),
        data_record.count_opening([two, again]),
        data_record.count_opening([one]),
        data_record.count_opening([one, two]),
    ] == [1, 2, 1, 3]


def test_openings_by_several_at_once_are_all_counted(tmp_path, ledger):
    one = case(tmp_path, "one", "1")
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda _: data_record.count_opening([one]), range(40)))
    assert max(counts) == 40
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert len(lines) == 40
    assert {line["cases"] for line in lines} == {1}


def test_where_it_cannot_be_counted_the_figures_still_stand(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.WARNING, "hilum"):
        assert data_record.count_opening([case(tmp_path, "one", "1")]) == 0
    assert "not counted" in caplog.text
    assert data_record.count_opening([]) == data_record.count_opening([Case("made", "made", {})]) == 0


def test_an_image_that_was_saved_anew_is_known_by_its_voxels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (24, 20), dtype=np.uint8)
    for name in ("seen.png", "again.tiff"):
        PIL.Image.fromarray(pixels).save(tmp_path / name)
    PIL.Image.fromarray(pixels[::-1]).save(tmp_path / "other.png")
    seen, again, other = (picture(tmp_path / name) for name in ("seen.png", "again.tiff", "other.png"))
    data_record.write_data_record(
        tmp_path, Dataset((seen,)), {"seen": image_descriptors.voxel_digest(seen.images["image"])}
    )
    record = data_record.read_data_record(tmp_path)
    assert record.trained_cases(Dataset((again, other)), {"seen": {"train"}}) == {"again"}
    assert record.trained_cases(Dataset((again, other)), {"seen": {"test"}}) == set()


def test_a_volume_of_a_pair_is_known_in_another_pair_whichever_it_is_laid_on(tmp_path):
    """Sampled pairs share files, and the name of a pair says nothing of those of other data."""
    for name in "abcde":
        (tmp_path / name).write_text(name)
    data_record.write_data_record(tmp_path, Dataset(tuple(pair(tmp_path, *one) for one in ("ab", "ac", "ba"))), {})
    record = data_record.read_data_record(tmp_path)
    seen = {"ab": {"train"}, "ac": {"test"}, "ba": {"val"}}
    others = Dataset(tuple(pair(tmp_path, *one) for one in ("de", "db", "ae", "dc")))
    assert record.trained_cases(others, seen) == {"db", "ae"}


def pair(folder: Path, fixed: str, moving: str) -> Case:
    images = LazyMapping(dict.fromkeys(("fixed", "moving"), lambda: pytest.fail("nothing has to be read")))
    return Case(fixed + moving, f"{fixed}|{moving}", images, files=(folder / fixed, folder / moving), key="|")


def picture(path: Path) -> Case:
    return Case(path.stem, path.stem, {"image": hilum.read(path)}, files=(path,))
