"""A case is looked at once: what was found is kept as long as its files, and what reads them, stay as they are."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

import hilum
import real_data
from cohorts import picture
from hilum.errors import DatasetError, HilumError, MemoryShortageError, UsageError
from hilum.files.storage import hashing, kept
from hilum.files.storage.kept import FILE, FOLDER, Caching, FileIdentity
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions
from hilum.quality import dataset_examination, known_cases
from hilum.quality.known_cases import Looked
from hilum.runtime import hardware

SETTLED_S = 0.06


def volume(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).integers(0, 900, (12, 11, 10)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1.5, -1.5, 2.0, 1.0])), path)


def simulated(folder: Path, cases: int = 3) -> Path:
    """A data set of volumes with a structure each."""
    for n in range(cases):
        volume(folder / "images" / f"c{n}.nii", n)
        labels = np.zeros((12, 11, 10), np.uint8)
        labels[3 : 7 + n, 4:8, 2:6] = 1
        (folder / "labels").mkdir(exist_ok=True)
        grid = np.diag([-1.5, -1.5, 2.0, 1.0])
        nibabel.save(nibabel.Nifti1Image(labels, grid), folder / "labels" / f"c{n}.nii")
    time.sleep(SETTLED_S)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """A function that names the cases whose voxels were measured since it was called last."""
    names: list[str] = []
    measure = dataset_examination._measure

    def counted(case):
        names.append(case.id)
        return measure(case)

    def since() -> list[str]:
        found = sorted(names)
        names.clear()
        # Another command is another process: what this one has in memory is not there.
        hashing._HASHES.clear()
        return found

    monkeypatch.setattr(dataset_examination, "_measure", counted)
    return since


def test_a_second_check_and_a_plan_look_at_no_voxel_and_say_the_same(tmp_path, looked, monkeypatch):
    data = simulated(tmp_path / "data")
    hilum.check(data, out=tmp_path / "first", threads=1)
    assert looked() == ["c0", "c1", "c2"]
    monkeypatch.setattr(nibabel, "load", None)
    monkeypatch.setattr("hilum.files.storage.block.VoxelBlock.load", None)  # no voxel is read for a picture either
    hilum.check(data, out=tmp_path / "second", threads=1)
    assert looked() == []
    pages = [(tmp_path / name / "check.html").read_text() for name in ("first", "second")]
    assert pages[0] == pages[1]
    records = [json.loads((tmp_path / name / "check.json").read_text())["cases"] for name in ("first", "second")]
    assert records[0] == records[1]
    hilum.plan(data, threads=1, device="cpu", assignments={"network.name": "unet"})
    assert looked() == []


@pytest.fixture
def few(data: Path, tmp_path: Path) -> list[Path]:
    """Pictures with masks and classes, and pictures with boxes."""
    masks, boxes = tmp_path / "masks", tmp_path / "boxes"
    hearts = data / "mri" / "cardiac_sunnybrook"
    for group, name in (("failing", "SC-HF-NI-31-IM-0001-0068.png"), ("thickened", "SC-HYP-06-IM-0001-0060.png")):
        for part in ("images", "masks"):
            (masks / part / group).mkdir(parents=True)
            shutil.copyfile(hearts / part / name, masks / part / group / name)
    for file in sorted((data / "bccd" / "Annotations").iterdir())[:3]:
        for part, name in (("Annotations", file.name), ("JPEGImages", f"{file.stem}.jpg")):
            (boxes / part).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(data / "bccd" / part / name, boxes / part / name)
    time.sleep(SETTLED_S)
    return [masks, boxes]


def test_of_pictures_boxes_and_classes_the_same_comes_back(few, looked):
    for folder in few:
        first, second = (hilum.check(folder, threads=1) for _ in range(2))
        assert len(looked()) == len(first.dataset) > 1
        assert repr(second) == repr(first)
        for id_, look in first.examination.looks.items():
            again = second.examination.looks[id_]
            assert (again.digest, again.quality) == (look.digest, look.quality)
            assert np.array_equal(again.small, look.small)
            assert again.small.dtype == look.small.dtype
        assert repr(second.examination.fingerprint) == repr(first.examination.fingerprint)


def test_a_changed_file_alone_is_looked_at_again(tmp_path, looked):
    data = simulated(tmp_path / "data")
    before = hilum.check(data, threads=1)
    looked()
    volume(data / "images" / "c1.nii", 9)
    time.sleep(SETTLED_S)
    after = hilum.check(data, threads=1)
    assert looked() == ["c1"]
    assert after.examination.looks["c1"].digest != before.examination.looks["c1"].digest


def test_clocks_that_are_set_back_hide_no_change(tmp_path, looked):
    data = simulated(tmp_path / "data")
    hilum.check(data, threads=1)
    looked()
    path = data / "images" / "c2.nii"
    before = path.stat()
    volume(path, 9)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    hilum.check(data, threads=1)
    assert looked() == ["c2"]
    os.utime(path, (0, 0))
    time.sleep(SETTLED_S)
    hilum.check(data, threads=1)
    hilum.check(data, threads=1)
    assert len(looked()) <= 1  # other times and the same contents are no change


def test_what_lies_beside_a_file_under_its_name_belongs_to_it(tmp_path, looked):
    data = simulated(tmp_path / "data")
    hilum.check(data, threads=1)
    looked()
    (data / "images" / "c0.json").write_text('{"Modality": "MR"}')
    time.sleep(SETTLED_S)
    found = hilum.check(data, threads=1)
    assert looked() == ["c0"]
    assert {one.id: one.modality for one in found.examination.fingerprint.cases}["c0"] == "MR"


def test_verify_hashes_every_file_anew(tmp_path, looked):
    """Of a file system that records no change, or a disk that has turned a bit."""
    data = simulated(tmp_path / "data")
    before = hilum.check(data, threads=1)
    path = data / "images" / "c0.nii"
    old = hashing._read_hash(path)
    volume(path, 9)
    with kept.caching_as(Caching(is_used=True)):
        kept.keep_text(kept.file_key(path), " ".join(map(str, (*FileIdentity.of(path), old))))
        kept.write_pending()
    looked()
    deceived = hilum.check(data, threads=1)
    assert looked() == []
    assert deceived.examination.looks["c0"].digest == before.examination.looks["c0"].digest
    time.sleep(SETTLED_S)
    verified = hilum.check(data, threads=1, verify=True)
    assert looked() == ["c0"]
    assert verified.examination.looks["c0"].digest != before.examination.looks["c0"].digest
    assert hilum.check(data, threads=1).examination.looks["c0"].digest == verified.examination.looks["c0"].digest
    assert looked() == []


def test_a_copied_folder_is_known_by_its_contents(tmp_path, looked):
    data = simulated(tmp_path / "data")
    hilum.check(data, threads=1)
    looked()
    copy = shutil.copytree(data, tmp_path / "elsewhere" / "copy", copy_function=shutil.copyfile)
    time.sleep(SETTLED_S)
    found = hilum.check(copy, threads=1)
    assert looked() == []
    assert str(data) not in repr(found)


def test_other_options_are_another_look(tmp_path, looked):
    data = simulated(tmp_path / "data")
    hilum.check(data, threads=1)
    looked()
    hilum.check(data, threads=1, labels="1=ignore")
    assert looked() == ["c0", "c1", "c2"]
    hilum.check(data, threads=1, labels="1=ignore")
    assert looked() == []


def test_without_the_cache_nothing_is_read_from_it_and_nothing_written(tmp_path, cache, looked):
    data = simulated(tmp_path / "data")
    hilum.check(data, threads=1, no_cache=True)
    assert looked() == ["c0", "c1", "c2"]
    assert not (cache / FOLDER).exists()
    hilum.check(data, threads=1)
    looked()
    hilum.check(data, threads=1, no_cache=True)
    assert looked() == ["c0", "c1", "c2"]
    with pytest.raises(UsageError, match="nothing to verify"):
        hilum.check(data, no_cache=True, verify=True)


def test_neither_flag_becomes_part_of_a_plan(tmp_path):
    data = simulated(tmp_path / "data")
    planned = hilum.plan(data, threads=1, device="cpu", no_cache=True)
    assert not {"no_cache", "verify"} & set(planned.plan.options)


def test_damaged_entries_are_looked_at_again(tmp_path, cache, looked):
    data = simulated(tmp_path / "data")
    first = hilum.check(data, threads=1)
    looked()
    with sqlite3.connect(cache / FOLDER / FILE) as connection:
        connection.execute("UPDATE entries SET content = substr(content, 1, 20)")
    assert repr(hilum.check(data, threads=1)) == repr(first)
    assert looked() == ["c0", "c1", "c2"]


def test_a_case_that_cannot_be_used_is_read_anew_and_named_where_it_lies_now(tmp_path, looked):
    data = simulated(tmp_path / "data")
    path = data / "images" / "c1.nii"
    path.write_bytes(path.read_bytes()[:-100])
    time.sleep(SETTLED_S)
    found = hilum.check(data, threads=1)
    assert any("the header promises 2992 bytes and there are 2892" in one.what for one in found.problems)
    copy = shutil.copytree(data, tmp_path / "copy")
    assert str(copy) in repr(hilum.check(copy, threads=1))


def test_a_file_that_changes_while_it_is_read_is_read_again_or_named(tmp_path):
    case = dataset_layouts.read_dataset(simulated(tmp_path / "data")).cases[0]
    [image, _] = case.files
    calls = []

    def measure(one, times):
        calls.append(one.id)
        if len(calls) <= times:
            image.write_bytes(image.read_bytes() + b"\0")
        return None, []

    assert known_cases.look_at(lambda one: measure(one, 1), Caching(), case).outcome == (None, [])
    assert len(calls) == 2
    with pytest.raises(DatasetError, match="changed while it was read") as refused:
        known_cases.look_at(lambda one: measure(one, 99), Caching(), case)
    assert refused.value.where == str(image)


def test_a_volume_for_which_memory_is_too_small_is_named_with_both_figures(tmp_path, monkeypatch):
    data = simulated(tmp_path / "data", 1)
    monkeypatch.setattr(hardware, "available_host_memory", lambda: 0.01 * 2**20)
    with pytest.raises(MemoryShortageError, match=r"takes 0\.00 GiB of memory, and 0\.00 GiB may be used"):
        dataset_examination._measure(dataset_layouts.read_dataset(data).cases[0])
    [problem] = [one for one in hilum.check(data, threads=2).problems if one.cases]
    assert "GiB may be used" in problem.what


def test_so_many_cases_are_looked_at_side_by_side_as_fit_into_memory(tmp_path):
    cases = dataset_layouts.read_dataset(simulated(tmp_path / "data")).cases
    one = 12 * 11 * 10 * (2 + 1 + 8 * 2)  # stored, a label map, and what is made beside
    assert [known_cases.fitting_threads(8, cases, memory) for memory in (9 * one, 3 * one, 2 * one, one, 1)] == [
        8,
        8,
        2,
        1,
        1,
    ]


def test_a_header_that_may_name_any_file_is_read_each_time(tmp_path, looked):
    for n in range(2):
        picture(tmp_path / "data" / "masks" / f"c{n}.png", 1)
        path = tmp_path / "data" / "images" / f"c{n}.nhdr"
        path.parent.mkdir(exist_ok=True)
        header = "NRRD0004\ntype: uchar\ndimension: 2\nsizes: 24 24\nencoding: raw\ndata file: voxels.raw\n"
        path.write_text(header)
    (path.parent / "voxels.raw").write_bytes(bytes(range(192)) * 3)
    time.sleep(SETTLED_S)
    for _ in range(2):
        hilum.check(tmp_path / "data", threads=1)
        assert looked() == ["c0", "c1"]


@pytest.mark.whole
@pytest.mark.parametrize(
    ("folder", "expected"),
    real_data.facts(
        shipped={"bccd", "chest_xray", "dsb2018", "hippocampus", "histology"},
        corpus={"ultrasound", "bccd", "chest_xray", "hippocampus", "dsb2018", "nnunet_hippocampus"},
    ),
)
def test_each_layout_of_the_real_data_has_keys(folder, expected):
    """A loader that nobody can describe would quietly be read anew each time."""
    known = set[str]()
    with kept.caching_as(Caching(is_used=True)):
        for one in (one for one in sorted(folder.iterdir()) if one.is_dir()):
            with contextlib.suppress(HilumError):
                cases = [
                    case for case in dataset_layouts.read_dataset(one, DatasetOptions(references=False)) if case.files
                ]
                for case in cases[:2]:
                    assert len(known_cases.case_key(case, lambda path: path.name)) == 64
                    known.add(one.name)
    assert expected <= known


def test_what_no_other_command_could_read_is_not_kept(tmp_path):
    case = dataset_layouts.read_dataset(simulated(tmp_path / "data", 1)).cases[0]
    (facts, look), problems = dataset_examination._measure(case)
    foreign = replace(facts, references={"mark": object()})
    with kept.caching_as(Caching(is_used=True)):
        known_cases.keep_look(case, Looked(((foreign, look), problems), "0" * 64))
        assert kept.kept_text("0" * 64) is None
        known_cases.keep_look(case, Looked(((facts, look), problems), "0" * 64))
        assert kept.kept_text("0" * 64) is not None


def test_what_the_cache_says_is_a_line_of_the_log_and_no_finding(tmp_path, cache, caplog):
    data = simulated(tmp_path / "data", 2)
    cache.write_text("a file stands here")
    caplog.set_level(logging.WARNING)
    found = hilum.check(data, threads=1)
    assert caplog.text.count("cannot be kept") == 1
    assert len(found.dataset) == 2
    assert hashing.content_hash(found.dataset.cases[0])
