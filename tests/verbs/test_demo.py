"""From nothing to a report: which data the demo takes, what it gets from the web, and what it prints."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest

from hilum.errors import FormatError, IntegrityError, UsageError
from hilum.layouts import dataset_layouts
from hilum.verbs import demo
from hilum.verbs.demo import VERSION

# Nobody listens at port 9 of this machine, the discard service of 1983: every way into the web ends here.
OFFLINE = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
# As little work as makes a whole run.
QUICK = (
    "training.steps=2",
    "training.validations=1",
    "training.batch=1",
    "training.patch=[16, 16, 16]",
    "preprocessing.spacing=[4.0, 4.0, 4.0]",
    "preprocessing.smallest=[16, 16, 16]",
    "inference.patch=[16, 16, 16]",
)


def volume(shape: tuple[int, ...], value: int) -> bytes:
    image = nibabel.Nifti1Image(np.full(shape, value, np.uint8), np.eye(4))
    return image.to_bytes()


def decathlon(path: Path) -> Path:
    """A tar like the public one, with the hidden files that a Mac has left in it."""
    described = {
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "training": [{"image": f"./imagesTr/h_{n}.nii", "label": f"./labelsTr/h_{n}.nii"} for n in range(3)],
        "test": ["./imagesTs/h_9.nii"],
    }
    files = {
        "dataset.json": json.dumps(described).encode(),
        "imagesTs/h_9.nii": volume((4, 5, 6), 9),
        **{f"imagesTr/h_{n}.nii": volume((4, 5, 6), n) for n in range(3)},
        **{f"labelsTr/h_{n}.nii": volume((4, 5, 6), 1) for n in range(3)},
        **{f"{part}/._h_{n}.nii": b"Mac OS X" for n in range(3) for part in ("imagesTr", "labelsTr")},
    }
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"Task04_Hippocampus/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An address, and the folder that lies behind it."""
    folder = tmp_path / "web"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


# What it takes


def checkout(folder: Path) -> Path:
    """A folder that holds what a checkout is known by."""
    (folder / "data" / "hippocampus").mkdir(parents=True)
    (folder / "data" / "files.csv").write_text("path,set,sha256\n")
    (folder / "docs" / "how-to").mkdir(parents=True)
    return folder


@pytest.fixture
def downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The public set, where an earlier download has put it."""
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "downloads" / "Task04_Hippocampus" / "Task04_Hippocampus"
    folder.mkdir(parents=True)
    return folder


def test_real_volumes_of_the_working_checkout_come_first_then_those_of_the_installed_one(
    tmp_path: Path, downloaded: Path
) -> None:
    working, installed, elsewhere = checkout(tmp_path / "a"), checkout(tmp_path / "b"), tmp_path / "c"
    elsewhere.mkdir()
    for start, expected in ((working, working), (working / "docs", working), (elsewhere, installed)):
        source = demo.find_data(start, installed)
        assert source.path == expected / "data" / "hippocampus"
        assert str(source).startswith(
            "data: REAL MR volumes of hippocampi, Medical Segmentation Decathlon, task 4, CC BY"
        )
        assert not source.is_simulated


def test_a_folder_far_above_and_one_that_no_checkout_has_are_not_taken(tmp_path: Path, downloaded: Path) -> None:
    far_below = checkout(tmp_path / "a") / "docs" / "how-to"
    somebodys = tmp_path / "b"
    (somebodys / "data" / "hippocampus").mkdir(parents=True)
    beside = tmp_path / "c" / "project"
    checkout(tmp_path / "c" / "shared")
    beside.mkdir()
    for start in (far_below, somebodys, beside):
        assert demo.find_data(start, tmp_path / "nothing").path == downloaded


def test_what_was_downloaded_before_is_used_again_and_named_with_its_licence(tmp_path: Path, downloaded: Path) -> None:
    source = demo.find_data(tmp_path, tmp_path / "nothing")
    assert source.path == downloaded
    assert "REAL" in source.what
    assert "CC BY-SA 4.0, downloaded before" in source.what


def test_without_a_way_into_the_web_patients_are_simulated_and_nothing_is_written_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from monai.apps import DecathlonDataset

    monkeypatch.setitem(DecathlonDataset.resource, demo.PUBLIC, "http://127.0.0.1:9/set.tar")
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))
    source = demo.find_data(tmp_path, tmp_path / "nothing")
    assert source.is_simulated
    assert str(source).startswith("data: SIMULATED patients")
    assert "cannot be reached" in str(source)
    assert not source.path.exists()


def test_the_checkout_holds_what_the_demo_looks_for() -> None:
    source = demo.find_data(Path("/"))
    assert source.path == demo.CHECKOUT / "data" / "hippocampus"
    dataset = dataset_layouts.read_dataset(source.path)
    assert len(dataset) == 60
    assert [label.name for label in dataset.classes["mask"]] == ["anterior", "posterior"]


def test_the_simulated_cohort_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path))
    first = demo.simulated_cohort(patients=2)
    files = {path: path.stat().st_mtime_ns for path in first.rglob("*.dcm")}
    assert demo.simulated_cohort(patients=2) == first
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*.dcm")} == files


# What it gets


def test_the_public_archive_becomes_a_data_set_with_names(served: tuple[str, Path], tmp_path: Path) -> None:
    url, web = served
    demo.fetch_archive(f"{url}/set.tar", md5(decathlon(web / "set.tar")), tmp_path / "cache" / "set")
    dataset = dataset_layouts.read_dataset(tmp_path / "cache" / "set" / "Task04_Hippocampus")
    assert sorted(case.id for case in dataset) == ["h_0", "h_1", "h_2"]
    assert [label.name for label in dataset.classes["mask"]] == ["Anterior", "Posterior"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["set"]


def test_an_archive_with_another_checksum_is_refused_and_nothing_is_left(
    served: tuple[str, Path], tmp_path: Path
) -> None:
    url, web = served
    decathlon(web / "set.tar")
    with pytest.raises(IntegrityError, match="MD5"):
        demo.fetch_archive(f"{url}/set.tar", "0" * 32, tmp_path / "cache" / "set")
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_archive_that_leads_out_is_refused_and_nothing_is_left(served: tuple[str, Path], tmp_path: Path) -> None:
    url, web = served
    with tarfile.open(web / "evil.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("../evil"), io.BytesIO())
    with pytest.raises(FormatError, match="evil"):
        demo.fetch_archive(f"{url}/evil.tar", md5(web / "evil.tar"), tmp_path / "cache" / "set")
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_address_and_the_checksum_are_of_the_hippocampus_set() -> None:
    from monai.apps import DecathlonDataset

    assert DecathlonDataset.resource["Task04_Hippocampus"].endswith("Task04_Hippocampus.tar")
    assert len(DecathlonDataset.md5["Task04_Hippocampus"]) == 32


# What it prints


def run_demo(*arguments: str | Path, cwd: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """As a user of the wheel calls it, which lies in no checkout, without any way into the web."""
    packages = cwd / "packages"
    packages.mkdir()
    (packages / "hilum").symlink_to(demo.CHECKOUT / "src" / "hilum")
    environment = {**os.environ, **OFFLINE, "no_proxy": "", "HILUM_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(packages)
    command = [sys.executable, "-m", "hilum", "demo", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=500, check=False)


@pytest.mark.whole
def test_offline_it_simulates_patients_and_says_so_first_and_the_report_last(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    demo.write_phantoms(
        cache / f"simulated-phantoms-{VERSION}-40", patients=7, twice=1
    )  # the whole cohort takes long to train on
    settings = [word for one in QUICK for word in ("--set", one)]
    done = run_demo("--minutes", "1", "--out", "run", *settings, cwd=tmp_path, cache=cache)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "SIMULATED" in lines[0]
    assert "cannot be reached" in lines[0]
    assert lines[-1] == str((tmp_path / "run" / "report.html").resolve())
    report = Path(lines[-1]).read_text(encoding="utf-8")
    assert "(SIMULATED patients)</h1>" in report
    assert '<p class="answer">SIMULATED patients: the figures say nothing about real ones.' in report
    assert "(SIMULATED patients)</strong>" in report.partition("<figcaption>")[2].partition("</figcaption>")[0]
    assert any(line.startswith("SIMULATED patients: the figures say nothing") for line in lines)
    assert any(line.startswith("Dice, front") for line in lines)
    assert "\x1b" not in done.stdout
    objects = (tmp_path / "run" / "prediction").glob("*.dcm")
    [segmentation] = [path for path in objects if not path.stem.endswith("_report")]
    assert pydicom.dcmread(segmentation).Modality == "SEG"
    assert str(segmentation.relative_to(tmp_path)) in done.stdout


@pytest.mark.whole
def test_own_pictures_with_classes_are_learnt_and_one_is_predicted(data: Path, tmp_path: Path) -> None:
    given = data / "medmnist" / "pneumoniamnist.npz"
    with np.load(given) as whole:
        np.savez(tmp_path / "few.npz", **{name: whole[name][:40] for name in whole.files})
    settings = ("--set", "training.steps=2", "--set", "training.validations=1")
    done = run_demo(tmp_path / "few.npz", "--minutes", "1", *settings, cwd=tmp_path, cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"data: given: {tmp_path / 'few.npz'}"
    assert lines[-1] == str((tmp_path / "demo" / "report.html").resolve())
    assert "probability" in lines[-2]


@pytest.mark.parametrize(
    ("parts", "shown"), [(["calibration", "train", "test", "val"], "c2"), (["train", "val"], "c0")]
)
def test_the_case_that_is_predicted_at_the_end_is_one_of_testing_where_there_is_one(parts, shown):
    assert demo.shown_case(pd.DataFrame({"case": [f"c{n}" for n in range(len(parts))], "split": parts})) == shown


def test_data_that_are_not_there_are_refused_before_anything_is_said(tmp_path: Path) -> None:
    stated: list[str] = []
    with pytest.raises(UsageError):
        demo.demo(tmp_path / "nothing", out=tmp_path / "run", say=stated.append)
    assert stated == []
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_there_is_not_overwritten_unasked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        demo.demo(out=tmp_path)
