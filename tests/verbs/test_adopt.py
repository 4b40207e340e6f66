from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

import hilum
from foreign_bundles import bundle
from foreign_folders import result_folder
from hilum.errors import IntegrityError, UsageError
from hilum.runtime.package import certification
from packages import CONFIG, no_export, without_hilum

WITHOUT_TORCH = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("torch is blocked")
sys.meta_path.insert(0, Blocked())
import hilum, numpy
model = hilum.load(sys.argv[1], "cpu", backend="onnx")
numpy.save(sys.argv[3], numpy.asarray(model.predict(sys.argv[2]).data))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return result_folder(
        tmp_path_factory.mktemp("nnunet") / "T__P__3d_fullres", "3d_fullres", folds=(0, 1), mirror=(0,)
    )


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "case.nii.gz"
    noise = np.random.default_rng(5).normal(size=(9, 10, 8)).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    affine = np.array([[-1.0, 0, 0, 3], [0, 1.2, 0, 4], [0, 0, 1.7, 5], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image((noise * 50 + 90).astype(np.float32), affine), path)
    return path


@pytest.fixture(scope="module")
def adopted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adopted") / "package"
    result = hilum.adopt(folder, out=out, backends=())
    assert result.onnx["exported"]
    assert (result.origin, result.networks) == ("nnU-Net v2", 2)
    assert "Hilum has measured nothing of it" in repr(result)
    return out


@pytest.mark.whole
def test_an_adopted_model_says_what_the_folder_says_also_without_torch(folder, adopted, image, tmp_path):
    expected = np.asarray(hilum.load(folder, "cpu").predict(image).data)
    assert len(np.unique(expected)) > 1
    assert np.array_equal(np.asarray(hilum.load(adopted, "cpu").predict(image).data), expected)
    out = tmp_path / "found.npy"
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH, adopted, image, out], check=True)
    assert (np.load(out) == expected).mean() > 0.9999


@pytest.mark.whole
def test_the_page_of_an_adopted_model_has_no_name_from_the_code_and_no_limit_of_figures_that_are_not_there(adopted):
    page = (adopted / "docs" / "README.md").read_text()
    assert "\n\nSegmentation of " in page and "imported" not in page.lower()
    assert "there are no figures for this model" in page and "The figures hold" not in page
    assert " x 1" not in page.partition("| mirrored views |")[2].partition("\n")[0]


@pytest.mark.whole
def test_predict_says_once_that_a_folder_would_be_faster_adopted_and_nothing_of_a_package(
    folder, adopted, image, tmp_path, caplog
):
    def said(model: Path) -> list[str]:
        caplog.clear()
        with caplog.at_level("INFO", "hilum"):
            hilum.predict(model, [image, image], device="cpu")
        return [line for line in caplog.messages if "adopt" in line]

    [line] = said(folder)
    assert f"hilum adopt {folder} --out PACKAGE makes predicting faster: " in line
    assert "3.2 times with 10 volumes" in line
    assert said(adopted) == []
    assert said(bundle(tmp_path / "bundle")) == []  # its network is not ours to pack


@pytest.mark.whole
def test_an_adopted_model_runs_in_monai_without_hilum(folder, adopted, image, tmp_path):
    words = ("-m", "monai.bundle", "run", "--config_file", CONFIG, "--dataset_dir", image)
    done = without_hilum(adopted, *words, "--output_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = np.asarray(nibabel.load(tmp_path / "out" / "case.nii.gz").dataobj)
    expected = np.asarray(hilum.load(folder, "cpu").predict(image).data)
    assert (found == expected).mean() > 0.9999


def test_what_is_trusted_is_said_in_the_package(tmp_path):
    source = result_folder(tmp_path / "folder", "3d_fullres")
    checkpoint = source / "fold_all" / "checkpoint_final.pth"
    torch.save({**torch.load(checkpoint, weights_only=False), "took": timedelta(seconds=1)}, checkpoint)
    with pytest.raises(IntegrityError, match=r"--trust datetime\.timedelta"):
        hilum.adopt(source, out=tmp_path / "one", backends=())
    assert not (tmp_path / "one").exists()
    out = tmp_path / "two"
    with no_export():
        result = hilum.adopt(source, out=out, trust=["datetime.timedelta"], backends=())
    assert "trusting datetime.timedelta" in repr(result)
    record = json.loads((out / "hilum" / "model.json").read_text())
    assert record["decisions"]["adopt.trust"]["value"] == ["datetime.timedelta"]
    assert any("datetime.timedelta" in limit for limit in record["record"]["limits"])


def test_what_is_no_model_of_another_program_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not a model of another program"):
        hilum.adopt(tmp_path, out=tmp_path / "out")


@pytest.mark.parametrize("given", [{"source": "nowhere"}, {"images": "nowhere"}])
def test_what_is_not_there_is_refused_before_anything_is_opened(tmp_path, given):
    given = {key: tmp_path / name for key, name in given.items()}
    with pytest.raises(UsageError, match=r"nowhere: there is no such file or folder"):
        hilum.adopt(**{"source": tmp_path, **given}, out=tmp_path / "out")


@pytest.mark.whole
def test_a_network_of_slices_is_certified_with_slices_of_noise_for_what_predict_would_take_here(tmp_path):
    slices = result_folder(tmp_path / "T__P__2d", "2d", spacing=(1.3, 0.9), patch=(16, 12), mirror=None)
    [noise, _] = certification.noise_images(hilum.load(slices, "cpu"))
    assert noise.geometry.shape == (12, 24, 1)
    assert noise.geometry.spacing == (0.9, 1.3, 1.0)
    result = hilum.adopt(slices, out=tmp_path / "package", threads=1)
    passed = {trial.backend: trial.passed for trial in result.certificate.trials}
    tried = list(passed)
    assert tried[0] == "torch" and passed["torch"] and passed["onnx"]
    assert not set(tried) & {"compiled", "tensorrt"}  # minutes to the first result
    assert "For others: --backends all" in repr(result)
    taken = hilum.load(tmp_path / "package", backend="auto").networks.computing.value
    assert taken.rpartition(" ")[2] in tried


def test_a_cascade_is_used_as_it_is(tmp_path):
    result_folder(tmp_path / "T__P__3d_lowres", "3d_lowres")
    second = result_folder(tmp_path / "T__P__3d_cascade_fullres", "3d_cascade_fullres", previous="3d_lowres", inputs=3)
    with pytest.raises(UsageError, match="cascade of two networks"):
        hilum.adopt(second, out=tmp_path / "out")
