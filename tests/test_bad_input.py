"""What bad input gets: one clear error or a finding, an exit code, and nothing half-written."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

import hilum
import trained
from cohorts import picture, volume
from hilum.errors import IntegrityError, ResourceError
from hilum.files.storage import file_lock
from hilum.runtime import Model, record_files
from hilum.training import recipe
from hilum.training._logs import CsvLog
from hilum.training.training_state import COLUMNS
from matrices import only, thinned
from packages import changed


def refused(stated, code: int, *words: object) -> None:
    """One line at the end with these words in it, and no traceback."""
    assert stated.code == code, stated.err
    assert "Traceback" not in stated.err
    for word in words:
        assert str(word) in stated.last, stated.last
    assert stated.last.endswith(".")


def nothing_in(folder: Path) -> bool:
    """Not even a hidden or half-written file."""
    return not folder.exists() or not list(folder.iterdir())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to write into, which is where the command runs."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.parametrize("verb", ["check", "plan", "train"])
def test_a_folder_that_is_not_there_is_wrong_use(cli, here, verb):
    refused(cli(verb, "/no/such/folder"), 2, "/no/such/folder", "Check the path")
    assert nothing_in(here)


@pytest.mark.parametrize("verb", ["check", "train"])
def test_an_empty_folder_is_no_data_set(cli, here, tmp_path, verb):
    (tmp_path / "empty").mkdir()
    refused(cli(verb, tmp_path / "empty"), 1, tmp_path / "empty")
    assert nothing_in(here)


def test_labels_without_images_are_refused(cli, here, tmp_path):
    for n in range(3):
        volume(tmp_path / "data" / "labels" / f"{n}.nii.gz")
    (tmp_path / "data" / "images").mkdir()
    refused(cli("train", tmp_path / "data"), 1, tmp_path / "data")
    assert nothing_in(here)


def test_a_folder_that_can_be_read_in_two_ways_lists_them_and_the_flag_that_picks(cli, here, tmp_path):
    data = trained.blobs(tmp_path / "data", 3)
    (data / "table.csv").write_text("image,class\nimages/case00.nii.gz,a\nimages/case01.nii.gz,b\n")
    refused(cli("train", data), 1, data, "--layout")
    assert nothing_in(here)


def test_one_corrupt_file_among_forty_is_named_and_the_rest_goes_on(cli, here, tmp_path):
    data = trained.pictures(tmp_path / "data", 40)
    broken = data / "dark" / "20.png"
    (data / "bright" / "20.png").rename(broken)
    broken.write_bytes(broken.read_bytes()[:60])
    done = cli("check", data, "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    [found] = [row for row in record["rows"] if row["severity"] == "error"]
    assert "20.png" in found["what"]
    assert record["facts"]["cases"] == "39 of 40 can be used"
    assert json.loads((here / "check-data" / "check.json").read_text())["rows"] == record["rows"]


@pytest.mark.whole
def test_a_truncated_gzip_is_a_finding_and_the_run_says_so(cli, here, tmp_path):
    data = trained.blobs(tmp_path / "data")
    cut = data / "images" / "case03.nii.gz"
    cut.write_bytes(cut.read_bytes()[:-700])
    run = trained.segmenting(data, here / "run")
    cases = len(list((data / "images").iterdir()))
    assert f"1 of {cases} cases left out: case03 (`hilum check DATA` says why)." in run.notes
    assert "case03.nii.gz" in run.report.read_text(encoding="utf-8")
    assert "case03" not in (here / "run" / "split.csv").read_text()


def test_a_truncated_gzip_alone_is_refused_by_name(cli, here, segmented, tmp_path):
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes((segmented.data / "images" / "case00.nii.gz").read_bytes()[:-700])
    refused(cli("predict", segmented.out, cut, "--device", "cpu"), 1, "cut")
    assert nothing_in(here)


def test_a_series_with_a_missing_slice_is_refused(cli, here, segmented, data, tmp_path):
    shutil.copytree(data / "dicom" / "series" / "mr_hippocampus_001", tmp_path / "series")
    middle = sorted((tmp_path / "series").iterdir())[len(list((tmp_path / "series").iterdir())) // 2]
    middle.unlink()
    refused(cli("predict", segmented.out, tmp_path / "series", "--device", "cpu"), 1, "missing")
    refused(cli("convert", tmp_path / "series", "--out", "out.nii.gz"), 1, "missing", "--fill-missing")
    assert nothing_in(here)


def test_training_masks_that_are_all_background_teach_nothing(cli, here, tmp_path):
    data = trained.blobs(tmp_path / "data")
    for path in (data / "labels").iterdir():
        nibabel.Nifti1Image(np.zeros((16, 16, 16), np.uint8), trained.OBLIQUE).to_filename(path)
    refused(cli("train", data, "--labels", "1=blob"), 1, data, "empty")
    assert nothing_in(here)


def test_one_mask_that_is_all_background_is_a_finding(cli, here, tmp_path):
    data = trained.blobs(tmp_path / "data", 4)
    empty = data / "labels" / "case02.nii.gz"
    nibabel.Nifti1Image(np.zeros((16, 16, 16), np.uint8), trained.OBLIQUE).to_filename(empty)
    done = cli("check", data, "--json")
    assert done.code == 0
    rows = json.loads(done.out)["rows"]
    named = [row["cases"] for row in rows if "is absent in 1 of 4 masks" in row["what"]]
    assert named == [["case02"], ["case02"]]  # once for each structure


def test_one_class_only_is_refused(cli, here, tmp_path):
    rows = "".join(f"{n}.png,benign\n" for n in range(12))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "table.csv").write_text("image,class\n" + rows)
    for n in range(12):
        picture(tmp_path / "data" / f"{n}.png", n)
    refused(cli("train", tmp_path / "data" / "table.csv"), 1, "benign", "two classes")
    assert nothing_in(here)


@pytest.mark.parametrize(
    ("verb", "under"),
    only(
        [("check", "file/run"), ("train", "file")],
        [(verb, under) for verb in ("check", "train", "plan") for under in ("file/run", "file")],
    ),
)
def test_an_output_that_cannot_be_written_is_wrong_use(cli, here, tmp_path, verb, under):
    data = trained.blobs(tmp_path / "data", 4)
    (here / "file").write_text("mine")
    refused(cli(verb, data, "--out", here / under), 2, here / under)
    assert (here / "file").read_text() == "mine"


def test_a_prediction_that_cannot_be_written_is_wrong_use(cli, here, segmented):
    (here / "file").write_text("mine")
    image = segmented.data / "images" / "case00.nii.gz"
    refused(cli("predict", segmented.out, image, "--out", here / "file" / "out"), 2, here / "file" / "out")
    refused(cli("evaluate", segmented.out, segmented.data, "--out", here / "file" / "out"), 2, here / "file" / "out")
    assert (here / "file").read_text() == "mine"


@pytest.mark.parametrize("verb", thinned(1, ["plan", "train"]))
def test_fewer_patients_than_folds_are_refused_with_the_number_that_would_do(cli, here, tmp_path, verb):
    data = trained.blobs(tmp_path / "data", 4)
    refused(cli(verb, data, "--folds", "5"), 2, "split.folds", "4 cases", "Give 2 to 4 folds")
    assert nothing_in(here)


def test_folds_of_every_case_are_wrong_use(cli, here, tmp_path):
    data = trained.blobs(tmp_path / "data", 8)
    refused(cli("plan", data, "--folds", "2", "--all"), 2, "--all")
    assert nothing_in(here)


def test_an_unknown_network_is_refused_with_those_there_are(cli, here, tmp_path):
    data = trained.blobs(tmp_path / "data", 8)
    refused(cli("train", data, "--set", "network.name=transformer"), 2, "network.name", "transformer", "unet")
    assert nothing_in(here)


def test_a_plan_of_another_version_is_refused_with_its_line(cli, here, tmp_path, segmented):
    plan = tmp_path / "old.yaml"
    text = (segmented.out / "plan.yaml").read_text()
    plan.write_text(text.replace("hilum_plan: 1", "hilum_plan: 99"))
    refused(cli("train", plan), 2, plan, "line 3", "version 99", "Plan again")
    assert nothing_in(here)


@pytest.mark.parametrize(
    ("edit", "word"),
    thinned(
        1,
        [
            ("batch: {value: -2", "training.batch"),
            ("batch: {value: two", "training.batch"),
            ("bach: {value: 2", "bach"),
        ],
    ),
)
def test_an_edited_plan_that_is_impossible_is_refused_with_its_line(cli, here, tmp_path, segmented, edit, word):
    lines = (segmented.out / "plan.yaml").read_text().splitlines()
    [at] = [n for n, line in enumerate(lines) if line.startswith("  batch: {value: 2,")]
    lines[at] = lines[at].replace("batch: {value: 2", edit)
    plan = tmp_path / "edited.yaml"
    plan.write_text("\n".join(lines))
    refused(cli("train", plan), 2, plan, f"line {at + 1}", word)
    assert nothing_in(here)


@pytest.fixture
def own_run(segmented, tmp_path) -> Path:
    """A copy of a run that a test may spoil."""
    return Path(shutil.copytree(segmented.out, tmp_path / "own_run"))


def test_tampered_weights_are_refused(cli, here, own_run, segmented):
    weights = own_run / "checkpoints" / "best" / "weights.safetensors"
    spoilt = bytearray(weights.read_bytes())
    spoilt[-1] ^= 1
    weights.write_bytes(spoilt)
    image = segmented.data / "images" / "case00.nii.gz"
    refused(cli("predict", own_run, image), 1, weights, "SHA-256")
    refused(cli("evaluate", own_run, segmented.data), 1, weights, "SHA-256")
    assert nothing_in(here)


@pytest.fixture
def own_package(packaged, tmp_path) -> Path:
    """A copy of a package that a test may spoil."""
    return Path(shutil.copytree(packaged.out, tmp_path / "own_package"))


@pytest.mark.parametrize("verb", only(["predict"], ["predict", "evaluate", "train"]))
def test_a_tampered_package_is_refused_by_its_file(cli, here, own_package, segmented, verb):
    weights = own_package / "hilum" / "weights.safetensors"
    spoilt = bytearray(weights.read_bytes())
    spoilt[-1] ^= 1
    weights.write_bytes(spoilt)
    refused(cli(verb, *with_model(verb, own_package, segmented.data)), 1, weights, "SHA-256")
    assert nothing_in(here)


@pytest.mark.parametrize("verb", only(["predict"], ["predict", "evaluate", "train"]))
def test_a_package_of_another_version_is_refused_with_what_reads_it(cli, here, own_package, segmented, verb):
    changed(own_package, "hilum/model.json", version=2)
    refused(
        cli(verb, *with_model(verb, own_package, segmented.data)), 1, own_package, "another version", "that wrote it"
    )
    assert nothing_in(here)


def with_model(verb: str, model: Path, data: Path) -> list[object]:
    """The words by which a verb takes a model and our data."""
    if verb == "predict":
        return [model, data / "images" / "case00.nii.gz"]
    return [model, data] if verb == "evaluate" else [data, "--labels", trained.LABELS, "--from", model]


def test_a_pickle_in_place_of_weights_is_never_opened(cli, here, own_run, segmented, tmp_path):
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self):
            return (Path.touch, (trap,))

    best = own_run / "checkpoints" / "best"
    (best / "weights.safetensors").write_bytes(pickle.dumps(Trap()))
    record_files.seal_folder(best)  # whoever made the pickle can also make a manifest for it
    refused(cli("predict", own_run, segmented.data / "images" / "case00.nii.gz"), 1, "weights.safetensors")
    with pytest.raises(IntegrityError, match="safetensors"):
        hilum.load(own_run)
    assert not trap.exists()
    assert nothing_in(here)


@pytest.mark.parametrize(
    "words",
    thinned(
        2, [["--seed", 2**63], ["--seed", 10**30], ["--set", f"training.seed={2**63}"], ["--set", "split.seed=-1"]]
    ),
)
def test_a_seed_that_no_generator_takes_is_wrong_use(cli, here, segmented, words):
    for verb in ("plan", "train"):
        refused(cli(verb, segmented.data, "--labels", trained.LABELS, *words), 2, "seed")
    assert nothing_in(here)


def test_a_pickle_in_place_of_pretrained_weights_is_refused_before_the_run_is_there(cli, here, segmented, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "trap",))

    torch.save({"weights": Trap()}, tmp_path / "weights.pt")
    done = cli("train", segmented.data, "--labels", trained.LABELS, "--pretrained", tmp_path / "weights.pt")
    refused(done, 1, tmp_path / "weights.pt", "could run any code")
    assert "weights_only" not in done.err
    assert not (tmp_path / "trap").exists()
    assert nothing_in(here)


def test_an_unknown_option_is_wrong_use(cli, here):
    refused(cli("train", "data", "--colour", "blue"), 2, "--colour", "--help")
    assert nothing_in(here)


def test_an_unknown_verb_is_wrong_use(cli, here):
    refused(cli("trian", "data"), 2, "trian", "Did you mean 'train'", "--help")
    assert nothing_in(here)


@pytest.mark.parametrize(
    ("given", "word"),
    thinned(
        6,
        [
            ("training.stepz=3", "training.stepz"),
            ("training.steps=-3", "training.steps"),
            ("training.steps=many", "training.steps"),
            ("training.steps", "name=value"),
            ("=3", "name=value"),
            ("steps=3", "steps"),
            ("training.steps=[1", "[1"),
            ("training.minutes=.inf", "training.minutes"),
            ("training.device=banana", "banana"),
            ("training.deterministic=true", "training.steps"),
            ("network.size={width: 4}", "network.size"),
            ("network.name=resnet", "network"),
            ("task.loss=mse", "task.loss"),
            ("split.method=mine", "split.method"),
        ],
    ),
)
def test_a_wrong_assignment_is_wrong_use(cli, here, tmp_path, given, word):
    data = trained.blobs(tmp_path / "data", 8)
    refused(cli("train", data, "--labels", trained.LABELS, "--set", given), 2, word)
    assert nothing_in(here)


@pytest.mark.parametrize("minutes", thinned(2, ["0", "-5", "nan", "inf", "soon"]))
def test_impossible_minutes_are_wrong_use(cli, here, tmp_path, minutes):
    data = trained.blobs(tmp_path / "data", 8)
    refused(cli("train", data, "--minutes", minutes), 2, "minutes")
    assert nothing_in(here)


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file of this process can grow beyond so many bytes, which is what a full disk is like."""
    resource = pytest.importorskip("resource", reason="this system has no limits on the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


SMALL = [f"--set={name}={value}" for name, value in trained.FEW_STEPS.items()]
SMALL_NETWORK = "--set=network.size={width: 4, widest: 8, strides: [[1, 1, 1], [2, 2, 2]]}"


@pytest.mark.whole
def test_a_full_disk_while_training_is_one_line_and_the_run_can_be_resumed(cli, here, tmp_path, monkeypatch):
    data = trained.blobs(tmp_path / "data")
    words = ["train", data, "--out", here / "run", "--device", "cpu", "--threads", 1, *SMALL, SMALL_NETWORK]
    follow = recipe.train_network

    def on_a_full_disk(*given, **named):
        with full_disk(20000):
            return follow(*given, **named)

    monkeypatch.setattr(recipe, "train_network", on_a_full_disk)
    refused(cli(*words), 1, "run", "File too large", "Free some space")
    monkeypatch.setattr(recipe, "train_network", follow)
    assert sorted(path.name for path in (here / "run").iterdir()) == [
        "checkpoints",
        "data.json",
        "environment.json",
        "log.csv",
        "plan.yaml",
        "split.csv",
        "tensorboard",
        "trainings.json",
    ]
    assert nothing_in(here / "run" / "checkpoints")
    hilum.train(resume=here / "run")
    assert (here / "run" / "report.html").is_file()


def test_a_full_disk_as_a_run_goes_on_leaves_its_log(tmp_path):
    rows = f"{','.join(COLUMNS)}\n1,0.1,0.5,0.1,,,2.0\n2,0.2,0.4,0.1,0.7,0.8,2.0\n3,0.3,0.4,0.1,,,2.0\n"
    (tmp_path / "log.csv").write_text(rows)
    with full_disk(50), pytest.raises(ResourceError, match="File too large"):
        CsvLog(tmp_path, 2)
    assert (tmp_path / "log.csv").read_text() == rows
    CsvLog(tmp_path, 2).close()
    assert (tmp_path / "log.csv").read_text() == rows.partition("3,")[0]


@pytest.mark.parametrize("verb", only(["train"], ["check", "plan", "train"]))
def test_a_full_disk_from_the_start_leaves_nothing(cli, here, tmp_path, verb):
    data = trained.blobs(tmp_path / "data", 8)
    with full_disk(500):
        done = cli(verb, data, "--labels", trained.LABELS, "--out", here / "out.yaml")
    refused(done, 1, "File too large", "Free some space")
    assert nothing_in(here)


def test_a_full_disk_leaves_no_half_of_a_prediction(cli, here, segmented):
    image = segmented.data / "images" / "case00.nii.gz"
    with full_disk(200):
        done = cli("predict", segmented.out, image, "--out", here / "out", "--device", "cpu")
    refused(done, 1, here / "out", "File too large", "Free some space")
    assert nothing_in(here)


@pytest.fixture
def interrupts(request):
    """What Ctrl-C does; a shell script starts what it runs in the background with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, request.param)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize(
    ("interrupts", "number", "code"),
    thinned(
        3,
        [
            (signal.default_int_handler, signal.SIGINT, 130),
            (signal.default_int_handler, signal.SIGTERM, 143),
            (signal.SIG_IGN, signal.SIGTERM, 143),
            (signal.default_int_handler, signal.SIGHUP, 129),
        ],
    ),
    indirect=["interrupts"],
    ids=["ctrl-c", "terminated", "terminated in the background", "terminal closed"],
)
def test_a_stop_while_predicting_says_what_is_kept_and_how_to_go_on(
    cli, here, segmented, monkeypatch, caplog, number, code
):
    predict, cases = Model.predict, []

    def pressed(self, image, *rest, **given):
        cases.append(image)
        if len(cases) == 3:
            signal.raise_signal(number)
        return predict(self, image, *rest, **given)

    monkeypatch.setattr(Model, "predict", pressed)
    done = cli("predict", segmented.out, segmented.data / "images", "--out", here / "out", "--device", "cpu")
    assert done.code == code
    assert f"2 cases predicted before the stop: {here / 'out'}" in caplog.text
    # The same command would be refused: its --out is there.
    assert done.last.startswith("hilum predict: stopped. Give another --out for the rest, or --overwrite")


def test_ctrl_c_while_training_exits_with_130_and_the_run_can_be_resumed(cli, here, tmp_path):
    data = trained.blobs(tmp_path / "data", 8)
    words = ["train", data, "--out", here / "run", "--device", "cpu", "--threads", 1, *SMALL, SMALL_NETWORK]

    def pressed(moment):
        if moment.step == 4:
            signal.raise_signal(signal.SIGINT)

    with trained.watching(pressed):
        done = cli(*words)
    assert done.code == 130
    assert "Traceback" not in done.err
    assert done.last.startswith(f"hilum train: stopped. `hilum train --resume {here / 'run'}` continues")
    state = json.loads((here / "run" / "checkpoints" / "last" / "state.json").read_text())
    assert state["step"] == len((here / "run" / "log.csv").read_text().splitlines()) - 1 == 4
    assert not (here / "run" / "report.html").exists()
    assert hilum.train(resume=here / "run").report.is_file()


def test_a_file_that_ends_too_early_is_no_ctrl_c(cli, here, tmp_path, monkeypatch):
    def ends(*_: object, **__: object) -> None:
        raise EOFError("No data left in file")

    data = trained.blobs(tmp_path / "data", 8)
    monkeypatch.setattr("hilum.planning.rules.split_rules.split_dataset", ends)
    done = cli("train", data)
    assert done.code == 1
    assert "EOFError: No data left in file" in done.last
    assert "stopped" not in done.last


@pytest.mark.parametrize("words", thinned(1, [["--out", "RUN", "--overwrite"], ["--resume", "RUN"]]))
def test_a_run_that_another_process_writes_is_left_to_it(cli, here, own_run, segmented, words):
    before = {path: path.stat().st_mtime_ns for path in own_run.rglob("*")}
    words = [own_run if word == "RUN" else word for word in words]
    with file_lock.hold_lock(own_run):
        done = cli("train", *([] if words[0] == "--resume" else [segmented.data]), *words)
    refused(done, 2, own_run, f"process {os.getpid()} on", "Wait until it ends")
    assert {path: path.stat().st_mtime_ns for path in own_run.rglob("*")} == before
    assert not list(own_run.parent.glob(".*.lock*"))


def test_whoever_may_read_a_folder_may_read_all_files_of_a_run(segmented):
    modes = {path.stat().st_mode for path in segmented.out.rglob("*") if path.is_file()}
    assert len(modes) == 1
    assert {path.stat().st_mode for path in segmented.out.rglob("*.safetensors")} == modes


def test_ctrl_c_before_training_leaves_nothing(here, tmp_path, monkeypatch, cli):
    data = trained.blobs(tmp_path / "data", 8)

    def pressed(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("hilum.planning.rules.split_rules.split_dataset", pressed)
    done = cli("train", data)
    assert done.code == 130
    assert nothing_in(here)


@pytest.mark.parametrize("verb", thinned(4, ["check", "train", "evaluate", "predict", "plan", "convert", "view"]))
def test_what_exists_is_not_replaced_unless_asked_for(cli, here, tmp_path, segmented, verb):
    image = segmented.data / "images" / "case00.nii.gz"
    words = {
        "check": [segmented.data],
        "train": [segmented.data],
        "plan": [segmented.data],
        "evaluate": [segmented.out, segmented.data],
        "predict": [segmented.out, image],
        "convert": [image],
        "view": [image],
    }[verb]
    (here / "old.nrrd").write_text("mine")
    refused(cli(verb, *words, "--out", here / "old.nrrd"), 2, here / "old.nrrd", "exists", "--overwrite")
    assert (here / "old.nrrd").read_text() == "mine"


@pytest.mark.parametrize("verb", thinned(4, ["check", "train", "evaluate", "predict", "plan", "convert", "view"]))
def test_a_folder_that_is_not_ours_is_never_replaced(cli, here, segmented, verb):
    image = segmented.data / "images" / "case00.nii.gz"
    words = {"evaluate": [segmented.out, segmented.data], "predict": [segmented.out, image]}
    words |= {"convert": [image], "view": [image]}
    (here / "mine.nrrd").mkdir()
    (here / "mine.nrrd" / "thesis.txt").write_text("years of work")
    done = cli(verb, *words.get(verb, [segmented.data]), "--out", here / "mine.nrrd", "--overwrite")
    refused(done, 2, here / "mine.nrrd")
    assert (here / "mine.nrrd" / "thesis.txt").read_text() == "years of work"


def test_an_older_run_stays_where_the_new_one_is_refused(cli, here, own_run, tmp_path):
    refused(cli("train", "/no/such/folder", "--out", own_run, "--overwrite"), 2, "/no/such/folder")
    assert (own_run / "report.html").is_file()


def test_a_run_is_not_written_over_its_data(cli, here, tmp_path):
    data = trained.blobs(tmp_path / "data", 8)
    cli("plan", data, "--out", data / "plan.yaml", "--labels", trained.LABELS)
    (data / "split.csv").write_text("case,split\n")
    refused(cli("train", data / "plan.yaml", "--out", data, "--overwrite"), 2, data)
    assert len(list((data / "images").iterdir())) == 8


def test_a_model_that_is_not_there_is_wrong_use(cli, here, segmented, tmp_path):
    refused(cli("predict", "/no/such/run", segmented.data), 2, "/no/such/run")
    refused(cli("predict", tmp_path, segmented.data), 2, tmp_path, "hilum train")
    refused(cli("train", segmented.data, "--from", tmp_path), 2, tmp_path)
    refused(cli("train", "--resume", tmp_path), 2, tmp_path)
    refused(cli("train"), 2, "resume")
    assert nothing_in(here)


def test_an_image_of_another_kind_than_the_models_is_refused(cli, here, segmented, tmp_path):
    refused(cli("predict", segmented.out, picture(tmp_path / "flat.png"), "--device", "cpu"), 1, "flat")
    assert nothing_in(here)
