from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

import hilum
from foreign_folders import LABELS, network_of, prediction, result_folder
from hilum.errors import FormatError, GeometryError, IntegrityError, UsageError
from hilum.evaluation import mask_overlap
from hilum.values import Geometry, Image
from matrices import thinned

SPACING = (1.0, 1.2, 1.7)
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}


def volume(channels: int = 1, spacing: tuple[float, ...] = SPACING, shape: tuple[int, ...] = (22, 20, 18)) -> Image:
    """Smooth noise with a border of nothing, on a grid that is turned and flipped."""
    noise = np.random.default_rng(3).normal(size=(channels, *(n // 2 + 1 for n in shape)))
    data = noise.repeat(2, 1).repeat(2, 2).repeat(2, 3)[:, : shape[0], : shape[1], : shape[2]] * 60 + 90
    data = data.astype(np.float32)
    data[:, :2], data[:, :, -3:] = 0, 0
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, -1, 0], [1, 0, 0], [0, 0, -1]]) * spacing
    return Image(data, Geometry(shape, affine))


def agrees(folder: Path, image: Image, **how: object) -> bool:
    """Whether our prediction is nnU-Net's, written plainly for whole arrays; and neither is all one label."""
    found = np.asarray(hilum.load(folder, "cpu").predict(image).data)
    arrays, spacing = image.data.transpose(0, 3, 2, 1), image.geometry.steps[::-1]
    expected = prediction(folder, arrays, spacing, **how).transpose(2, 1, 0)  # type: ignore[arg-type]
    assert len(np.unique(expected)) > 1
    return bool((found == expected).mean() >= 0.9995)


@pytest.mark.parametrize("case", ["hippocampus_160"])
def test_a_network_that_nnunet_trained_says_what_it_says_in_nnunet(corpus, case):
    model = hilum.load(corpus / "nnunet_hippocampus", "cpu")
    assert [label.name for label in model.task.labels] == ["anterior", "posterior"]
    assert model.flips() == (0, 1, 2)
    found = np.asarray(model.predict(corpus / "hippocampus" / "images" / f"{case}.nii.gz").data)
    file = nibabel.load(corpus / "nnunet_hippocampus" / "predictions" / f"{case}.nii.gz")
    expected = np.asarray(file.dataobj)
    assert (found == expected).mean() >= 0.9995
    assert min(mask_overlap.overlap_of_masks(found == value, expected == value).dice for value in (1, 2)) >= 0.998


@pytest.mark.parametrize("residual", thinned(1, [False, True]), ids=["plain", "residual"])
def test_resampling_and_windows_are_those_of_nnunet(tmp_path, residual):
    assert agrees(result_folder(tmp_path, "3d_fullres", residual=residual), volume())


def test_slices_far_apart_and_axes_in_another_order_are_those_of_nnunet(tmp_path):
    folder = result_folder(tmp_path, "3d_lowres", spacing=(4.0, 1.0, 1.0), patch=(8, 16, 16), transpose=(2, 0, 1))
    assert agrees(folder, volume(spacing=(3.9, 0.8, 0.9)))


@pytest.mark.whole
def test_several_channels_folds_and_a_mask_of_the_content_are_those_of_nnunet(tmp_path):
    labels = {**LABELS, "ignore": 3}
    folder = result_folder(
        tmp_path, "3d_fullres", labels=labels, channels=2, masked=True, folds=(0, 3), mirror=(0, 2), outputs=3
    )
    model = hilum.load(folder, "cpu")
    assert (len(model.networks.members), model.record["folds"]) == (2, ["0", "3"])
    assert [label.name for label in model.task.labels] == ["anterior", "posterior"]
    assert agrees(folder, volume(2), folds=(0, 3), mirror=(0, 2))


def test_one_fold_may_be_chosen_and_no_other(tmp_path):
    folder = result_folder(tmp_path, "3d_fullres", folds=("all", 1), mirror=None)
    with pytest.raises(UsageError, match="no fold 2"):
        hilum.load(folder, "cpu", fold=2)
    window = np.random.default_rng(0).normal(size=(1, 1, 16, 16, 16)).astype(np.float32)
    with torch.inference_mode():
        expected = network_of(folder, 1)(torch.from_numpy(window))["mask"].numpy()
    for fold in (None, 1):  # of folds and a network of all cases nnU-Net takes the folds
        np.testing.assert_allclose(
            hilum.load(folder, "cpu", fold=fold).networks.run(window)["mask"], expected, atol=1e-5
        )


def test_a_network_of_two_axes_goes_through_a_volume_slice_by_slice(tmp_path):
    folder = result_folder(tmp_path, "2d", spacing=(1.3, 0.9), patch=(16, 12), mirror=(0, 1), scheme="CTNormalization")
    model = hilum.load(folder, "cpu")
    assert (model.inference.patch, model.flips(), model.preprocessing.modality) == ((1, 16, 12), (1, 2), "CT")
    assert agrees(folder, volume(), mirror=(0, 1))


def test_a_picture_is_one_slice(tmp_path):
    reader = "NaturalImage2DIO"
    folder = result_folder(tmp_path, "2d", spacing=(1.0, 1.0), patch=(16, 12), mirror=(0, 1), reader=reader)
    pixels = volume().data[:, :, :, 6]
    found = hilum.load(folder, "cpu").predict(Image(pixels, Geometry.of_pixels(pixels.shape[1:])))
    expected = prediction(folder, pixels[:, None], (999.0, 1.0, 1.0), mirror=(0, 1))[0]
    assert np.asarray(found.data).shape == pixels.shape[1:]
    assert (np.asarray(found.data) == expected).mean() >= 0.9995


def test_a_network_of_volumes_refuses_a_picture(tmp_path):
    """A screenshot in a study would otherwise be stretched to a volume of 999 mm, for minutes."""
    pixels = volume().data[:, :, :, 6]
    model = hilum.load(result_folder(tmp_path, "3d_fullres", mirror=None), "cpu")
    with pytest.raises(GeometryError, match="is a picture, and the model works in volumes"):
        model.predict(Image(pixels, Geometry.of_pixels(pixels.shape[1:])))


def test_regions_are_written_one_over_another(tmp_path):
    folder = result_folder(tmp_path, "3d_fullres", labels=REGIONS, regions_class_order=[1, 2, 3])
    names = {label.value: label.name for label in hilum.load(folder, "cpu").task.labels}
    assert names == {1: "whole (rest)", 2: "core (rest)", 3: "enhancing"}
    assert hilum.load(folder, "cpu").task.structures == {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    assert agrees(folder, volume())


@pytest.mark.whole
def test_a_cascade_shows_its_second_network_what_the_first_said(tmp_path):
    first = result_folder(tmp_path / "T__P__3d_lowres", "3d_lowres", spacing=(2.0, 2.0, 2.0), patch=(8, 8, 8))
    second = result_folder(
        tmp_path / "T__P__3d_cascade_fullres", "3d_cascade_fullres", previous="3d_lowres", inputs=3, mirror=None
    )
    image = volume()
    arrays, spacing = image.data.transpose(0, 3, 2, 1), image.geometry.steps[::-1]
    earlier = prediction(first, arrays, spacing)
    assert agrees(second, image, earlier=earlier, mirror=())
    hilum.write(image, tmp_path / "case.nii.gz")
    done = hilum.predict(second, tmp_path / "case.nii.gz", out=tmp_path / "out", device="cpu")
    found = np.asarray(hilum.load(second, "cpu").predict(tmp_path / "case.nii.gz").data)
    assert np.array_equal(hilum.read(done.files[0]).data[0], found)
    first.rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="T__P__3d_lowres is not beside it"):
        hilum.load(second, "cpu")


def test_plans_of_older_versions_say_the_same_in_other_words(tmp_path):
    folder = result_folder(tmp_path, "3d_fullres", mirror=None)
    before = np.asarray(hilum.load(folder, "cpu").predict(volume()).data)
    plans = json.loads((folder / "plans.json").read_text())
    planned = plans["configurations"]["base"]
    del planned["architecture"]
    planned |= {"UNet_class_name": "PlainConvUNet", "UNet_base_num_features": 4, "unet_max_num_features": 320}
    planned |= {"n_conv_per_stage_encoder": [2, 2], "n_conv_per_stage_decoder": [1]}
    planned |= {"conv_kernel_sizes": [[3] * 3] * 2, "pool_op_kernel_sizes": [[1] * 3, [2] * 3]}
    (folder / "plans.json").write_text(json.dumps(plans))
    assert np.array_equal(np.asarray(hilum.load(folder, "cpu").predict(volume()).data), before)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"image_reader_writer": "MyReader"}, "its reader is MyReader"),
        ({"label_manager": "MyLabels"}, "its labels is MyLabels"),
        ({"preprocessor_name": "MyPreprocessor"}, "its preprocessor is MyPreprocessor"),
        ({"normalization_schemes": ["MyScheme"]}, "MyScheme"),
        ({"resampling_fn_data": "my_resampling"}, "my_resampling"),
        ({"network_class_name": "mine.PlainConvUNet"}, "its network mine.PlainConvUNet"),
        ({"network_class_name": "dynamic_network_architectures.architectures.unet.Other"}, "its network is Other"),
    ],
)
def test_what_is_not_nnunets_own_is_refused_by_its_name(tmp_path, change, says):
    folder = result_folder(tmp_path, "3d_fullres")
    plans = json.loads((folder / "plans.json").read_text())
    planned = plans["configurations"]["base"]
    for part in (plans, planned, planned["architecture"]):
        part.update({key: value for key, value in change.items() if key in part})
    (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(UsageError, match=says):
        hilum.load(folder, "cpu")


def test_a_folder_that_is_not_whole_is_refused(tmp_path):
    folder = result_folder(tmp_path, "3d_fullres", outputs=4)
    with pytest.raises(IntegrityError, match="not of the planned network"):
        hilum.load(folder, "cpu")
    with pytest.raises(UsageError, match="is not a package"):
        hilum.load(folder, "cpu", backend="onnx")
    (folder / "plans.json").write_text("{")
    with pytest.raises(FormatError, match=r"plans\.json"):
        hilum.load(folder, "cpu")
    (folder / "fold_all" / "checkpoint_final.pth").unlink()
    with pytest.raises(UsageError, match="holds no fold"):
        hilum.load(folder, "cpu")


def test_a_result_folder_without_dataset_json_is_told_to_get_it(tmp_path):
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "plans.json").write_text("{}")
    with pytest.raises(UsageError, match=r"without dataset\.json"):
        hilum.load(tmp_path)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("lacking", r"is a model of nnU-Net v2, but dataset\.json is missing"),
        ("above", r"holds 1 folder of nnU-Net v2. Give .*above/Dataset001_Organ/Trainer__Plans__3d"),
        ("above/Dataset001_Organ", r"holds 1 folder of nnU-Net v2. Give .*Trainer__Plans__3d"),
        ("above/Dataset001_Organ/Trainer__Plans__3d/fold_0", r"a part of a model .* Give .*__3d and --fold 0"),
        ("above/Dataset001_Organ/Trainer__Plans__3d/fold_0/checkpoint_final.pth", r"Give .*__3d and --fold 0"),
        ("above/Dataset001_Organ/Trainer__Plans__3d/plans.json", r"a part of a model .* Give .*Trainer__Plans__3d\."),
        ("first", "is a model of nnU-Net v1"),
        ("bundle", r"is a model of MONAI, but configs/metadata\.json is missing"),
    ],
)
def test_a_folder_that_is_nearly_a_model_names_what_lacks_or_what_is_meant(tmp_path, given, says):
    files = ["lacking/plans.json", "lacking/fold_0/checkpoint_final.pth", "first/plans.pkl"]
    files += [f"above/Dataset001_Organ/Trainer__Plans__3d/{one}" for one in ("plans.json", "dataset.json")]
    files += ["above/Dataset001_Organ/Trainer__Plans__3d/fold_0/checkpoint_final.pth"]
    files += ["bundle/configs/inference.json", "bundle/models/model.pt"]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    with pytest.raises(UsageError, match=says):
        hilum.load(tmp_path / given, "cpu")
    with pytest.raises(UsageError, match=says):
        hilum.adopt(tmp_path / given, out=tmp_path / "out")
