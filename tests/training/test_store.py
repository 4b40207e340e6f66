from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import hilum
import trained
from cohorts import picture
from hilum.errors import ResourceError
from hilum.files.storage import cache
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions
from hilum.planning import _fit_to_memory, plan_checks
from hilum.runs import training_jobs
from hilum.runtime import cascade
from hilum.runtime.parallel import map_cases
from hilum.runtime.preprocessing import preprocessing
from hilum.tasks.segmentation import targets as segmentation_targets
from hilum.tasks.segmentation.question import Segmentation
from hilum.training.data import prepared_store
from hilum.training.data import target_kinds as kinds
from hilum.values import Label

GENEROUS, NOTHING = 2**30, 0
read_labels = cascade.LabelSource.__post_init__


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A function that prepares the cases in tmp_path/data anew, with a cache of its own."""
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    data = trained.blobs(tmp_path / "data", 6)
    plan = hilum.plan(data, labels=trained.LABELS, device="cpu", threads=1).plan

    def prepare(memory: int = GENEROUS, reading=None, of_task=None, **changes):
        chosen = plan_checks.checked_settings(plan)
        task = replace(chosen.task, **(of_task or {}))
        cases = list(dataset_layouts.read_dataset(data, DatasetOptions(labels=trained.LABELS)))
        wanted = replace(chosen.preprocessing, **changes)
        return prepared_store.prepare_all(cases, wanted, task, threads=2, memory=memory, reading=reading)

    return prepare


def entries() -> dict[Path, int]:
    """{folder of a prepared case: when it was written}, without what a kill has left half-written beside them"""
    return {path.parent: path.stat().st_mtime_ns for path in cache.cache_folder().glob("prepared/*/*/facts.npz")}


def test_a_worker_that_prepares_into_a_cache_of_its_own_is_named_with_what_to_share(prepared):
    def elsewhere(function, cases):
        for number, case in enumerate(cases):
            outcome = function(case)
            shutil.rmtree(cache.cache_folder() / "prepared")
            yield number, outcome

    with map_cases.spread_over(elsewhere), pytest.raises(ResourceError, match="keeps what it prepares") as caught:
        prepared()
    assert "HILUM_CACHE" in caught.value.remedy


def test_the_cache_gives_what_was_prepared_and_writes_nothing_anew(prepared):
    first, written = prepared(), entries()
    again = prepared()
    assert len(written) == 6
    assert entries() == written
    for one, other in zip(first, again, strict=True):
        assert one.id == other.id
        assert one.steps == other.steps
        assert_array_equal(one.image, other.image)
        assert_array_equal(one.target, other.target)
        for ours, theirs in zip(one.positions, other.positions, strict=True):
            assert_array_equal(ours, theirs)


def test_what_lies_in_memory_is_what_lies_on_disk(prepared):
    region = (slice(2, 9), slice(0, 5), slice(3, 12))
    for one, other in zip(prepared(GENEROUS), prepared(NOTHING), strict=True):
        assert isinstance(one.image, np.ndarray)
        assert not isinstance(other.image, np.ndarray)
        for ours, theirs in zip(one.cut_region(region), other.cut_region(region), strict=True):
            assert ours.dtype == theirs.dtype
            assert_array_equal(ours, theirs)


def test_where_structures_lie_stays_on_disk_with_the_image_and_counts_in_memory(prepared):
    stored, held = prepared(NOTHING)[0], prepared(GENEROUS)[0]
    assert stored.nbytes == held.nbytes == sum(one.nbytes for one in (held.image, held.target, *held.positions))
    for ours, theirs in zip(stored.positions, held.positions, strict=True):
        assert not isinstance(ours, np.ndarray)
        assert len(ours) == len(theirs)
        assert_array_equal(ours[1:3], theirs[1:3])
    assert _fit_to_memory.POSITIONS == kinds.POSITIONS  # as many as plans count with
    stored.positions[0].path.unlink()
    with pytest.raises(hilum.HilumError, match=r"facts\.npz: this entry of the cache was damaged or deleted"):
        stored.positions[0][0]


def test_a_changed_file_is_prepared_anew_and_no_other(prepared, tmp_path):
    prepared()
    before = entries()
    image, _ = trained.blob(99)
    trained.nibabel.Nifti1Image(image, trained.OBLIQUE).to_filename(tmp_path / "data" / "images" / "case03.nii.gz")
    prepared()
    after = entries()
    assert len(after) == 7
    assert before.items() <= after.items()


def test_other_preprocessing_is_another_entry(prepared):
    prepared()
    prepared(order="cubic")
    assert len(entries()) == 12


def test_settings_of_the_task_that_leave_the_target_alone_prepare_nothing_anew(prepared):
    first = prepared()
    written = entries()
    prepared(of_task={"loss_name": "ce", "tolerance": 7.0, "weights": {"core": 2.0}})
    assert entries() == written
    turned = prepared(of_task={"classes": (Label(2, "core"), Label(1, "shell"))})
    assert len(entries()) == 12
    assert_array_equal(np.asarray(turned[0].target) == 1, np.asarray(first[0].target) == 2)


def test_positions_lie_in_their_structure(prepared):
    for one in prepared():
        for channel, positions in enumerate(one.positions, start=1):
            assert len(positions) == min(np.count_nonzero(one.target == channel), kinds.POSITIONS)
            assert (one.target[tuple(positions.T)] == channel).all()


def test_a_structure_that_is_too_small_for_the_grid_is_named_with_its_case(prepared, tmp_path):
    assert all(one.lost == () for one in prepared())
    coarse = prepared(reduction=8.0)
    for one in (*coarse, *prepared(reduction=8.0)):  # the second time from the cache
        assert one.lost == tuple(str(n) for n, where in enumerate(one.positions, start=1) if not len(where))
    cases = tuple(one.id for one in coarse if "2" in one.lost)
    assert cases
    task = Segmentation((Label(1, "shell"), Label(2, "core")))
    problems = training_jobs.warn_lost_structures(coarse, task)
    [core] = [one for one in problems if one.what.startswith("core")]
    assert (core.what, core.cases) == ("core was contoured and has no voxel on the grid of the network", cases)
    for fold in ("a", "b"):
        (tmp_path / fold).mkdir()
        training_jobs.write_resampled(problems, tmp_path / fold)
    assert list(training_jobs.read_resampled([tmp_path / "a", tmp_path / "b", tmp_path / "none"])) == problems


@pytest.mark.parametrize("changes", [{"spacing": (1.7, 2.1, 1.3), "smallest": (32, 16, 40)}, {"border": 0.1}])
def test_a_volume_that_is_prepared_in_parts_is_the_one_prepared_whole(prepared, monkeypatch, changes):
    whole = prepared(**changes)
    monkeypatch.setenv("HILUM_CACHE", str(cache.cache_folder().parent / "in parts"))
    monkeypatch.setattr(preprocessing, "STREAMED_BYTES", 0)
    monkeypatch.setattr(segmentation_targets, "IN_PARTS_VOXELS", 0)
    monkeypatch.setattr(prepared_store, "CHUNK", 4)
    monkeypatch.setattr(prepared_store, "BRICK_VOXELS", 2000)  # rows of planes too
    monkeypatch.setattr(kinds, "SLAB_VOXELS", 1000)
    made = []
    monkeypatch.setattr(cascade.LabelSource, "__post_init__", lambda self: made.append(self) or read_labels(self))
    for one, other in zip(whole, prepared(NOTHING, **changes), strict=True):
        np.testing.assert_allclose(other.image[...], one.image, atol=1e-5)
        assert_array_equal(other.target[...], one.target)
        for ours, theirs in zip(one.positions, other.positions, strict=True):
            assert_array_equal(ours, theirs[:])
    assert len(made) == 6


def test_a_write_that_fails_leaves_no_entry(prepared, monkeypatch):
    pack = prepared_store._pack

    def broken(array, trace, path):
        pack(array, trace, path)
        if path.name == "target.b2nd":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepared_store, "_pack", broken)
    with pytest.raises(hilum.HilumError, match="No space left"):
        prepared()
    assert not [path for path in (cache.cache_folder() / "prepared").rglob("*") if path.is_file()]
    monkeypatch.setattr(prepared_store, "_pack", pack)
    assert len(prepared()) == 6


def test_damaged_entries_are_prepared_again_with_a_line_each(prepared, caplog):
    first, places = prepared(), sorted(entries())
    (places[0] / "facts.npz").write_bytes(b"")
    os.truncate(places[1] / "facts.npz", 100)
    os.truncate(places[2] / "image.b2nd", 1000)
    flipped = bytearray((places[3] / "target.b2nd").read_bytes())
    flipped[len(flipped) // 2] ^= 0xFF
    (places[3] / "target.b2nd").write_bytes(bytes(flipped))
    (places[4] / "manifest.json").unlink()
    again = prepared()
    lines = [line for line in caplog.messages if "made again" in line]
    assert [sum(str(place) in line for line in lines) for place in places] == [1, 1, 1, 1, 1, 0]
    for one, other in zip(first, again, strict=True):
        assert_array_equal(one.image, other.image)
        assert_array_equal(one.target, other.target)
    caplog.clear()
    prepared()
    assert not caplog.messages


def test_two_cold_starts_at_once_share_the_entries_that_were_finished_first(prepared, monkeypatch):
    """Both have begun every entry before either has finished one."""
    both, fill = threading.Barrier(2), prepared_store._fill

    def at_once(case, *rest):
        fill(case, *rest)
        if case.id == "case00":
            both.wait(60)

    monkeypatch.setattr(prepared_store, "_fill", at_once)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: prepared(NOTHING), range(2))
    for one, other in zip(first, second, strict=True):
        assert one.image.path == other.image.path
        assert_array_equal(one.image, other.image)
    assert len(entries()) == 6
    assert not list(cache.cache_folder().rglob("*.partial"))


def test_what_was_finished_first_is_never_moved_from_under_its_readers(tmp_path):
    place = tmp_path / "entry"
    with cache.write_cache_entry(place) as late:
        late.mkdir()
        (late / "file").write_text("late")
        with cache.write_cache_entry(place) as early:
            early.mkdir()
            (early / "file").write_text("early")
        seen = place.stat().st_ino
    assert place.stat().st_ino == seen
    assert (place / "file").read_text() == "early"
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_an_entry_that_is_damaged_while_it_is_in_use_names_the_file(prepared):
    one = prepared(NOTHING)[0]
    one.image.path.unlink()
    with pytest.raises(hilum.HilumError, match=r"image\.b2nd: this entry of the cache was damaged or deleted"):
        one.network_input((slice(0, 2), slice(0, 2), slice(0, 2)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written_names_its_variable(prepared, tmp_path):
    (tmp_path / "cache").mkdir(mode=0o500)
    with pytest.raises(hilum.HilumError, match="HILUM_CACHE"):
        prepared()


def test_a_cache_that_is_a_file_names_its_variable(prepared, tmp_path):
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)  # with what is known of the files
    (tmp_path / "cache").write_text("no folder")
    with pytest.raises(hilum.HilumError, match="set HILUM_CACHE to a folder that can be written to"):
        prepared()


def test_what_a_killed_process_left_half_written_is_removed_a_day_later_and_not_before(prepared):
    prepared()
    place = next(iter(entries()))
    rooms = {age: place.parent / f".{place.name}.{age}.partial" for age in ("young", "old")}
    for room in rooms.values():
        (room / place.name).mkdir(parents=True)
        (room / place.name / "facts.npz").write_bytes(b"half")
    day_ago = time.time() - 1.01 * 24 * 3600
    os.utime(rooms["old"], (day_ago, day_ago))
    prepared()
    assert rooms["young"].exists()
    assert not rooms["old"].exists()
    assert len(entries()) == 6


PREPARING = """
import pickle, sys
from hilum.training.data import prepared_store
cases, preprocessing, task = pickle.load(open(sys.argv[1], "rb"))
say = lambda done, of: print(done, flush=True)
prepared_store.prepare_all(cases, preprocessing, task, threads=2, memory=0, progress=say)
"""


@pytest.mark.whole
def test_what_was_prepared_before_a_kill_is_kept_and_the_rest_is_made_good(tmp_path, monkeypatch):
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    data = trained.blobs(tmp_path / "data", 40)
    chosen = plan_checks.checked_settings(hilum.plan(data, labels=trained.LABELS, device="cpu", threads=1).plan)
    cases = list(dataset_layouts.read_dataset(data, DatasetOptions(labels=trained.LABELS)))
    (tmp_path / "asked.pickle").write_bytes(pickle.dumps((cases, chosen.preprocessing, chosen.task)))
    command = [sys.executable, "-c", PREPARING, str(tmp_path / "asked.pickle")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if int(line) >= 4)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    kept = entries()
    assert 4 <= len(kept) < 40
    done = prepared_store.prepare_all(cases, chosen.preprocessing, chosen.task, threads=2, memory=NOTHING)
    assert kept.items() <= entries().items()  # not one of them was written anew
    assert len(entries()) == len(done) == 40
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "another cache"))
    fresh = prepared_store.prepare_all(cases, chosen.preprocessing, chosen.task, threads=2, memory=NOTHING)
    for one, other in zip(done, fresh, strict=True):
        assert_array_equal(one.image[...], other.image[...])
        assert_array_equal(one.target[...], other.target[...])


def test_the_same_file_read_in_another_way_is_another_entry(prepared):
    prepared(reading={"part": "magnitude"})
    prepared(reading={"part": "phase"})
    assert len(entries()) == 12


@pytest.mark.parametrize(
    "columns", [("label=first", "label=second"), pytest.param(("value=size", "value=age"), marks=pytest.mark.whole)]
)
def test_another_column_of_the_same_table_is_another_target(tmp_path, monkeypatch, columns):
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    rows = [f"p{n}.png,{'ab'[n % 2]},{'ab'[n // 2 % 2]},{n},{50 - n}" for n in range(16)]
    for n in range(16):
        picture(tmp_path / "data" / f"p{n}.png", n, shape=(16, 16))
    (tmp_path / "data" / "table.csv").write_text("\n".join(["image,first,second,size,age", *rows]))
    for column in columns:
        role, name = column.split("=")
        options = DatasetOptions(column={role: name})
        plan = hilum.plan(tmp_path / "data", minutes=1, column=column, modality="DX").plan
        chosen, cases = (
            plan_checks.checked_settings(plan),
            list(dataset_layouts.read_dataset(tmp_path / "data", options)),
        )
        made = prepared_store.prepare_all(cases, chosen.preprocessing, chosen.task, threads=1, memory=2**30)
        for case, one in zip(cases, made, strict=True):
            assert_array_equal(one.target, chosen.task.target(case).data)


@pytest.mark.whole
def test_several_answers_about_an_image_are_known_again_and_by_what_they_state(tmp_path, monkeypatch):
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    for n in range(16):
        picture(tmp_path / "data" / f"p{n}.png", n, shape=(16, 16))
    rows = [f"p{n}.png,{'ab'[n % 2]},{n if n else ''}" for n in range(16)]
    (tmp_path / "data" / "table.csv").write_text("\n".join(["image,label,size", *rows]))
    given = {"column": "value=size", "modality": "DX", "task": "classification+regression"}
    chosen = plan_checks.checked_settings(hilum.plan(tmp_path / "data", minutes=1, **given).plan)
    cases = list(dataset_layouts.read_dataset(tmp_path / "data", DatasetOptions(column={"value": "size"})))
    of_one = replace(cases[3], references={**cases[3].references, "class": "a"})
    for some, expected in ((cases, 16), (cases, 16), ([of_one], 17)):
        prepared_store.prepare_all(some, chosen.preprocessing, chosen.task, threads=1, memory=2**30)
        assert len(entries()) == expected


def test_structures_that_change_their_numbers_are_other_targets(tmp_path, monkeypatch):
    """LabelMe's files name what they outline, so that the same files mean other numbers."""
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    corners = {"liver": [[1, 1], [6, 1], [6, 6], [1, 6]], "spleen": [[9, 9], [14, 9], [14, 14], [9, 14]]}
    for n in range(8):
        picture(tmp_path / "data" / f"p{n}.png", n, shape=(16, 16))
        shapes = [{"label": name, "shape_type": "polygon", "points": points} for name, points in corners.items()]
        text = {"shapes": shapes, "imagePath": f"p{n}.png", "imageHeight": 16, "imageWidth": 16}
        (tmp_path / "data" / f"p{n}.json").write_text(json.dumps(text))
    for labels in ("1=liver,2=spleen", "1=spleen,2=liver"):
        plan = hilum.plan(tmp_path / "data", minutes=1, labels=labels, modality="US", task="segmentation").plan
        chosen = plan_checks.checked_settings(plan)
        [case, *_] = dataset_layouts.read_dataset(
            tmp_path / "data", DatasetOptions(labels=labels, kinds=frozenset({"mask"}))
        )
        [made] = prepared_store.prepare_all([case], chosen.preprocessing, chosen.task, threads=1, memory=2**30)
        assert_array_equal(
            np.unique(made.target, return_counts=True), np.unique(chosen.task.target(case).data, return_counts=True)
        )
        assert made.target[3, 3] == chosen.task.target(case).data[3, 3] != 0
