"""What a package is, and that it runs elsewhere as it does here."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
import urllib.error
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import jsonschema
import nibabel
import numpy as np
import onnxruntime
import PIL.Image
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import hilum
from hilum.errors import IntegrityError, UsageError
from hilum.runtime import model_files, record_files
from hilum.runtime.package import monai_metadata, onnx_export
from hilum.runtime.package.backends import onnx
from packages import (
    CONFIG,
    METADATA,
    TINY,
    bundle_checked_and_run,
    changed,
    classifying,
    no_export,
    of_folds,
    packed,
    segmenting,
    without_hilum,
)

torch.set_num_threads(1)

# Required by MONAI's specification of bundles, "metadata.json File" and its tensor format specifiers.
TENSOR = {
    "type": "object",
    "properties": {
        "type": {"enum": ["image", "series", "tuples", "probabilities"]},
        "format": {"enum": ["magnitude", "hounsfield", "labels", "classes", "segmentation", "raw", "kspace"]},
        "num_channels": {"type": "integer", "minimum": 1},
        "spatial_shape": {"type": "array", "items": {"type": ["integer", "string"]}},
        "dtype": {"type": "string"},
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": [
        *("type", "format", "modality", "num_channels", "spatial_shape", "dtype", "value_range"),
        *("is_patch_data", "channel_def"),
    ],
}
SCHEMA = {
    "type": "object",
    "properties": {
        **{name: {"type": "string"} for name in ("version", "monai_version", "pytorch_version", "numpy_version")},
        **{name: {"type": "string"} for name in ("task", "description", "authors", "copyright")},
        "changelog": {"type": "object", "additionalProperties": {"type": "string"}},
        "required_packages_version": {"type": "object", "additionalProperties": {"type": "string"}},
        "network_data_format": {
            "type": "object",
            "properties": {
                "inputs": {"type": "object", "properties": {"image": TENSOR}, "required": ["image"]},
                "outputs": {"type": "object", "properties": {"pred": TENSOR}, "required": ["pred"]},
            },
            "required": ["inputs", "outputs"],
        },
    },
    "required": [
        *("version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version"),
        *("task", "description", "authors", "copyright", "network_data_format", "changelog"),
    ],
}
OBLIQUE = np.array([[-1.1, 0.2, 0, 30], [0.2, 1.1, -0.15, -12], [0, 0.15, 1.3, 7], [0, 0, 0, 1.0]])


@pytest.fixture(scope="module")
def folds(tiny):
    """A model of two networks with a window each that mirrors across left and right and resamples, and its package."""
    return TINY["folds"](), tiny("folds")


@pytest.fixture(scope="module")
def single(tiny):
    """A model of one network that takes the voxels as they are, and its package."""
    return TINY["single"](), tiny("single")


@pytest.fixture(scope="module")
def pictured(tiny):
    """A model of pictures, one of whose classes has a name that MONAI would take for code, and its package."""
    return TINY["pictured"](), tiny("pictured")


@pytest.fixture
def own(single, tmp_path):
    """A package of one's own, to be damaged."""
    return Path(shutil.copytree(single[1], tmp_path / "tiny"))


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volumes")
    for n, kind in enumerate((np.int16, np.float32)):
        voxels = np.random.default_rng(n).normal(100, 30, (15, 13, 9 + n)).astype(kind)
        nibabel.Nifti1Image(voxels, OBLIQUE).to_filename(folder / f"case{n}.nii.gz")
    scaled = nibabel.Nifti1Image(np.random.default_rng(7).integers(0, 900, (9, 9, 9)).astype(np.int16), None)
    scaled.header.set_slope_inter(0.5, -1000)
    scaled.header.set_xyzt_units("mm")
    scaled.to_filename(folder / "scaled.nii")
    return folder


def same_masks(model, images, out, share):
    """Hilum's own results, and those of the package on its own, side by side."""
    for path in sorted(images.iterdir()):
        expected = np.asarray(model.predict(path).data)
        found = nibabel.load(out / f"{path.name.partition('.')[0]}.nii.gz")
        assert_allclose(found.affine, nibabel.load(path).affine, atol=1e-4)
        assert np.mean(np.asarray(found.dataobj) == expected) >= share
        assert len(np.unique(expected)) > 1  # or all would be the same by being nothing


@pytest.fixture(scope="module")
def ran(folds, volumes, tmp_path_factory):
    """What MONAI said of the package of two networks, and its results; one image has no known sides."""
    room = tmp_path_factory.mktemp("ran")
    return bundle_checked_and_run(folds[1], volumes, room / "out"), room / "out"


def test_several_networks_that_resample_and_mirror_give_the_same_voxels_too(folds, volumes, ran, tmp_path):
    for path in volumes.glob("case*"):
        shutil.copy(path, tmp_path)
    same_masks(folds[0], tmp_path, ran[1], share=0.999)


def test_a_case_that_cannot_be_predicted_is_named_and_the_others_are_there(ran):
    done, out = ran
    assert done.returncode != 0
    assert "left and right are not known" in done.stderr
    assert sorted(path.name for path in out.glob("*.nii.gz")) == ["case0.nii.gz", "case1.nii.gz"]
    assert len(json.loads((out / "predictions.json").read_text())["failed"]) == 1


def test_monai_finds_that_the_networks_fit_their_description_and_no_property_missing(ran):
    assert "verified with no error" in ran[0].stdout
    assert "missing properties: []" in ran[0].stdout


@pytest.mark.whole
def test_pictures_get_the_same_probabilities_and_class(pictured, tmp_path):
    model, package = pictured
    (tmp_path / "in").mkdir()
    for n in range(3):
        pixels = np.random.default_rng(n).integers(0, 255, (20 + n, 24)).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(tmp_path / "in" / f"{n}.png")
    done = bundle_checked_and_run(package, tmp_path / "in", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "verified with no error" in done.stdout
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["0", "1", "2"]
    for row in rows:
        expected = model.task.outputs(model.predict(row["image"]))
        assert row["predicted"] == expected["predicted"]
        for name in ("probability_$benign", "probability_malignant"):
            assert float(row[name]) == pytest.approx(expected[name], abs=1e-6)


@pytest.mark.parametrize("kind", ["single", "folds", "pictured"])
def test_the_metadata_have_what_monais_specification_requires(kind, request):
    metadata = json.loads((request.getfixturevalue(kind)[1] / METADATA).read_text())
    jsonschema.validate(metadata, SCHEMA)
    pred = metadata["network_data_format"]["outputs"]["pred"]
    assert len(pred["channel_def"]) == pred["num_channels"]


def test_the_metadata_pass_monais_own_schema(single, tmp_path):
    from monai.bundle import verify_metadata

    try:
        verify_metadata(meta_file=str(single[1] / METADATA), filepath=str(tmp_path / "schema.json"))
    except (urllib.error.URLError, OSError) as error:
        pytest.skip(f"the schema cannot be fetched: {error}")


def test_no_name_of_a_class_is_taken_for_code(pictured):
    package = pictured[1]
    config = json.loads((package / CONFIG).read_text())
    names = json.loads((package / METADATA).read_text())["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert not any(name.startswith(("$", "@", "%")) for name in names.values())
    assert "$benign" not in json.dumps(config)


def test_the_required_packages_are_those_that_the_scripts_import(single, pictured):
    needed = [json.loads((one[1] / METADATA).read_text())["required_packages_version"] for one in (single, pictured)]
    assert set(needed[0]) == {"nibabel", "scipy"}
    assert {"nibabel", "pillow", "imagecodecs"} <= set(needed[1])


def test_a_network_of_a_library_names_it_with_its_version():
    model = classifying("timm", model="resnet10t")
    found = monai_metadata.metadata_json(model, ["timm", "torch", "nibabel"], {"version": "1"})
    assert found["required_packages_version"] == {name: version(name) for name in ("nibabel", "timm")}


def test_authors_and_copyright_are_what_the_environment_says(monkeypatch, single):
    assert json.loads((single[1] / METADATA).read_text())["authors"] == "not stated"
    monkeypatch.setenv("HILUM_AUTHORS", "A. Person")
    monkeypatch.setenv("HILUM_COPYRIGHT", "Some Hospital")
    found = monai_metadata.metadata_json(single[0], [], {"version": "1"})
    assert (found["authors"], found["copyright"]) == ("A. Person", "Some Hospital")


@pytest.mark.parametrize("kind", ["single", "folds", "pictured"])
def test_a_package_that_is_loaded_is_the_model_that_was_packaged(kind, request):
    model, package = request.getfixturevalue(kind)
    again = hilum.load(package, "cpu")
    for part in ("task", "preprocessing", "inference", "network"):
        assert again.settings[part] == json.loads(json.dumps(model.settings[part]))
    batch = np.random.default_rng(0).normal(size=(2, 1, *model.inference.patch)).astype(np.float32)
    head = next(iter(model.task.heads))
    assert_array_equal(again.networks.run(batch)[head], model.networks.run(batch)[head])


def test_one_of_several_networks_can_be_picked(folds):
    model, package = folds
    batch = np.random.default_rng(0).normal(size=(1, 1, 8, 8, 4)).astype(np.float32)
    second = model_files.load(package, "cpu", fold=1)
    assert_array_equal(second.networks.run(batch)["mask"], model.networks.run.members[1](batch)["mask"])
    with pytest.raises(UsageError, match="fold 2"):
        model_files.load(package, "cpu", fold=2)


def test_networks_of_a_first_stage_that_have_scales_of_their_own_are_so_described(tmp_path):
    """Else MONAI would build them without, and find no place for a part of their weights."""
    with no_export():
        package = packed(replace(segmenting(), first=of_folds()), tmp_path / "package")
    config = json.loads((package / CONFIG).read_text())
    ends = {name: [one["_target_"] for one in config[name]["networks"]] for name in ("network_before", "network_def")}
    assert ends["network_before"] == ["scripts.network.OnItsScale"] * 2
    assert not any("OnItsScale" in target for target in ends["network_def"])


@pytest.mark.parametrize("kind", ["single", "folds"])
def test_the_state_dictionary_holds_tensors_alone_and_onnx_says_the_same(kind, request):
    model, package = request.getfixturevalue(kind)
    state = torch.load(package / "models" / "model.pt", weights_only=True)
    assert all(isinstance(one, torch.Tensor) for one in state.values())
    batch = np.random.default_rng(0).normal(size=(3, 1, 8, 8, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(package / "models" / "model.onnx"))
    [found] = session.run(None, {"image": batch})
    assert_allclose(found, model.networks.run(batch)["mask"], atol=1e-4)
    assert record_files.read_json(package / "hilum" / "model.json", "hilum.model")["onnx"]["exported"]


def test_a_network_that_onnx_cannot_hold_leaves_no_file_and_a_reason(tmp_path):
    class Stubborn(torch.nn.Module):
        def forward(self, images):
            return torch.linalg.eigvals(images).real

    record = onnx_export.write_onnx(Stubborn(), (1, 4, 4), tmp_path / "model.onnx")
    assert record["exported"] is False
    assert "linalg_eig" in record["because"]
    assert not list(tmp_path.iterdir())


@pytest.mark.whole
def test_weights_too_large_for_one_file_lie_beside_the_onnx_file_and_are_read_with_it(tmp_path):
    network = torch.nn.Conv2d(1, 40, 9)
    (tmp_path / "models").mkdir()
    record = onnx_export.write_onnx(network, (1, 16, 16), tmp_path / "models" / "model.onnx", inside=1000)
    assert record["beside"] == ["models/model.onnx.data"]
    assert (tmp_path / "models" / "model.onnx.data").stat().st_size >= 40 * 81 * 4
    images = np.random.default_rng(0).normal(size=(1, 1, 16, 16)).astype(np.float32)
    found = onnx.open_onnx(tmp_path / "models" / "model.onnx", ["mask"], ["CPUExecutionProvider"], 1)(images)["mask"]
    with torch.inference_mode():
        assert_allclose(found, network(torch.from_numpy(images)).numpy(), atol=1e-5)


def test_the_manifest_lists_every_file(single):
    package = single[1]
    listed = record_files.read_json(package / "manifest.json", "hilum.manifest")["sha256"]
    files = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert set(listed) == files - {"manifest.json"}
    assert listed["models/model.pt"] == record_files.file_digest(package / "models" / "model.pt")


def test_the_license_is_that_of_hilum(single):
    assert (single[1] / "LICENSE").read_text() == (Path(__file__).parents[2] / "LICENSE").read_text()


def test_classes_keep_their_colours(single):
    labels = record_files.read_json(single[1] / "hilum" / "model.json", "hilum.model")["labels"]
    assert labels[0] == {"value": 3, "name": "kidney left", "colour": [255, 0, 0]}


@pytest.mark.parametrize("name", ["hilum/weights.safetensors", "models/model.pt", "scripts/inference.py"])
def test_a_tampered_file_is_refused(own, name):
    content = bytearray((own / name).read_bytes())
    content[-1] ^= 1
    (own / name).write_bytes(content)
    with pytest.raises(IntegrityError, match=f"{name}.*SHA-256 differs"):
        model_files.load(own, "cpu")


@pytest.mark.parametrize("name", ["hilum/weights.safetensors", "hilum/model.json", "models/model.onnx"])
def test_a_missing_file_is_named(own, name):
    (own / name).unlink()
    with pytest.raises(IntegrityError, match=f"{name}.*missing"):
        model_files.load(own, "cpu")


def test_a_package_of_another_version_is_refused(own):
    changed(own, "hilum/model.json", version=99)
    with pytest.raises(IntegrityError, match=r"another version.*wrote it"):
        model_files.load(own, "cpu")


def test_weights_that_the_manifest_does_not_list_are_not_read(own):
    listed = record_files.read_json(own / "manifest.json", "hilum.manifest")["sha256"]
    del listed["hilum/weights.safetensors"]
    record = {"schema": "hilum.manifest", "version": 1, "sha256": listed}
    (own / "manifest.json").write_text(json.dumps(record))
    with pytest.raises(IntegrityError, match="does not list"):
        model_files.load(own, "cpu")


def test_a_manifest_that_leads_out_of_the_folder_is_refused(own, tmp_path):
    (tmp_path / "outside").write_text("x")
    record = record_files.read_json(own / "manifest.json", "hilum.manifest")
    record["sha256"]["../outside"] = record_files.file_digest(tmp_path / "outside")
    (own / "manifest.json").write_text(json.dumps(record))
    with pytest.raises(IntegrityError, match="outside its folder"):
        model_files.load(own, "cpu")


@pytest.mark.parametrize("count", [0, 2, 10**9, "one"])
def test_a_number_of_networks_that_is_not_there_is_refused(own, count):
    changed(own, "hilum/model.json", members=count)
    with pytest.raises(IntegrityError):
        model_files.load(own, "cpu")


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def test_a_pickle_in_place_of_the_weights_never_runs(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (own / "models" / "model.pt").write_bytes(pickle.dumps(Bomb()))
    record_files.seal_folder(own)
    model_files.load(own, "cpu")  # it reads safetensors alone
    code = "import scripts.inference as i, scripts.network as n; "
    code += "i.inferer('hilum/model.json', 'models/model.pt', n.OneTensor([], ''), None, None, 'cpu')"
    done = without_hilum(own, "-c", code)
    assert "UnpicklingError" in done.stderr
    assert not list(tmp_path.rglob("exploded"))
