"""What a certificate says, and what is chosen by it."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from hilum.errors import IntegrityError, UsageError
from hilum.runtime import hardware, model_files, record_files
from hilum.runtime.package import backend_certificate, backend_trial, backends, certification
from hilum.runtime.package.backend_certificate import TOLERANCES, BackendTrial, Certificate, Difference, Tolerances
from hilum.runtime.package.backends.torch_eager import HALF
from hilum.values import Confidence, Geometry, Prediction
from packages import classifying, segmenting

torch.set_num_threads(1)

SAME = Difference(1e-6, 1e-8, 1000, 0, {"kidney left": 1.0})
SPACE = Geometry.of_pixels((4, 4))
EXPORTED = {"onnx": {"exported": True}}


def trial(name: str, start: float, seconds: float, passed: bool = True) -> BackendTrial:
    here = hardware.package_versions(backends.find_backend(name).packages) if name in backends.BACKENDS else {}
    because = "within the tolerances" if passed else "Dice is low"
    return BackendTrial(name, "cpu", passed, because, SAME, start, seconds, 5, 100, here)


def certificate(*trials: BackendTrial) -> Certificate:
    return Certificate("2 of 2 validation cases", "a machine, 2 threads", 20, trials)


@pytest.fixture(scope="module")
def package(tiny):
    return tiny("single")


@pytest.fixture(scope="module")
def certified(package, tmp_path_factory):
    """The package with a certificate, beside one whose ONNX file says something else."""
    folder = Path(shutil.copytree(package, tmp_path_factory.mktemp("certified") / "tiny"))
    wrong = Path(shutil.copytree(package, tmp_path_factory.mktemp("wrong") / "tiny"))
    network = onnx.load(wrong / "models" / "model.onnx")
    last = next(one for one in network.graph.initializer if one.name.endswith("bias") and one.dims == [3])
    last.CopyFrom(onnx.numpy_helper.from_array(np.array([0, 5, 0], np.float32), last.name))
    onnx.save(network, wrong / "models" / "model.onnx")
    record_files.seal_folder(wrong)
    model = model_files.load(folder, "cpu")
    return [(one, certification.certify(one, model, names=["onnx"], threads=1)) for one in (folder, wrong)]


def test_every_backend_is_measured_beside_torch_in_a_process_of_its_own(certified):
    folder, found = certified[0]
    assert [one.backend for one in found.trials] == ["torch", "onnx"]
    assert found.images == "no images were given: 2 of noise"
    for one in found.trials:
        assert (one.difference.images, one.difference.otherwise) == (2, 0)
        assert one.passed
        assert one.difference.disagreeing == 0
        assert one.difference.voxels == 2 * 12 * 8 * 4
        assert one.difference.largest < 1e-4
        assert set(one.difference.dice.values()) == {1.0}
        assert 0 < one.seconds < one.start
        assert one.repeats > 1
    torchs, onnxs = found.trials
    assert torchs.difference.largest == 0
    assert onnxs.peak_memory < torchs.peak_memory
    assert onnxs.versions["onnxruntime"]
    assert found.opset == certification.onnx_opset(folder / "models" / "model.onnx") >= 18


def test_a_certificate_is_read_as_it_was_written_and_sealed_with_the_package(certified):
    folder, found = certified[0]
    assert backend_certificate.read_certificate(folder) == found
    assert "hilum/certificate.json" in record_files.read_json(folder / "manifest.json", "hilum.manifest")["sha256"]


def test_a_backend_that_says_something_else_is_not_accepted(certified):
    folder, found = certified[1]
    [_, wrong] = found.trials
    assert not wrong.passed
    assert "labels differ" in wrong.because
    assert min(wrong.difference.dice.values()) < 0.999
    with pytest.raises(UsageError, match=r"failed the package's certificate.*--backend auto"):
        model_files.load(folder, "cpu", backend="onnx")
    assert model_files.load(folder, "cpu", backend="auto").networks.computing.value == "cpu with torch"


def test_auto_asks_no_backend_that_is_slower_whether_it_can_compute_here(monkeypatch):
    def asked(self, device):
        raise AssertionError("it was asked, which takes the seconds in which torch is imported")

    monkeypatch.setattr(type(HALF), "lacking", asked)
    found = certificate(trial("torch-bf16", 9.0, 1.0), trial("onnx", 1.0, 0.5))
    chosen = backend_certificate.choose_backend("auto", "cpu", EXPORTED, found, "")
    assert chosen.backend.name == "onnx"
    assert "torch-bf16 9.0 s" in chosen.because


def test_auto_takes_the_fastest_that_is_certified_and_says_why(certified):
    chosen = model_files.load(certified[0][0], "cpu", backend="auto").networks.computing
    assert chosen.value == "cpu with onnx"  # it does without the import of torch
    assert "the fastest certified one" in chosen.because
    assert "torch" in chosen.because


def test_the_fastest_is_the_one_that_is_first_done_with_some_images():
    swift, steady = trial("onnx", 1.0, 1.0), trial("torch", 6.0, 0.1)
    assert [one.cost(1) for one in (swift, steady)] == [1, 6]
    chosen = backend_certificate.choose_backend("auto", "cpu", EXPORTED, certificate(swift, steady), "")
    assert chosen.backend.name == "torch"  # 6.9 s for ten, in place of 10
    assert "onnx 1.0 s to a first result" in chosen.because


@pytest.mark.parametrize(
    "found",
    [
        None,
        certificate(trial("onnx", 1, 1, passed=False)),
        certificate(replace(trial("onnx", 1, 1), device="cuda:0")),
        certificate(trial("of another machine", 1, 1)),
        certificate(trial("tensorrt", 1, 1)),
    ],
)
def test_without_a_certified_backend_for_the_device_there_is_torch(found):
    assert backend_certificate.choose_backend("auto", "cpu", EXPORTED, found, "").backend.name == "torch"


def test_what_was_certified_with_another_version_is_not_taken_unasked(caplog):
    caplog.set_level("INFO", "hilum")
    older = replace(trial("onnx", 0.1, 0.1), versions={"onnxruntime": "0.1"})
    chosen = backend_certificate.choose_backend(
        "auto", "cpu", EXPORTED, certificate(older, trial("torch", 6.0, 1.0)), ""
    )
    assert chosen.backend.name == "torch"
    assert "onnx was certified with other versions than onnxruntime" in caplog.text


def test_a_backend_without_a_certificate_is_used_when_asked_for_and_that_is_said(package, caplog):
    with caplog.at_level("WARNING", "hilum"):
        model_files.load(package, "cpu", backend="onnx")
    assert "no certificate" in caplog.text


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"largest": 0.02}, "a probability differs by 0.02"),
        ({"largest": float("nan")}, "a probability differs by nan"),
        ({"mean": 2e-4}, "on average"),
        ({"disagreeing": 2, "voxels": 10_000}, "2 of 10000 labels differ"),
        ({"dice": {"liver": 1.0, "spleen": 0.998}}, "spleen 0.9980"),
        ({"images": 8, "otherwise": 1}, "1 of 8 images: another set, interval or verdict of the gate"),
    ],
)
def test_each_tolerance_is_held(changed, message):
    assert SAME.beyond(Tolerances()) == []
    [found] = replace(SAME, **changed).beyond(Tolerances())
    assert message in found


def test_of_what_is_not_labelled_the_numbers_are_compared():
    measured = Difference(1e-6, 1e-8, 0, 0)
    assert measured.beyond(Tolerances()) == []
    assert "a number differs by 0.02" in replace(measured, largest=0.02).beyond(Tolerances())[0]


def test_sets_ends_of_intervals_and_the_verdict_of_the_gate_are_compared():
    of_parts = {"sex": Prediction(SPACE, confidence=Confidence(set={"": ("f", "m")}))}
    confidence = Confidence(low={"age": 40.0, "size": -math.inf}, high={"age": 60.0, "size": math.inf})
    torchs = Prediction(SPACE, confidence=confidence, parts=of_parts)
    ours = json.loads(json.dumps(backend_trial.stated_promises(torchs)))
    assert ours == {"given": True, "sets": [["", ["f", "m"]]], "ends": [[40.0, 60.0], [None, None]]}
    rounded = replace(torchs, confidence=replace(confidence, low={"age": 40.01, "size": -math.inf}))
    assert not certification.states_otherwise(
        ours, backend_trial.stated_promises(torchs)
    ) and not certification.states_otherwise(ours, backend_trial.stated_promises(rounded))
    for changed in (
        replace(torchs, abstained="it is unlike"),
        replace(torchs, confidence=replace(confidence, low={"age": 39.0, "size": -math.inf})),
        replace(torchs, confidence=replace(confidence, low={"age": 40.0, "size": 3.0})),
        replace(torchs, parts={"sex": Prediction(SPACE, confidence=Confidence(set={"": ("f",)}))}),
    ):
        assert certification.states_otherwise(ours, backend_trial.stated_promises(changed))


def test_a_bound_without_an_upper_end_is_compared_as_an_interval_is():
    """As of a time: its lower bound alone is promised."""
    torchs = Prediction(SPACE, confidence=Confidence(low={"time": 200.0}))
    ours = json.loads(json.dumps(backend_trial.stated_promises(torchs)))
    assert ours["ends"] == [[200.0, None]]
    for low, differs in ((200.5, False), (180.0, True), (-math.inf, True)):
        assert (
            certification.states_otherwise(
                ours, backend_trial.stated_promises(replace(torchs, confidence=Confidence(low={"time": low})))
            )
            == differs
        )


def test_one_voxel_in_ten_thousand_may_differ():
    assert replace(SAME, disagreeing=1, voxels=10_000).beyond(Tolerances()) == []


def test_what_computes_in_bfloat16_is_held_to_tolerances_of_its_own_that_the_certificate_states():
    rounded = replace(SAME, largest=0.1, disagreeing=4, voxels=10_000, dice={"kidney left": 0.9985})
    assert rounded.beyond(TOLERANCES["bfloat16"]) == []
    assert len(rounded.beyond(TOLERANCES["float32"])) == 3
    assert certificate().tolerances == TOLERANCES
    assert {backends.find_backend(name).precision for name in ("torch", "compiled", "onnx", "openvino")} == {"float32"}
    assert {backends.find_backend(name).precision for name in ("torch-bf16", "openvino-bf16")} == {"bfloat16"}


@pytest.mark.whole
def test_a_backend_that_takes_its_process_with_it_takes_nothing_else(package, tmp_path, monkeypatch):
    site, about = tmp_path / "site", tmp_path / "site" / "fatal-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "fatal.py").write_text(
        "import os\nclass Fatal:\n    name, packages, precision = 'fatal', (), 'float32'\n"
        "    def lacking(self, device): return None\n    def files(self, record): return ()\n"
        "    def network(self, folder, device, threads): os._exit(7)\nBACKEND = Fatal()\n"
    )
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: fatal\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[hilum.backends]\nfatal = fatal:BACKEND\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))
    own = Path(shutil.copytree(package, tmp_path / "tiny"))
    found = certification.certify(own, model_files.load(own, "cpu"), names=["fatal"], threads=1).trial("fatal", "cpu")
    assert not found.passed
    assert "ended with 7" in found.because
    assert found.seconds is None
    assert "not accepted" in found.line


def test_nothing_in_the_folder_that_a_command_is_given_in_is_run(package, tmp_path, monkeypatch):
    (tmp_path / "statistics.py").write_text("open('ran', 'w').close()\nfrom math import fsum as median\n")
    monkeypatch.chdir(tmp_path)
    own = Path(shutil.copytree(package, tmp_path / "tiny"))
    assert (
        certification.certify(own, model_files.load(own, "cpu"), names=["torch"], threads=1)
        .trial("torch", "cpu")
        .passed
    )
    assert not (tmp_path / "ran").exists()


def test_a_damaged_certificate_is_refused(package, tmp_path):
    own = Path(shutil.copytree(package, tmp_path / "tiny"))
    certificate().write(own)
    path = own / "hilum" / "certificate.json"
    path.write_text(json.dumps({key: one for key, one in json.loads(path.read_text()).items() if key != "trials"}))
    record_files.seal_folder(own)
    with pytest.raises(IntegrityError, match="not a certificate"):
        model_files.load(own, "cpu", backend="auto")


@pytest.mark.parametrize("model", [segmenting(spacing=(1.5, 1.0, 1.0)), segmenting(), classifying()])
def test_images_of_noise_are_what_the_model_takes_and_always_the_same(model):
    images = list(certification.noise_images(model))
    for image, again in zip(images, certification.noise_images(model), strict=True):
        data, _ = model.preprocessing(image, "noise")
        assert data.shape[0] == len(model.preprocessing.channels)
        assert np.isfinite(data).all()
        np.testing.assert_array_equal(image.data, again.data)
    assert not np.array_equal(images[0].data, images[1].data)


@pytest.mark.parametrize(("unit", "interval"), [("s", 0.04), ("frame", 2.0)])
def test_noise_for_a_model_of_clips_at_even_steps_is_a_whole_clip_and_a_shorter_one(unit, interval):
    model = classifying()
    clips = replace(model.preprocessing, frames=4, interval=interval, time_unit=unit)
    seen = [clips(image, "noise")[0] for image in certification.noise_images(replace(model, preprocessing=clips))]
    assert [int(np.isnan(data).all(axis=(1, 2)).sum()) for data in seen] == [0, 1]
