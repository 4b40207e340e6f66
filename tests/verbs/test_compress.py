"""`compress`: smaller variants of a model, what each costs, and by whom it is taken."""

import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from typer.testing import CliRunner

import forked
import hilum
import packages
import trained
from hilum import installation
from hilum.cli.terminal import app
from hilum.errors import IntegrityError, ResourceError, UsageError
from hilum.evaluation.significance.testing import DifferenceTest
from hilum.planning import plan_file
from hilum.runtime import hardware, model_files, record_files
from hilum.runtime.package import backends, quantising
from hilum.runtime.package.package_contents import ONNX_INT8
from hilum.runtime.package.quantising import WindowRecorder
from hilum.tasks import task_catalogue
from hilum.verbs import compress
from hilum.verbs.compressing import student_runs, variant_price
from hilum.verbs.compressing.compression_rows import CostTarget, VariantRow

pytest.importorskip("nncf")
pytest.importorskip("openvino")
FEW = {"samples": 3, "threads": 1, "labels": trained.LABELS}
ROW = [
    *("variant", "backend", "instructions", "parameters", "size_mb", "window_ms", "latency_ms", "cold_ms", "peak_mib"),
    *("metric", "value", "difference", "low", "high", "ece_difference", "worst_group", "worst_group_difference"),
    *("passed", "because"),
]


@pytest.fixture(scope="module")
def compressed(segmented, tmp_path_factory):
    """A compression that was stopped before its certificate, and went on; what was made before; its result."""
    out = tmp_path_factory.mktemp("compressed") / "tiny"

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, forked.trials():
        patch.setattr(compress, "ROUNDS", 1)
        patch.setattr(backends, "quick_backends", list)  # each takes seconds
        with patch.context() as stopped, pytest.raises(KeyboardInterrupt):
            stopped.setattr(compress._Compression, "_certificate", stop)
            hilum.compress(segmented.out, data=segmented.data, out=out, **FEW)
        parts = sorted(one.name for one in (out / "parts").iterdir())
        with pytest.raises(UsageError, match="exists already"):
            hilum.compress(segmented.out, data=segmented.data, out=out, **FEW)
        with pytest.raises(UsageError, match="another seed"):
            hilum.compress(segmented.out, data=segmented.data, out=out, resume=True, seed=1, **FEW)
        with patch.context() as going_on:
            going_on.setattr(quantising, "record_windows", None)  # nothing is quantised anew
            result = hilum.compress(segmented.out, data=segmented.data, out=out, resume=True, **FEW)
    return out, parts, result


def test_each_variant_has_a_row_with_its_price_beside_float_and_a_file_that_is_smaller(compressed):
    out, _, result = compressed
    record = record_files.read_json(out / "compression.json", "hilum.compression")
    assert [list(row) for row in record["rows"]] == [ROW] * len(record["rows"])
    by_backend = {row["backend"]: row for row in record["rows"]}
    assert list(by_backend) == ["torch", "openvino-int8", "onnx-int8"]
    assert [row["variant"] for row in record["rows"]] == ["float", "int8", "int8"]
    assert by_backend["torch"]["difference"] is None and by_backend["torch"]["metric"] == "dice"
    for name in ("openvino-int8", "onnx-int8"):
        row = by_backend[name]
        assert row["value"] == pytest.approx(by_backend["torch"]["value"] + row["difference"])
        assert row["instructions"] == hardware.processor_instructions()
        assert row["latency_ms"] > 0 and row["window_ms"] > 0 and row["parameters"] > 0
        assert row["worst_group"] in ("shell", "core")
    assert all(row["because"] for row in record["rows"])
    assert "3 training cases give ranges" in repr(result)
    changed = pd.read_csv(out / "changed.csv")
    assert list(changed)[:5] == ["case", "label", "before", "after", "difference"]
    assert changed["difference"].abs().is_monotonic_decreasing
    assert "Who pays" in (out / "report.html").read_text()


def test_a_stopped_compression_keeps_what_is_done_and_leaves_only_results(compressed):
    out, parts, _ = compressed
    assert parts == ["base", "onnx-int8", "openvino-int8", "scores-onnx-int8", "scores-openvino-int8", "scores-torch"]
    assert sorted(one.name for one in out.iterdir()) == ["changed.csv", "compression.json", "package", "report.html"]


def test_the_package_says_what_was_done_by_hashes_and_no_case_is_named(compressed, segmented):
    package = compressed[0] / "package"
    record = record_files.read_json(package / "hilum" / "model.json", "hilum.model")
    entries = record["record"]["compression"]
    assert [one["backend"] for one in entries] == ["openvino-int8", "onnx-int8"]
    trained_hashes = set(record["record"]["trained"])
    assert entries[0]["versions"]["nncf"] and len(entries[0]["samples"]) >= FEW["samples"]
    assert any(one in trained_hashes for one in entries[0]["samples"])
    assert "case0" not in json.dumps(entries)
    record_files.verify_seal(package, needed=(ONNX_INT8, "hilum/openvino_int8.xml"))


def test_both_files_answer_nearly_as_torch_does(compressed, segmented):
    package, case = compressed[0] / "package", next((segmented.data / "images").glob("*.nii.gz"))
    exact = np.asarray(hilum.load(package, "cpu").predict(case).data)
    for name in ("openvino-int8", "onnx-int8"):
        ours = model_files.load(package, "cpu", backend="torch")
        network = backends.find_backend(name).network(package, "cpu", 1)
        answered = np.asarray(ours.with_run(network).predict(case).data)
        assert np.mean(answered != exact) < 0.1  # of a network of six steps, whose classes are alike
        assert not np.array_equal(
            *(run(np.ones((1, 1, *ours.inference.patch), np.float32))["mask"] for run in (network, ours.networks.run))
        )


def test_a_variant_is_taken_on_the_processor_that_certified_it_alone(compressed, monkeypatch, tmp_path, caplog):
    caplog.set_level("INFO", "hilum")
    package = Path(shutil.copytree(compressed[0] / "package", tmp_path / "tiny"))
    path = package / "hilum" / "certificate.json"
    record = json.loads(path.read_text())
    for trial in record["trials"]:
        is_quick = trial["backend"] == "openvino-int8"
        trial.update(passed=True, seconds=0.001 if is_quick else 9.0, start=0.1 if is_quick else 9.0)
        trial.update(accuracy=True if is_quick else trial["accuracy"])
    path.write_text(json.dumps(record))
    record_files.seal_folder(package)
    assert model_files.load(package, "cpu", backend="auto").networks.computing.value == "cpu with openvino-int8"
    monkeypatch.setattr(hardware, "processor_instructions", lambda: ["of another processor"])
    assert "int8" not in model_files.load(package, "cpu", backend="auto").networks.computing.value
    assert "compress PACKAGE --methods recertify" in caplog.text


@pytest.mark.whole
def test_a_package_is_certified_anew_with_its_files_as_they_are(compressed, tmp_path, monkeypatch):
    data = trained.blobs(tmp_path / "new", count=6, first=500)
    monkeypatch.setattr(backends, "quick_backends", lambda: ["openvino"])
    monkeypatch.setattr(hardware, "processor_instructions", lambda: ["avx2"])
    package = compressed[0] / "package"
    out = tmp_path / "here"
    hilum.compress(package, data=data, out=out, methods=("recertify",), threads=1, labels=trained.LABELS)
    again = json.loads((out / "package" / "hilum" / "certificate.json").read_text())
    assert {tuple(one["instructions"]) for one in again["trials"]} == {("avx2",)}
    assert (out / "package" / ONNX_INT8).read_bytes() == (package / ONNX_INT8).read_bytes()


def test_the_best_variant_that_meets_a_target_is_named_and_how_near_the_others_come():
    def row(backend: str, size: float, difference: float | None, passed: bool = True) -> VariantRow:
        variant = "float" if difference is None else "int8"
        return VariantRow(variant=variant, backend=backend, size_mb=size, difference=difference, passed=passed)

    rows = [row("torch", 6.0, None), row("a", 2.0, -0.004), row("b", 1.5, -0.001), row("c", 0.5, -0.2, passed=False)]
    assert CostTarget("size=2").best_row(rows).backend == "b"
    assert CostTarget("size=9").best_row(rows).backend == "torch"
    assert CostTarget("size=1").sentence(rows) == "size=1 is not met: int8 by b comes to 1.5"
    assert CostTarget("latency=5").sentence(rows) == "latency=5 is not met: nothing passed"
    for text in ("size", "size=", "size=-1", "size=0", "speed=3", "size=a"):
        with pytest.raises(UsageError, match="no target"):
            CostTarget(text)


def test_a_target_that_nothing_meets_ends_with_exit_code_1(monkeypatch, tmp_path):
    rows = (VariantRow(variant="float", backend="torch", size_mb=6.0, passed=True),)
    result = compress.CompressionResult(tmp_path, rows, target=CostTarget("size=1"))
    monkeypatch.setattr(hilum, "compress", lambda **_: result)
    done = CliRunner().invoke(app, ["compress", "run", "--data", "cases", "--out", "small", "--target", "size=1"])
    assert done.exit_code == 1 and "size=1 is not met: float by torch comes to 6" in done.output


@pytest.fixture(scope="module")
def students(segmented, tmp_path_factory):
    """The same run distilled and pruned, at one ratio, in 30 steps, and its 4 bits refused."""
    out = tmp_path_factory.mktemp("students") / "tiny"
    with pytest.MonkeyPatch.context() as patch, forked.trials():
        patch.setattr(compress, "ROUNDS", 1)
        patch.setattr(backends, "quick_backends", lambda: ["onnx"])
        patch.setitem(student_runs.STUDENTS, "prune", {"prune-0.5": 0.5})
        asked = {"methods": ("distil", "prune", "int4"), "assignments": {"training.steps": 30}}
        hilum.compress(segmented.out, data=segmented.data, out=out, **FEW, **asked)
    return out


@pytest.mark.whole
def test_a_narrower_network_learns_from_the_model_and_is_priced_beside_it(students, segmented):
    record = record_files.read_json(students / "compression.json", "hilum.compression")
    by_variant = {row["variant"]: row for row in record["rows"]}
    assert list(by_variant) == ["float", "distil", "prune-0.5", "int4"]
    for name in ("distil", "prune-0.5"):
        run = students / "runs" / name
        plan = plan_file.read_plan(run / "plan.yaml")
        assert plan["network.size"]["width"] == trained.SMALL_UNET["width"] // 2
        assert by_variant[name]["parameters"] < 0.3 * by_variant["float"]["parameters"]
        assert by_variant[name]["difference"] is not None and by_variant[name]["because"]
        assert "distillation" in plan["objectives.terms"] or name != "distil"
        pd.testing.assert_frame_equal(pd.read_csv(run / "split.csv"), pd.read_csv(segmented.out / "split.csv"))
    assert "matrix products" in by_variant["int4"]["because"] and not by_variant["int4"]["passed"]


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"methods": ("int2",)}, UsageError, "no method 'int2'.*Choose from int8"),
        ({"methods": ("int8", "recertify")}, UsageError, "makes nothing anew"),
        ({"samples": 999}, UsageError, r"for 999 samples.*--samples \d"),
        ({"loss": 0.0}, UsageError, "loss: 0.0 is not more than 0"),
        ({"resume": True}, UsageError, "no unfinished compression"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_and_nothing_is_written(asked, error, message, segmented, tmp_path):
    with pytest.raises(error, match=message):
        hilum.compress(segmented.out, data=segmented.data, out=tmp_path / "out", **{**FEW, **asked})
    assert not (tmp_path / "out").exists()


def test_data_that_trained_the_model_decide_nothing(segmented, tmp_path):
    table = pd.read_csv(segmented.out / "split.csv")
    for folder in ("images", "labels"):
        (tmp_path / "seen" / folder).mkdir(parents=True)
        for case in table.loc[table["split"] == "train", "case"]:
            shutil.copy(segmented.data / folder / f"{case}.nii.gz", tmp_path / "seen" / folder)
    with pytest.raises(UsageError, match="no labelled case is left"):
        hilum.compress(segmented.out, data=tmp_path / "seen", out=tmp_path / "out", **FEW)


def test_a_package_that_was_changed_and_a_missing_extra_are_refused(compressed, segmented, tmp_path, monkeypatch):
    package = Path(shutil.copytree(compressed[0] / "package", tmp_path / "tiny"))
    (package / ONNX_INT8).write_bytes(b"")
    with pytest.raises(IntegrityError, match="is not the file that was written"):
        hilum.compress(package, data=segmented.data, out=tmp_path / "out", **FEW)
    monkeypatch.setattr(quantising, "find_spec", lambda name: None)
    with pytest.raises(ResourceError, match=re.escape(installation.install_line("compress"))):
        hilum.compress(segmented.out, data=segmented.data, out=tmp_path / "out", **FEW)
    assert not (tmp_path / "out").exists()


def test_a_loss_is_judged_by_the_margin_and_of_few_patients_by_the_whole_interval():
    def test(difference: float, half: float, too_few: str = "") -> DifferenceTest:
        return DifferenceTest(difference, difference - half, difference + half, 0.0, 0.5, "by hand", too_few)

    few = "its interval holds its level from 50 patients on, and these are 9"
    for difference, half, too_few, passes in (
        (-0.001, 0.003, "", True),  # -0.004 to 0.002
        (-0.003, 0.003, "", False),  # -0.006 to 0
        (-0.001, 0.003, few, True),
        (-0.003, 0.003, few, False),
    ):
        passed, because = variant_price.judge_loss(test(difference, half, too_few), 0.005, better="more")
        assert passed == passes
        assert ("these are 9" in because) == bool(too_few)
    assert variant_price.judge_loss(test(0.001, 0.003), 0.005, better="less")[0]
    assert not variant_price.judge_loss(test(0.003, 0.003), 0.005, better="less")[0]
    same = DifferenceTest(0.0, None, None, 0.0, 1.0, "DeLong; no case tells them apart")
    assert variant_price.judge_loss(same, 0.005, better="more") == (True, "no case is answered otherwise")


def test_a_group_that_pays_for_all_others_fails_the_variant_and_is_named():
    labels = [{"value": 1, "name": "core"}]
    task = task_catalogue.build_task({"name": "segmentation", "labels": labels, "loss": "dice+ce", "tolerance": 1.0})
    rng, count = np.random.default_rng(0), 700
    rows = {"case": [f"c{n}" for n in range(count)], "split": "val", "label": "core"}
    voxels = {"voxels_both": 80, "voxels_predicted": 100, "voxels_reference": rng.integers(90, 110, count)}
    exact = pd.DataFrame({**rows, "patient": rows["case"], "dice": rng.uniform(0.8, 0.9, count), **voxels})
    exact["covariate_site"] = np.where(np.arange(count) < 20, "small", "large")
    harmed = (np.arange(count) < 20) * 0.03
    rounding = rng.normal(0, 1e-3, count)
    asked = {"loss": 0.005, "primary": "dice", "groups": None, "seed": 0, "patients_known": True}
    even = variant_price.price_of(exact, exact.assign(dice=exact["dice"] + rounding), task, **asked)
    # Of 120 patients a further one with Dice 0 would exceed the margin: it takes hundreds.
    fewer = variant_price.price_of(
        exact[:120], exact[:120].assign(dice=(exact["dice"] + rounding)[:120]), task, **asked
    )
    assert not fewer.passed and "not shown to be non-inferior" in fewer.because
    assert even.passed and even.test.difference == pytest.approx(rounding.mean())
    uneven = variant_price.price_of(exact, exact.assign(dice=exact["dice"] + rounding - harmed), task, **asked)
    assert uneven.test.low > -0.005  # over all cases little is lost
    assert not uneven.passed
    assert "site small loses 0.03" in uneven.because
    assert uneven.worst.group == "site small"
    assert {"size smallest third", "size largest third"} < {one.group for one in uneven.tests}


def test_windows_are_sampled_evenly_from_all_that_pass():
    counts = np.zeros(40)
    for seed in range(400):
        recorder = WindowRecorder(lambda batch: {}, np.random.default_rng(seed), most=4)
        for start in range(0, 40, 5):
            recorder(np.arange(start, start + 5, dtype=np.float32).reshape(5, 1))
        assert len(recorder.kept) == 4
        counts[[int(window[0].item()) for window in recorder.kept]] += 1
    assert counts.min() > 15 and counts.max() < 70  # 40 expected, by the binomial law within 4 deviations


def test_weights_take_seven_bits_where_the_processor_has_no_8_bit_dot_products(compressed, tmp_path, monkeypatch):
    source = compressed[0] / "package" / "models" / "model.onnx"
    shape = onnx.load(source).graph.input[0].type.tensor_type.shape.dim
    window = np.random.default_rng(0).normal(size=[1, *(one.dim_value for one in shape[1:])]).astype(np.float32)
    largest = {}
    for instructions in (["avx2"], ["avx2", "avx512_vnni"]):
        monkeypatch.setattr(hardware, "processor_instructions", lambda known=instructions: known)
        quantised = quantising.quantise_onnx(source, [(window,)], tmp_path)
        graph = onnx.load(tmp_path / Path(ONNX_INT8).name).graph
        weights = [onnx.numpy_helper.to_array(one) for one in graph.initializer if one.name.endswith("_quantized")]
        largest[quantised.facts["bits_of_weights"]] = max(abs(one.astype(int)).max() for one in weights if one.ndim > 1)
    assert largest[7] == 64 and largest[8] == 127


@pytest.mark.whole
def test_layers_that_harm_go_back_to_float_until_the_judge_loses_little(tmp_path):
    model = packages.segmenting()
    run, window = model.networks.run, np.random.default_rng(0).normal(size=(1, 1, 8, 8, 4)).astype(np.float32)
    exact, source = run(window)["mask"], tmp_path / "tiny" / "models" / "model.onnx"
    packages.packed(model, tmp_path / "tiny")
    losses = []

    def judge(network) -> float:
        losses.append(float(np.abs(network(window)["mask"] - exact).mean()))
        return -losses[-1]

    quantised = quantising.quantise_openvino(source, [(window,)], tmp_path, judge=judge, loss=0.002, heads=("mask",))
    assert losses[1] > 0.002 and losses[-1] <= 0.002
    assert quantised.facts["kept_in_float"] and "was lost on training cases" in quantised.facts["because"]


def test_the_instructions_of_a_processor_are_read_by_their_names(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nmodel name : x avx512_vnni\nflags : fpu avx2 avx512_vnni avx512_vnni_x\n")
    assert hardware.processor_instructions(cpuinfo) == ["avx2", "avx512_vnni"]
    assert hardware.multiplies_bytes(["avx2", "avx512_vnni"]) and not hardware.multiplies_bytes(["avx2"])
    cpuinfo.write_text("processor : 0\nFeatures : fp asimd asimddp i8mm\n")
    assert hardware.processor_instructions(cpuinfo) == ["asimddp", "i8mm"]
    assert hardware.processor_instructions(tmp_path / "none") == []


CONNECTIONS = """
import socket, sys
def refuse(*words): raise SystemExit(f"a connection was opened: {words}")
socket.socket.connect = socket.socket.connect_ex = socket.create_connection = refuse
socket.getaddrinfo = refuse
from hilum.runtime.package import quantising
nncf = quantising.import_nncf()
import numpy as np, openvino
from openvino import opset13 as ops
data = ops.parameter([1, 4], np.float32)
model = openvino.Model([ops.matmul(data, np.ones((4, 4), np.float32), False, False)], [data])
nncf.quantize(model, nncf.Dataset([np.ones((1, 4), np.float32)]), subset_size=1)
from nncf.telemetry import wrapper
print(type(wrapper.telemetry).__name__, "pytest" in sys.modules)
"""


def test_nothing_is_reported_to_the_makers_of_the_libraries(tmp_path):
    done = forked.run("-c", CONNECTIONS, folder=tmp_path)
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.strip().endswith("MagicMock False")  # not because of pytest, in which it never reports


def test_a_handler_that_somebody_gave_the_library_of_quantisation_keeps_its_level():
    from hilum.runtime.package import quantising

    handler, logger = logging.NullHandler(), logging.getLogger("nncf")
    logger.addHandler(handler)
    try:
        quantising.import_nncf()
        assert (handler.level, logger.level) == (logging.NOTSET, logging.ERROR)
    finally:
        logger.removeHandler(handler)
