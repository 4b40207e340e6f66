from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest

import hilum
import trained
from hilum import work_state
from hilum.errors import UsageError
from hilum.networks import NETWORKS
from hilum.options.command_index import COMMANDS
from matrices import rarely


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)


@pytest.mark.parametrize("words", [["train", "--help"], rarely(["--help"]), rarely([])])
def test_help_and_import_load_neither_torch_nor_a_format(words):
    code = f"""
import sys, hilum
from hilum.cli import main
sys.argv = ["hilum", *{words}]
try:
    main()
except SystemExit:
    pass
for name in ("torch", "monai", "nibabel", "pydicom", "highdicom", "pandas", "matplotlib"):
    assert name not in sys.modules, name
"""
    assert "Usage" in run(code).stdout


def test_every_verb_has_the_same_name_in_python():
    for verb in {one.words for one in COMMANDS if " " not in one.words} - {"networks", "cache"}:
        assert callable(getattr(hilum, verb))
    assert callable(hilum.list_networks)
    assert callable(hilum.describe_cache)


def test_every_verb_says_what_it_does():
    for command in COMMANDS:
        assert command.text


CALLS = {
    "check": lambda run, out: ["check", run.data, "--labels", trained.LABELS, "--out", out],
    "plan": lambda run, out: ["plan", run.data, "--labels", trained.LABELS, "--out", f"{out}.yaml", "--device", "cpu"],
    "evaluate": lambda run, out: ["evaluate", run.out, run.data, "--labels", trained.LABELS, "--out", out],
    "predict": lambda run, out: ["predict", run.out, run.data / "images" / "case00.nii.gz", "--out", out],
    "convert": lambda run, out: ["convert", run.data / "images" / "case00.nii.gz", "--out", f"{out}.nrrd"],
    "networks": lambda run, out: ["networks"],
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_json_is_one_document_on_standard_output(cli, segmented, tmp_path, monkeypatch, call):
    few = {name: NETWORKS[name] for name in ("lenet", "unet")}  # to count what all have takes 15 s
    monkeypatch.setattr("hilum.networks.factory.NETWORKS", few)
    done = cli(*call(segmented, tmp_path / "out"), "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out, parse_constant=pytest.fail)  # NaN is no JSON
    assert record["rows"]


def test_a_training_says_its_record_on_standard_output_alone(cli, segmented, tmp_path):
    small = [f"--set={name}={value}" for name, value in trained.FEW_STEPS.items()]
    network = "--set=network.size={width: 4, widest: 8, strides: [[1, 1, 1], [2, 2, 2]]}"
    words = [segmented.data, "--labels", trained.LABELS, "--out", tmp_path / "run", "--device", "cpu", "--threads", "1"]
    done = cli("train", *words, *small, network, "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out, parse_constant=pytest.fail)
    assert record["steps"] == 6
    assert record["report"] == str(tmp_path / "run" / "report.html")
    in_python = hilum.evaluate(tmp_path / "run", segmented.data, labels=trained.LABELS).as_record()
    assert record["rows"] == in_python["rows"]


@pytest.mark.parametrize(
    ("words", "code", "where"),
    [
        (["predict", "nowhere", "data"], 2, "nowhere"),
        (["check", "nowhere"], 2, "nowhere"),
        (["train", "data", "--colour", "blue"], 2, "hilum"),
        (["check"], 2, "hilum"),
    ],
)
def test_json_is_one_document_on_failure_too(cli, words, code, where):
    done = cli(*words, "--json")
    record = json.loads(done.out)
    assert (record["schema"], record["version"]) == ("hilum.error", 1)
    assert (done.code, record["error"]["code"], record["error"]["where"]) == (code, code, where)
    assert record["error"]["problem"].split()[0] in done.last


def test_json_of_a_work_that_failed_in_part_is_that_of_the_work(cli, segmented, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "bad.nii.gz").write_bytes(b"no image")
    (tmp_path / "images" / "good.nii.gz").symlink_to(segmented.data / "images" / "case00.nii.gz")
    done = cli("predict", segmented.out, tmp_path / "images", "--out", tmp_path / "out", "--device", "cpu", "--json")
    assert done.code == 1
    record = json.loads(done.out)
    assert record["predicted"] == len(record["failed"]) == 1


def test_without_json_people_read_a_headline_and_where_it_lies(cli, segmented, tmp_path):
    done = cli("evaluate", segmented.out, segmented.data, "--labels", trained.LABELS, "--out", tmp_path / "out")
    lines = done.out.splitlines()
    assert "the test cases of the run's own data" in lines[0]
    assert lines[1].startswith("Dice 0.")
    assert "95 % interval" in lines[1]
    assert lines[-1] == str(tmp_path / "out" / "report.html")


@pytest.mark.parametrize(
    ("kind", "key", "name"),
    [
        ("classified", "auroc", "AUROC"),
        *map(rarely, [("segmented", "dice", "Dice"), ("detected", "ap50", "AP at IoU 0.5")]),
    ],
)
def test_people_read_a_metric_as_the_report_names_it_and_programs_read_its_key(cli, kind, key, name, request, tmp_path):
    run = request.getfixturevalue(kind)
    words = ["evaluate", run.out, run.data, "--split", "all", "--device", "cpu"]
    words += ["--labels", trained.LABELS] if kind == "segmented" else []
    done, record = cli(*words, "--out", tmp_path / "out"), cli(*words, "--out", tmp_path / "again", "--json")
    assert done.out.splitlines()[1].startswith(f"{name} ")
    assert name in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert key in {row["metric"] for row in json.loads(record.out)["rows"]}


def test_the_default_place_is_named_after_verb_and_data(cli, segmented, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli("check", segmented.data, "--labels", trained.LABELS)
    cli("plan", segmented.data, "--labels", trained.LABELS)
    cli("view", segmented.data / "images" / "case00.nii.gz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["check-data", "plan-data.yaml", "view-case00.html"]


def test_the_folder_that_one_is_in_is_data_under_its_own_name(cli, tmp_path, monkeypatch):
    data = trained.blobs(tmp_path / "data", 4)
    monkeypatch.chdir(data)
    for place, number in ((".", 1), ("./", 2)):
        out = tmp_path / f"out{number}"
        assert cli("check", place, "--labels", trained.LABELS, "--out", out).code == 0
        assert 'name = "data"' in (out / "dataset.toml").read_text()
    link = tmp_path / "link"
    link.symlink_to(data)
    assert cli("check", link, "--labels", trained.LABELS, "--out", tmp_path / "out3").code == 0
    assert len(hilum.enhance(".", column=None).images) == 4


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (("check", ""), "DATA"),
        (("predict", "model", ""), "INPUT"),
        (("enhance", "a.nii.gz", ""), "INPUT"),
        (("plan", "data", "--out", ""), "--out"),
        (("train", "--resume", ""), "--resume"),
    ],
)
def test_an_empty_path_is_refused_by_its_place(cli, words, where):
    done = cli(*words)
    assert done.code == 2
    assert done.last.startswith(f"{where}: is empty. Give a path")


def test_an_empty_path_is_refused_in_python_too():
    with pytest.raises(UsageError, match=r"^DATA: is empty\."):
        hilum.check("")
    with pytest.raises(UsageError, match=r"^INPUT: is empty\."):
        hilum.predict("model", ["image.nii.gz", ""])


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "koi8-r"])
def test_a_terminal_that_lacks_a_letter_gets_another_one_and_the_work_is_done(cli, tmp_path, monkeypatch, encoding):
    data = trained.blobs(tmp_path / "data", 4)
    terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    done = cli("check", data, "--labels", "1=Läsion 病変,2=core", "--out", tmp_path / "out")
    assert done.code == 0
    terminal.flush()
    assert "sion ??" in terminal.buffer.getvalue().decode(encoding)


def test_a_finding_that_forbids_training_exits_with_1_and_still_leaves_the_check(cli, tmp_path):
    data = trained.blobs(tmp_path / "data", 4)
    done = cli("check", data, "--labels", "1=shell", "--out", tmp_path / "out", "--json")
    assert done.code == 1
    assert "without a label: 2" in done.last
    assert json.loads(done.out)["passed"] is False
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"check.json", "check.html", "dataset.csv", "dataset.toml"}
    assert json.loads((tmp_path / "out" / "check.json").read_text())["passed"] is False


def test_a_column_that_is_said_twice_is_refused(cli, tmp_path):
    (tmp_path / "cases.csv").write_text("image,a,b\n")
    done = cli("check", tmp_path / "cases.csv", "--column", "label=a,label=b")
    assert done.code == 2
    assert "label is 'a' and 'b'" in done.last
    done = cli("check", tmp_path / "cases.csv", "--column", "label=a", "--column", "label=b")
    assert (done.code, "Give it once" in done.last) == (2, True)
    done = cli("check", tmp_path / "cases.csv", "--set", "split.folds=1")  # another flag is still refused as such
    assert done.code == 2


def test_minutes_count_from_the_beginning_of_the_command_and_in_python_from_the_call(monkeypatch):
    times = iter([10.0, 25.0, 40.0])
    monkeypatch.setattr("hilum.work_state.time.monotonic", lambda: next(times))
    assert work_state.command_start() == 10.0
    with work_state.time_command():
        assert work_state.command_start() == 25.0
        with work_state.time_command():  # a verb that calls another
            assert work_state.command_start() == 25.0
    assert work_state.command_start() == 40.0


def test_a_plan_is_written_only_under_a_name_that_train_reads(cli, tmp_path):
    done = cli("plan", tmp_path, "--out", tmp_path / "plan.txt")
    assert (done.code, done.last) == (
        2,
        f"{tmp_path / 'plan.txt'}: is not a file name for a plan. Give one that ends in .yaml.",
    )
