"""The command line where something kills it, or disk, memory or shared memory run out. Nothing here is pretended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

import forked
import hilum
import trained
from hilum import work_state
from hilum.cli import exit_codes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limits and signals of Linux")

# A program in which this process ends itself by a signal once a case is begun: kill -9 at a known place.
KILLED = """
import logging, signal, sys, threading
from contextlib import contextmanager
from hilum.work_state import work
from hilum.cli import exit_codes as ending
class Kill(logging.Handler):
    def emit(self, record):
        if (record.case, record.msg) == ({case!r}, "begun"):
            signal.pthread_kill(threading.get_ident(), signal.{name})  # this thread begins nothing more
@contextmanager
def then_killed(words, witnessed=ending.report_death):
    with witnessed(words):
        work.addHandler(Kill())  # after the witness has heard
        yield
ending.report_death = then_killed
sys.argv = ["hilum", *{words!r}]
ending.main()
"""


def killed(case: str, name: str, *words: object) -> subprocess.CompletedProcess[str]:
    code = KILLED.format(case=case, name=name, words=[str(word) for word in words])
    return forked.run("-c", code)


def last(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.rstrip().rpartition("\n")[2]


@pytest.mark.whole
def test_a_check_that_crashes_names_the_case_that_it_was_at(tmp_path):
    data = trained.blobs(tmp_path / "data", 3)
    done = killed("case01", "SIGSEGV", "check", data, "--out", tmp_path / "out", "--threads", 1)
    assert done.returncode == -11
    assert last(done).startswith("case01: hilum check was killed or crashed while it processed this")
    assert "Close other programs or give fewer --threads" in last(done)
    assert not (tmp_path / "out").exists()


def test_a_prediction_that_is_killed_names_the_case_that_it_was_at(segmented, tmp_path):
    done = killed("case02", "SIGKILL", "predict", segmented.out, segmented.data / "images", "--out", tmp_path / "out")
    assert done.returncode == -9
    assert "case02" in last(done)
    assert "hilum predict was killed or crashed while it processed this" in last(done)
    assert not (tmp_path / "out").exists()


def test_a_training_that_is_killed_before_there_is_a_run_names_none_that_could_go_on(segmented, tmp_path, monkeypatch):
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))  # which knows none of the cases
    words = ["--out", tmp_path / "run", "--labels", trained.LABELS, "--minutes", 1, "--device", "cpu", "--threads", 1]
    done = killed("case03", "SIGKILL", "train", segmented.data, *words)
    assert done.returncode == -9
    assert not (tmp_path / "run").exists()
    assert "case03" in last(done) and "--resume" not in last(done)


def test_a_case_may_be_called_as_a_file_whose_name_is_no_text(capfd):
    with exit_codes.report_death(["check", "data"]), work_state.mark_case_at_work("caf\udce9_01"):
        pass
    assert capfd.readouterr().err == ""


def test_what_ends_by_itself_has_nothing_added(capfd):
    with exit_codes.report_death(["check", "data"]), work_state.mark_case_at_work("case00"):
        pass
    with pytest.raises(KeyError), exit_codes.report_death(["check", "data"]), work_state.mark_case_at_work("case00"):
        raise KeyError
    assert capfd.readouterr().err == ""


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=False).returncode
    ):
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def filled(folder: Path, left: int) -> None:
    """The disk but for so many bytes."""
    free = os.statvfs(folder)
    (folder / "filling").write_bytes(b"0" * (free.f_bavail * free.f_frsize - left))


def test_predictions_on_a_full_disk_end_with_one_line_and_keep_what_was_done(segmented, small_disk, cli):
    filled(small_disk, 270 * 1024)
    out = small_disk / "out"
    flags = ["--out", out, "--format", "nii", "--overlay", "--device", "cpu"]
    done = cli("predict", segmented.out, segmented.data / "images", *flags)
    assert done.code == 1
    assert "No space left on device" in done.last
    assert "predicted before it" in done.last
    assert "Free some space or choose another disk" in done.last
    kept = pd.read_csv(out / "predictions.csv")["case"].tolist()
    assert 0 < len(kept) < 12
    assert sorted(path.stem for path in out.glob("*.nii")) == kept
    assert json.loads((out / "summary.json").read_text())["predicted"] == len(kept)


@pytest.mark.whole
def test_a_disk_that_the_cases_fill_to_the_last_byte_keeps_them_and_their_records(segmented, small_disk, tmp_path, cli):
    """The room for the records was taken before the first case."""
    filled(small_disk, 640 * 1024)
    images = tmp_path / "images"
    images.mkdir()
    for number in range(36):
        (images / f"again{number:02}.nii.gz").symlink_to(segmented.data / "images" / f"case{number % 12:02}.nii.gz")
    out = small_disk / "out"
    done = cli("predict", segmented.out, images, "--out", out, "--format", "nii", "--device", "cpu")
    assert done.code == 1
    assert "predicted before it" in done.last
    assert 0 < len(pd.read_csv(out / "predictions.csv")) < 36
    assert not list(out.glob(".*"))


def test_a_disk_without_any_room_is_one_line_and_leaves_nothing(segmented, small_disk, cli):
    filled(small_disk, 0)
    done = cli("predict", segmented.out, segmented.data / "images", "--out", small_disk / "out", "--device", "cpu")
    assert done.code == 1
    assert "No space left on device" in done.last
    assert [path.name for path in small_disk.iterdir()] == ["filling"]


def test_a_full_disk_under_the_cache_costs_no_answer(segmented, small_disk, tmp_path, cli, monkeypatch, caplog):
    filled(small_disk, 8 * 1024)
    monkeypatch.setenv("HILUM_CACHE", str(small_disk))
    done = cli("check", segmented.data, "--labels", trained.LABELS, "--out", tmp_path / "out", "--threads", 1)
    assert done.code == 0
    assert (done.err + caplog.text).count("cannot be kept") == 1
    assert len(json.loads((tmp_path / "out" / "check.json").read_text())["cases"]) == 12


def test_prepared_cases_that_find_no_room_in_the_cache_end_a_training_with_one_line(
    segmented, small_disk, tmp_path, cli, monkeypatch
):
    filled(small_disk, 64 * 1024)
    monkeypatch.setenv("HILUM_CACHE", str(small_disk))
    flags = ["--labels", trained.LABELS, "--set", "training.steps=2", "--device", "cpu", "--threads", 1]
    done = cli("train", segmented.data, "--out", tmp_path / "run", *flags)
    assert done.code == 1
    assert str(small_disk) in done.last
    assert "No space left on device" in done.last
    assert "Free some space" in done.last
    assert not list((small_disk / "prepared").rglob("*.partial"))


@pytest.mark.whole
def test_a_limit_on_the_size_of_files_is_told_as_a_full_disk(segmented, tmp_path):
    """As `ulimit -f 2`, in blocks of 512 bytes."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024)); "
        f"sys.argv = ['hilum', 'predict', {str(segmented.out)!r}, {str(segmented.data / 'images')!r}, "
        f"'--out', {str(tmp_path / 'out')!r}, '--format', 'nii', '--device', 'cpu']; "
        "from hilum.cli import main; main()"
    )
    done = forked.run("-c", code)
    assert done.returncode == 1
    assert "File too large" in last(done)
    assert not (tmp_path / "out").exists()


# What this process mounts no other one sees (mount_namespaces(7)).
FULL = """
import ctypes, subprocess
assert ctypes.CDLL(None).unshare(0x00020000) == 0  # CLONE_NEWNS of linux/sched.h
mounts = ("mount --make-rprivate /", "mount -t tmpfs -o size=4k none /dev/shm")
for command in (*mounts, "head -c 4096 /dev/zero > /dev/shm/full"):
    subprocess.run(command, shell=True, check=True)
"""


@pytest.mark.whole
def test_full_shared_memory_stops_nothing(segmented, tmp_path):
    """A shared memory without a byte left, as a container may have it: trainings and predictions do without."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("only root may have a shared memory of its own")
    few = {**trained.FEW_STEPS, "training.steps": 2, "training.validations": 1, "network.size": trained.SMALL_UNET}
    both = f"""
import hilum
data, run, out = {str(segmented.data)!r}, {str(segmented.out)!r}, {str(tmp_path)!r}
hilum.train(data, out=out + "/run", labels={trained.LABELS!r}, threads=2, device="cpu", assignments={few!r})
hilum.predict(run, data + "/images", out=out + "/out", device="cpu")
"""
    done = forked.run("-c", FULL + both)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 12
    assert (tmp_path / "run" / "report.html").is_file()


SMALL_NETWORK = "network.size={width: 4, widest: 8, strides: [[1, 1, 1], [2, 2, 2]]}"
# After its third step, when a checkpoint is there, the training may take less memory than it has.
SQUEEZED = """
import ctypes, psutil, resource, sys, trained
from hilum.cli import main
ctypes.CDLL(None).mallopt(-3, 65536)  # M_MMAP_THRESHOLD: what a step freed the next one has to ask for again
def squeezed(moment):
    if moment.step > 2 and resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        taken = psutil.Process().memory_info().vms - 2**28
        resource.setrlimit(resource.RLIMIT_AS, (taken, resource.RLIM_INFINITY))
sys.argv = ["hilum", *{words!r}]
with trained.watching(squeezed):
    main()
"""


@pytest.mark.whole
def test_a_training_that_runs_out_of_memory_ends_with_one_line_and_goes_on_where_there_is_more(segmented, tmp_path):
    run = tmp_path / "run"
    flags = ["--labels", trained.LABELS, "--device", "cpu", "--threads", "1", "--set", "training.steps=6"]
    flags += ["--set", "training.validations=3", "--set", "training.batch=48", "--set", SMALL_NETWORK]
    words = ["train", str(segmented.data), "--out", str(run), *flags]
    own = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})"
    done = forked.run("-c", own + SQUEEZED.format(words=words))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert last(done).startswith(f"{run}: memory ran out while it trained. Close other programs")
    assert f"`hilum train --resume {run}` continues" in last(done)
    assert "--set training.batch=N below 48" in last(done)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".partial", ".lock")]
    assert not (run / "report.html").exists()
    resumed = hilum.train(resume=run)
    assert resumed.steps == 6
    assert (run / "report.html").is_file()


def test_a_case_that_no_memory_can_hold_is_refused_with_the_figure_and_the_rest_goes_on(segmented, tmp_path, cli):
    data = trained.blobs(tmp_path / "data", 3) / "images"
    (data / "case01.nii.gz").unlink()
    header = nibabel.Nifti1Header()
    header.set_data_shape((12000, 12000, 12000))
    header.set_data_dtype(np.int16)
    header.set_sform(trained.OBLIQUE, 1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    with (data / "case01.nii").open("wb") as file:
        file.write(header.binaryblock + bytes(4))
        file.truncate(352 + 2 * 12000**3)  # 3 TiB that take no room: nobody wrote into them
    done = cli(
        "predict",
        segmented.out,
        data,
        "--out",
        tmp_path / "out",
        "--device",
        "cpu",
        "--allow-large",
        "--abstain",
        "off",
    )
    assert done.code == 1
    assert "case01: predicting it would take" in done.last
    assert "GiB may be used" in done.last
    assert pd.read_csv(tmp_path / "out" / "predictions.csv")["case"].tolist() == ["case00", "case02"]


@pytest.mark.parametrize(
    ("words", "run"),
    [
        (("train", "scans", "--out", "mine"), "mine"),
        (("train", "folder of scans/brain.v2"), "train-brain"),
        (("pretrain", "scans", "more", "--minutes", "5"), "pretrain-scans"),
        (("demo",), "demo"),
    ],
)
def test_how_a_stopped_training_continues_names_its_run_where_there_is_one(words, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not exit_codes.resume_command(words)  # it ended before it had made one
    (tmp_path / run).mkdir()
    assert f"`hilum train --resume {run}` continues" in exit_codes.resume_command(words)
    assert "RUN" in exit_codes.resume_command(("train", "--minutes", "5", "scans"))
