"""`calibrate` for models of other programs: nnU-Net becomes a package, MONAI bundles and ONNX stay as they are."""

import json
import shutil

import nibabel
import numpy as np
import onnx
import PIL.Image
import pytest
from onnx import TensorProto, helper

import foreign_bundles
import foreign_folders
import hilum
import trained
from hilum.errors import IntegrityError, PlanError, UsageError
from packages import no_export


def network_of_means(folder, *, times=40.0):
    """Two classes by the mean of a picture, and far too sure of them."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Sub", ["mean", "middle"], ["apart"]),
        helper.make_node("Mul", ["apart", "scale"], ["column"]),
        helper.make_node("Reshape", ["column", "shape"], ["one"]),
        helper.make_node("Mul", ["one", "sides"], ["pred"]),
    ]
    numbers = {"middle": [0.47], "scale": [times], "sides": [-1.0, 1.0]}
    weights = [helper.make_tensor(name, TensorProto.FLOAT, [len(own)], own) for name, own in numbers.items()]
    weights.append(helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 1]))
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, "x", "y"])
    stated = helper.make_tensor_value_info("pred", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "network", [given], [stated], weights)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "network.onnx"
    )
    described = {"labels": ["bright", "dark"], "channels": ["grey"], "patch": [24, 24]}
    described["normalisation"] = [{"method": "range", "low": 0, "high": 255, "mean": 0, "deviation": 1}]
    (folder / "network.json").write_text(json.dumps(described))
    return folder / "network.onnx"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Forty pictures, every fourth of the other class than it looks like."""
    folder = trained.pictures(tmp_path_factory.mktemp("site"), count=40)
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        if number % 4 == 0:
            other = {"bright": "dark", "dark": "bright"}[path.parent.name]
            shutil.move(path, folder / other / f"moved_{path.name}")
    return folder


@pytest.fixture(scope="module")
def calibrated(site, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    source = network_of_means(folder / "maker")
    return source, hilum.calibrate(source, site, out=folder / "calibrated")


def test_an_onnx_file_is_kept_as_it_joins_primary_what_a_sites_cases_say_of_it(site, calibrated, tmp_path):
    source, made = calibrated
    assert made.decisions["task.calibration"].value["cases"] == 40
    assert {"task.calibration", "task.thresholds", "task.conformal"} <= set(made.decisions)
    assert (made.out / "network.onnx").read_bytes() == source.read_bytes()
    kept = json.loads((made.out / "calibrated.json").read_text())
    assert kept["limits"][-1] == "Calibrated on 40 cases after training."  # nothing was measured of it
    assert kept["limits"][-2].startswith("Which cases trained it is not known")
    assert "warning: Which cases trained it is not known" in repr(made)
    picture = next(site.rglob("*.png"))
    before, after = (hilum.load(path).predict(picture) for path in (source, made.out))
    assert max(before.probabilities.values()) > max(after.probabilities.values())  # three in four are right
    assert after.confidence.uncalibrated == pytest.approx(before.probabilities, abs=1e-6)
    assert after.confidence.set and not before.confidence.set
    table = hilum.predict(made.out, picture, out=tmp_path / "predicted").table
    assert json.loads(table["set"][0]) == list(after.confidence.set[""])


def test_cases_that_calibrated_it_are_refused_a_second_time_and_a_changed_file_at_all(site, calibrated, tmp_path):
    _, made = calibrated
    with pytest.raises(UsageError, match=r"40 cases with the same content trained"):
        hilum.calibrate(made.out, site, out=tmp_path / "twice")
    more = trained.pictures(tmp_path / "more", count=12, first=500)
    again = hilum.calibrate(made.out, more, out=tmp_path / "again")
    assert again.decisions["task.calibration"].value["cases"] == 12
    assert len(hilum.load(again.out).record["trained"]) > len(hilum.load(made.out).record["trained"])
    record = again.out / "calibrated.json"
    record.write_text(record.read_text().replace('"level": 0.9', '"level": 0.8'))
    with pytest.raises(IntegrityError, match="SHA-256"):
        hilum.load(again.out)


def test_a_model_of_another_program_gets_a_gate_for_images_like_those_of_the_site(calibrated, tmp_path):
    source, made = calibrated
    assert "20 of the site's cases stand for those that trained the model" in made.decisions["guard.gate"].because
    stripes = np.zeros((24, 24), np.uint8)
    stripes[::2] = 255
    PIL.Image.fromarray(stripes).save(tmp_path / "odd.png")
    assert "differs from that of the training cases" in hilum.load(made.out).predict(tmp_path / "odd.png").abstained
    assert hilum.load(source).predict(tmp_path / "odd.png").abstained is None
    record = json.loads((made.out / "calibrated.json").read_text())
    assert record["guard"]["trained"] == 20 and record["decisions"]["guard.gate"]["value"] is True


@pytest.mark.whole
def test_the_last_class_of_a_model_of_another_program_is_positive_unless_somebody_decides(site, calibrated, tmp_path):
    source, made = calibrated
    assert list(made.decisions["task.thresholds"].value) == ["dark"]
    with pytest.raises(UsageError, match="dark is positive in this model"):
        hilum.evaluate(made.out, site, positive="bright")
    few = trained.pictures(tmp_path / "few", count=24, first=900)
    taken = hilum.evaluate(source, few, device="cpu")
    assert any(note.startswith("Nobody has stated which class is positive: dark") for note in taken.notes)
    chosen = hilum.evaluate(source, few, device="cpu", positive="bright")
    assert not any("positive" in note for note in chosen.notes)
    assert chosen.scored.task.positives == ("bright",)
    own = hilum.calibrate(source, few, out=tmp_path / "out", positive="bright")
    assert list(own.decisions["task.thresholds"].value) == ["bright"]
    assert hilum.load(own.out).task.positives == ("bright",)


def test_the_description_of_an_onnx_file_may_name_the_positive_class(tmp_path):
    source = network_of_means(tmp_path)
    described = json.loads(source.with_suffix(".json").read_text())
    source.with_suffix(".json").write_text(json.dumps({**described, "positive": "bright"}))
    assert hilum.load(source).task.positives == ("bright",)
    source.with_suffix(".json").write_text(json.dumps({**described, "positive": "grey"}))
    with pytest.raises(PlanError, match=r"network\.json: there is no class 'grey'"):
        hilum.load(source)


def test_few_cases_of_a_site_give_a_model_of_another_program_no_gate_and_it_is_stated_why(calibrated, tmp_path):
    source, _ = calibrated
    few = trained.pictures(tmp_path / "few", count=14, first=700)
    made = hilum.calibrate(source, few, out=tmp_path / "calibrated")
    decision = made.decisions["guard.gate"]
    assert decision.value is False and "14 patients of at least 20 are too few" in decision.because
    assert hilum.load(made.out).guard is None


def test_what_only_packages_have_is_refused_for_it(site, calibrated, tmp_path):
    source, _ = calibrated
    for how in ({"out": tmp_path / "model.zip"}, {"out": tmp_path / "model", "backends": ("onnx",)}):
        with pytest.raises(UsageError, match="Give a folder as --out"):
            hilum.calibrate(source, site, **how)


def volumes(root, model, *, count=6):
    """Noise, and what a model says of it with a tenth of the voxels wrong."""
    for number in range(count):
        noise = np.random.default_rng(number).normal(100, 30, size=(16, 18, 14)).astype(np.float32)
        for folder in ("images", "labels"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        image = root / "images" / f"case{number}.nii.gz"
        nibabel.Nifti1Image(noise, np.diag([1.5, 1.5, 2.0, 1])).to_filename(image)
        said = np.asarray(model.predict(image).data).astype(np.uint8)
        wrong = np.random.default_rng(100 + number).uniform(size=said.shape) < 0.1
        said[wrong] = np.random.default_rng(200 + number).integers(0, 3, size=int(wrong.sum()))
        nibabel.Nifti1Image(said, np.diag([1.5, 1.5, 2.0, 1])).to_filename(root / "labels" / f"case{number}.nii.gz")
    return root


@pytest.mark.whole
def test_a_monai_bundle_states_calibrated_probabilities_and_intervals_of_the_same_label_maps(tmp_path):
    source = foreign_bundles.bundle(tmp_path / "bundle")
    before = hilum.load(source, "cpu")
    data = volumes(tmp_path / "site", before)
    made = hilum.calibrate(source, data, out=tmp_path / "calibrated", labels="1=liver,2=tumour")
    assert {"task.calibration", "task.expected_dice", "task.conformal", "task.covering"} <= set(made.decisions)
    after, image = hilum.load(made.out, "cpu"), data / "images" / "case0.nii.gz"
    ours, theirs = after.predict(image), before.predict(image)
    assert np.array_equal(np.asarray(ours.data), np.asarray(theirs.data))
    assert ours.confidence.expected and not theirs.confidence.expected
    assert after.task.certainty.calibrator.settings == made.decisions["task.calibration"].value


@pytest.mark.whole
def test_an_nnunet_folder_becomes_a_package_that_is_calibrated(tmp_path):
    source = foreign_folders.result_folder(tmp_path / "folder", "3d_fullres")
    before = hilum.load(source, "cpu")
    data = volumes(tmp_path / "site", before)
    with no_export():
        made = hilum.calibrate(source, data, out=tmp_path / "package", labels="1=anterior,2=posterior", backends=())
    assert made.decisions["task.calibration"].value["cases"] == 6
    after, image = hilum.load(made.out, "cpu"), data / "images" / "case0.nii.gz"
    ours, theirs = after.predict(image), before.predict(image)
    assert np.array_equal(np.asarray(ours.data), np.asarray(theirs.data))
    assert ours.confidence.expected and not theirs.confidence.expected


@pytest.mark.whole
def test_regions_of_which_only_the_marks_are_known_are_refused_instead_of_being_left_uncalibrated(tmp_path):
    described = {"labels": {"bright": 1, "brighter": 2}, "channels": ["CT"], "patch": [4, 4, 4], "outputs": "regions"}
    described["normalisation"] = [{"method": "zscore"}]
    (tmp_path / "network.json").write_text(json.dumps(described))
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, "x", "y", "z"])
    stated = helper.make_tensor_value_info("pred", TensorProto.FLOAT, None)
    twice = helper.make_node("Concat", ["image", "image"], ["pred"], axis=1)
    graph = helper.make_graph([twice], "network", [given], [stated])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "network.onnx"
    )
    data = volumes(tmp_path / "site", hilum.load(tmp_path / "network.onnx"), count=3)
    with pytest.raises(UsageError, match="correspond to labels that could be calibrated"):
        hilum.calibrate(tmp_path / "network.onnx", data, out=tmp_path / "out", labels="1=bright,2=brighter")
    assert not (tmp_path / "out").exists()
